"""HPA and KEDA by the examples and rules of their documentation."""

from __future__ import annotations

import pytest
from autoscalers import (
    Activation,
    Behavior,
    Limit,
    Stabiliser,
    ZeroScaler,
    desired_for_pods,
    desired_for_total,
)

PER_MINUTE = (Limit("Pods", 4, 60), Limit("Percent", 10, 60))


@pytest.mark.parametrize(
    ("value", "replicas"), [(0.2, 8), (0.05, 2), (0.109, 4), (0.091, 4), (0.111, 5), (0.0, 0)]
)
def test_replicas_follow_the_ratio_outside_of_the_tolerance(value: float, replicas: int) -> None:
    """The documentation's example: 200m over a target of 100m doubles, 50m halves."""
    assert desired_for_pods([value] * 4, 0.1, 0, 4, 0.1) == replicas
    assert desired_for_total(4 * value, 0.1, 4, 0.1) == replicas


def test_a_replica_without_a_value_dampens_both_directions() -> None:
    # Up: it counts as 0. (3 + 3 + 0) / 3 = 2 over a target of 1: 6 replicas instead of 9.
    assert desired_for_pods([3, 3], 1, 1, 3, 0.1) == 6
    # Down: it counts as the target. (0.1 + 0.1 + 1) / 3 = 0.4: 2 replicas instead of 1.
    assert desired_for_pods([0.1, 0.1], 1, 1, 3, 0.1) == 2


def test_a_correction_that_turns_the_direction_changes_nothing() -> None:
    assert desired_for_pods([1.5], 1, 2, 3, 0.1) == 3


def test_without_any_value_nothing_changes() -> None:
    assert desired_for_pods([], 1, 2, 2, 0.1) == 2


def test_more_by_default_are_four_or_twice_in_15_seconds() -> None:
    scaled = Stabiliser(Behavior(), 1, 100)
    counts = [1]
    for tick in range(5):
        counts.append(scaled.next(15.0 * tick, counts[-1], 100))
    assert counts == [1, 5, 10, 20, 40, 80]


def test_fewer_by_the_documented_example() -> None:
    """From 80 to 10 by 10 % or 4 a minute, whichever is more: below 40 it is 4."""
    scaled = Stabiliser(Behavior(down=PER_MINUTE, down_window_s=0), 1, 100)
    counts = [80]
    for minute in range(16):
        counts.append(scaled.next(60.0 * minute, counts[-1], 10))
    assert counts[:4] == [80, 72, 64, 57]
    below = next(n for n in counts if n <= 40)
    at = counts.index(below)
    assert counts[at : at + 4] == [below, below - 4, below - 8, below - 12]
    assert counts[-1] == 10


def test_a_limit_counts_what_was_added_within_its_period() -> None:
    scaled = Stabiliser(Behavior(up=(Limit("Pods", 1, 180),)), 1, 10)
    counts = [1]
    for tick in range(25):
        counts.append(scaled.next(15.0 * tick, counts[-1], 10))
    assert counts[1] == 2
    assert counts[:13].count(2) == 12
    assert counts[13] == 3


def test_fewer_wait_for_the_highest_of_the_window() -> None:
    scaled = Stabiliser(Behavior(down_window_s=300), 1, 10)
    assert scaled.next(0, 4, 4) == 4
    assert [scaled.next(15.0 * tick, 4, 1) for tick in range(1, 20)] == [4] * 19
    assert scaled.next(300, 4, 1) == 1


def test_more_wait_for_the_lowest_of_the_window() -> None:
    scaled = Stabiliser(Behavior(up_window_s=60), 1, 10)
    assert scaled.next(0, 1, 1) == 1
    assert [scaled.next(15.0 * tick, 1, 4) for tick in range(1, 4)] == [1, 1, 1]
    assert scaled.next(60, 1, 4) == 4


def test_bounds_hold() -> None:
    scaled = Stabiliser(Behavior(down_window_s=0), 2, 3)
    assert scaled.next(0, 2, 9) == 3
    assert scaled.next(15, 3, 0) == 2


def test_work_wakes_and_idleness_ends_the_last_replica() -> None:
    scaled = ZeroScaler(Activation(threshold=0.5, polling_s=30, cooldown_s=90), 0)
    assert scaled.next(0, 0, 0.5) == 0, "the threshold itself does not activate"
    assert scaled.next(30, 0, 0.6) == 1
    assert scaled.next(60, 1, 0) == 1
    assert scaled.next(119, 1, 0) == 1
    assert scaled.next(120, 1, 0) == 0
    assert scaled.next(150, 3, 9) == 3
