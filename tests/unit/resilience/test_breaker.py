"""The circuit breaker: each rule by itself; all of them together are in test_breaker_walk.py."""

from __future__ import annotations

import gc
import time

import pytest
from raglan.resilience import BreakerOptions, CircuitBreaker, Permit, State


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Watched(CircuitBreaker):
    """A breaker, its clock, and the states it went through."""

    def __init__(self, options: BreakerOptions | None = None) -> None:
        self.clock = Clock()
        self.seen: list[State] = []
        super().__init__(options, clock=self.clock, on_change=self.seen.append)

    def allowed(self) -> Permit:
        permit = self.permit()
        assert permit is not None, f"refused while {self.state}"
        return permit

    def fail(self, times: int = 1) -> None:
        for _ in range(times):
            self.allowed().failed()

    def wait_until_half_open(self) -> None:
        self.clock.now += self.retry_after_s()
        assert self.state is State.HALF_OPEN


@pytest.fixture
def breaker() -> Watched:
    return Watched()


@pytest.fixture
def half_open(breaker: Watched) -> Watched:
    breaker.fail(5)
    breaker.wait_until_half_open()
    return breaker


def test_five_failures_in_a_row_open_it(breaker: Watched) -> None:
    breaker.fail(4)
    assert breaker.state is State.CLOSED
    breaker.fail()
    assert breaker.state is State.OPEN
    assert breaker.permit() is None
    assert breaker.retry_after_s() == 5


def test_half_of_twenty_calls_failing_opens_it_though_never_in_a_row(breaker: Watched) -> None:
    for _ in range(9):
        breaker.fail()
        breaker.allowed().succeeded()
    breaker.allowed().succeeded()
    assert (breaker.failures, breaker.state) == (9, State.CLOSED)
    breaker.fail()
    assert breaker.state is State.OPEN


def test_a_rate_means_nothing_below_twenty_calls(breaker: Watched) -> None:
    for _ in range(4):
        breaker.allowed().succeeded()
        breaker.fail(3)
    assert breaker.failure_rate == 0.75
    assert breaker.state is State.CLOSED


def test_failures_older_than_the_window_are_forgotten(breaker: Watched) -> None:
    for _ in range(3):
        breaker.fail(4)
        breaker.allowed().succeeded()
    breaker.clock.now += 10
    assert (breaker.failures, breaker.failure_rate) == (0, 0)
    for _ in range(18):
        breaker.allowed().succeeded()
    breaker.fail(2)
    assert breaker.state is State.CLOSED


def test_released_calls_are_no_outcome(breaker: Watched) -> None:
    breaker.fail(4)
    for _ in range(100):
        breaker.allowed().released()
    assert (breaker.failures, breaker.failure_rate) == (4, 1)
    breaker.fail()
    assert breaker.state is State.OPEN


def test_only_the_first_outcome_of_a_permit_counts(breaker: Watched) -> None:
    permit = breaker.allowed()
    permit.succeeded()
    for _ in range(100):
        permit.failed()
    assert (breaker.failures, breaker.state) == (0, State.CLOSED)


def test_half_open_lets_three_probes_through_however_many_ask(half_open: Watched) -> None:
    assert sum(half_open.permit() is not None for _ in range(100)) == 3


def test_three_probes_that_succeed_close_it_and_the_past_is_forgotten(half_open: Watched) -> None:
    for _ in range(3):
        assert half_open.state is State.HALF_OPEN
        half_open.allowed().succeeded()
    assert (half_open.state, half_open.failures) == (State.CLOSED, 0)
    half_open.fail(4)
    assert half_open.state is State.CLOSED


def test_a_released_probe_makes_room_for_another(half_open: Watched) -> None:
    for _ in range(100):
        half_open.allowed().released()
    assert half_open.state is State.HALF_OPEN


def test_each_probe_that_fails_doubles_the_open_time_up_to_its_limit(half_open: Watched) -> None:
    waits = []
    for _ in range(6):
        half_open.fail()
        waits.append(half_open.retry_after_s())
        half_open.wait_until_half_open()
    assert waits == [10, 20, 40, 60, 60, 60]


def test_once_it_closed_the_open_time_starts_over(half_open: Watched) -> None:
    half_open.fail()
    half_open.wait_until_half_open()
    for _ in range(3):
        half_open.allowed().succeeded()
    half_open.fail(5)
    assert half_open.retry_after_s() == 5


def test_calls_sent_before_it_opened_neither_close_nor_reopen_it(breaker: Watched) -> None:
    old = [breaker.allowed() for _ in range(10)]
    breaker.fail(5)
    for permit in old[:3]:
        permit.succeeded()
    assert breaker.state is State.OPEN
    breaker.wait_until_half_open()
    for permit in old[3:6]:
        permit.succeeded()
    for permit in old[6:]:
        permit.failed()
    assert breaker.state is State.HALF_OPEN


def test_a_probe_of_an_earlier_half_open_is_none_of_this(half_open: Watched) -> None:
    late = half_open.allowed()
    half_open.fail()
    half_open.wait_until_half_open()
    late.failed()
    assert half_open.state is State.HALF_OPEN
    assert sum(half_open.permit() is not None for _ in range(100)) == 3


def test_probes_nobody_reports_are_given_up_in_the_end(half_open: Watched) -> None:
    for _ in range(3):
        half_open.allowed()
    assert half_open.permit() is None
    half_open.clock.now += half_open.options.max_open_s
    assert sum(half_open.permit() is not None for _ in range(100)) == 3
    assert half_open.seen == [State.OPEN, State.HALF_OPEN]


def test_failing_open_passes_in_any_state(
    breaker: Watched,
) -> None:
    """Failing open a call passes whatever the state and its failure changes nothing."""
    breaker.fail(5)
    for _ in range(100):
        breaker.bypass().failed()
    assert breaker.state is State.OPEN
    assert breaker.retry_after_s() == 5


def test_failing_open_successes_in_a_row_close_it(breaker: Watched) -> None:
    breaker.fail(5)
    for succeeds in (True, True, False, True, True):
        permit = breaker.bypass()
        permit.succeeded() if succeeds else permit.failed()
    assert breaker.state is State.OPEN
    breaker.bypass().succeeded()
    assert breaker.state is State.CLOSED


def test_failing_open_an_answer_after_the_open_time_is_no_probe(breaker: Watched) -> None:
    breaker.fail(5)
    permits = [breaker.bypass() for _ in range(3)]
    breaker.clock.now += 6
    for permit in permits:
        permit.succeeded()
    assert breaker.state is State.HALF_OPEN


def test_every_change_is_told_once_in_order(half_open: Watched) -> None:
    half_open.fail()
    half_open.wait_until_half_open()
    for _ in range(3):
        half_open.allowed().succeeded()
    assert half_open.seen == [
        State.OPEN,
        State.HALF_OPEN,
        State.OPEN,
        State.HALF_OPEN,
        State.CLOSED,
    ]


def test_who_is_told_may_ask_the_breaker_again() -> None:
    heard: list[tuple[State, State, bool]] = []

    def told(state: State) -> None:
        heard.append((state, asked.state, asked.permit() is None))

    asked = CircuitBreaker(BreakerOptions(consecutive=1), clock=Clock(), on_change=told)
    asked.bypass().failed()
    assert heard == [(State.OPEN, State.OPEN, True)]


def test_stepping_the_wall_clock_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    breaker = CircuitBreaker()
    for step_s in (3600, -3600):
        stepped = time.time() + step_s
        monkeypatch.setattr(time, "time", lambda: stepped)  # noqa: B023 - read at once
        for _ in range(5):
            breaker.bypass().failed()
        assert breaker.state is State.OPEN
        assert 4 < breaker.retry_after_s() <= 5


def reachable(thing: object) -> int:
    """Objects that `thing` keeps alive, types and functions aside."""
    seen = {id(thing)}
    todo: list[object] = [thing]
    while todo:
        for other in gc.get_referents(todo.pop()):
            if id(other) not in seen and not isinstance(other, type) and not callable(other):
                seen.add(id(other))
                todo.append(other)
    return len(seen)


def test_memory_does_not_grow_with_calls() -> None:
    breaker = Watched(BreakerOptions(consecutive=1000, failure_rate=0.9))
    sizes = set()
    for call in range(20_000):
        breaker.clock.now += 0.0021
        permit = breaker.allowed()
        permit.succeeded() if call % 3 else permit.failed()
        if call % 2000 == 1999:
            sizes.add(reachable(breaker))
    assert max(sizes) < 100, f"a breaker keeps {max(sizes)} objects"
