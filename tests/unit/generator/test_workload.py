"""When a new question would begin, and how much is queued, in a day played by a clock."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from raglan_generator.workload import Workload


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def played(clock: Clock, workload: Workload, *, rounds: int, at_once: int, each_s: float) -> None:
    """`at_once` questions of 1,000 tokens come together; one begins every `each_s`."""
    for _ in range(rounds):
        works = [workload.begin(1_000) for _ in range(at_once)]
        for work in works:
            clock.now += each_s
            workload.wrote(work, 1)
        for work in works:
            workload.wrote(work, 99)
            workload.end(work, whole=True)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def workload(clock: Clock) -> Workload:
    return Workload(clock)


def test_nothing_is_expected_to_wait_before_slowness_was_seen(workload: Workload) -> None:
    for _ in range(32):
        workload.begin(1_000)
    assert workload.first_token_s(1_000) < 1


def test_the_wait_grows_with_what_is_ahead_as_it_was_seen_to(
    clock: Clock, workload: Workload
) -> None:
    played(clock, workload, rounds=20, at_once=4, each_s=0.2)
    assert workload.first_token_s(1_000) == pytest.approx(0.2, rel=0.2)
    for _ in range(9):
        workload.begin(1_000)
    assert workload.first_token_s(1_000) == pytest.approx(2.0, rel=0.2)


def test_a_question_given_up_while_it_waited_counts_as_slow(
    clock: Clock, workload: Workload
) -> None:
    played(clock, workload, rounds=20, at_once=4, each_s=0.01)
    before = workload.first_token_s(1_000)
    for _ in range(20):
        work = workload.begin(1_000)
        clock.now += 1.0
        workload.end(work, whole=False)
    assert workload.first_token_s(1_000) > 5 * before


def test_a_client_that_leaves_at_once_teaches_nothing(clock: Clock, workload: Workload) -> None:
    played(clock, workload, rounds=20, at_once=4, each_s=0.1)
    before = workload.first_token_s(1_000)
    for _ in range(50):
        workload.end(workload.begin(1_000), whole=False)
    assert workload.first_token_s(1_000) == pytest.approx(before)


def test_the_backlog_is_what_is_queued_over_the_speed_measured(
    clock: Clock, workload: Workload
) -> None:
    played(clock, workload, rounds=40, at_once=1, each_s=1.0)
    assert workload.backlog_s() == 0
    for _ in range(10):
        workload.begin(1_000)
    # 1,100 tokens a second: ten prompts and what ten answers usually have.
    assert workload.backlog_s() == pytest.approx(10.0, rel=0.1)


def test_who_has_a_first_token_runs_and_who_has_not_waits(workload: Workload) -> None:
    first, _second = workload.begin(10), workload.begin(10)
    workload.wrote(first, 1)
    assert (workload.running, workload.waiting) == (1, 1)


@given(
    st.lists(
        st.tuples(st.sampled_from(["begin", "wrote", "end", "wait"]), st.integers(0, 7)),
        max_size=60,
    )
)
def test_whatever_happens_nothing_is_left_over(events: list[tuple[str, int]]) -> None:
    clock = Clock()
    workload = Workload(clock)
    works = []
    for what, which in events:
        match what:
            case "begin":
                works.append(workload.begin(which * 100 + 1))
            case "wait":
                clock.now += which
            case "wrote" if works:
                workload.wrote(works[which % len(works)], which + 1)
            case "end" if works:
                workload.end(works.pop(which % len(works)), whole=which % 2 == 0)
        assert workload.backlog_s() >= 0
        assert workload.first_token_s(1) >= 0
    for work in works:
        workload.end(work, whole=True)
        workload.end(work, whole=True)
    assert (workload.running, workload.waiting, workload.backlog_s()) == (0, 0, 0)
    assert workload.begin(5).ahead == 5
