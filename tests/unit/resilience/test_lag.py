"""A door that follows the lag of its event loop."""

from __future__ import annotations

import pytest
from raglan.resilience.lag import HIGH_S, LagLimit


def samples(limit: LagLimit, lag_s: float, count: int, *, wanted: bool, running: int = 0) -> None:
    for _ in range(count):
        if running:
            limit.started(min(running, limit.limit), 0.0)
        if wanted:
            limit.queued()
        limit.lagged(lag_s)


def test_a_loop_that_is_late_takes_fewer_at_a_time_down_to_the_smallest() -> None:
    limit = LagLimit(initial=100, smallest=4, largest=500)
    samples(limit, 4 * HIGH_S, 50, wanted=True, running=100)
    assert limit.limit == 4


def test_a_limit_nobody_reaches_comes_down_from_what_is_in_use() -> None:
    limit = LagLimit(initial=500, smallest=4, largest=500)
    samples(limit, 4 * HIGH_S, 3, wanted=False, running=20)
    assert limit.limit <= 20


def test_it_grows_fifteenfold_in_two_seconds_without_lag() -> None:
    """It grows fifteenfold in two seconds when the loop is on time and somebody waits."""
    limit = LagLimit(initial=8, smallest=4, largest=500)
    samples(limit, 0.001, 100, wanted=True, running=500)
    assert limit.limit >= 120
    samples(limit, 0.001, 1000, wanted=True, running=500)
    assert limit.limit == 500


def test_it_does_not_grow_while_nobody_waits() -> None:
    limit = LagLimit(initial=8, smallest=4, largest=500)
    samples(limit, 0.0, 1000, wanted=False)
    assert limit.limit == 8


def test_one_stall_of_the_machine_is_forgotten_within_a_second_or_two() -> None:
    limit = LagLimit(initial=32, smallest=4, largest=500)
    limit.started(20, 0.0)
    limit.lagged(2.0)
    samples(limit, 0.001, 100, wanted=True, running=500)
    assert limit.limit >= 32


@pytest.mark.parametrize("seconds", [0.2, 3.0])
def test_it_tells_what_calls_take(seconds: float) -> None:
    limit = LagLimit()
    assert limit.latency_s is None
    limit.observe(seconds, 0.0)
    limit.timed_out(seconds, 0.0)
    limit.refused(0.0)
    assert limit.latency_s == pytest.approx(seconds)
