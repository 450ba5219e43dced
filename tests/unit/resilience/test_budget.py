"""Extra calls: a share of the wanted ones, and a floor."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raglan.resilience import Budget


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_without_requests_nothing_is_extra_but_the_floor() -> None:
    assert not Budget(0.1, clock=Clock()).try_acquire()
    floored = Budget(0.1, 3.0, window_s=10, clock=Clock())
    assert sum(floored.try_acquire() for _ in range(100)) == 30


def test_a_share_of_the_requests_is_allowed() -> None:
    budget = Budget(0.1, clock=Clock())
    for _ in range(1000):
        budget.request()
    assert sum(budget.try_acquire() for _ in range(1000)) == 100
    assert budget.share_used == pytest.approx(0.1)


def test_what_was_spent_comes_back_after_the_window() -> None:
    clock = Clock()
    budget = Budget(0.1, 1.0, window_s=10, clock=clock)
    assert sum(budget.try_acquire() for _ in range(100)) == 10
    clock.now += 11.1
    assert sum(budget.try_acquire() for _ in range(100)) == 10


def test_no_credit_is_saved_up_from_a_busy_time() -> None:
    clock = Clock()
    budget = Budget(0.1, window_s=10, clock=clock)
    for _ in range(1000):
        budget.request()
    clock.now += 11
    assert not budget.try_acquire()


def test_steady_failure_of_everything_stays_at_the_share() -> None:
    clock = Clock()
    budget = Budget(0.1, window_s=10, clock=clock)
    taken = 0
    for _ in range(10_000):
        clock.now += 0.01
        budget.request()
        taken += budget.try_acquire()
    assert 0.085 * 10_000 <= taken <= 0.1 * 10_000


waits_s = st.sampled_from([0.0, 0.0, 0.0, 0.01, 0.5, 0.99, 8.5, 9.05]) | st.floats(0, 3)
events = st.lists(st.tuples(st.sampled_from(["requests", "take"]), waits_s), max_size=100)


@settings(max_examples=300)
@given(events, st.sampled_from([0.0, 0.05, 0.1, 0.5]), st.sampled_from([0.0, 0.1, 0.5]))
def test_extras_never_pass_share_or_floor_in_any_window(
    happenings: list[tuple[str, float]], share: float, floor_per_s: float
) -> None:
    clock, window_s = Clock(), 10.0
    budget = Budget(share, floor_per_s, window_s=window_s, clock=clock)
    requests: list[float] = []
    extras: list[float] = []
    for kind, wait_s in happenings:
        clock.now += wait_s
        for _ in range(10):
            if kind == "requests":
                budget.request()
                requests.append(clock.now)
                continue
            if not budget.try_acquire():
                break
            extras.append(clock.now)
            begin = clock.now - window_s
            wanted = sum(at > begin for at in requests)
            assert sum(at > begin for at in extras) <= max(share * wanted, floor_per_s * window_s)
