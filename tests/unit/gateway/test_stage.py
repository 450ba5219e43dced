"""How long a stage may take, and when it is skipped."""

from __future__ import annotations

import asyncio

import pytest
from raglan.deadline import Deadline
from raglan.errors import DeadlineExceeded, Overloaded
from raglan.resilience.limiter import Priority
from raglan_gateway.degradation import LEVELS, current_level
from raglan_gateway.stage import LARGEST, QUEUE, StageLimiter


def stage_that_takes(seconds: float, *, calls: int = 40, share: float = 1.0) -> StageLimiter:
    stage = StageLimiter("rerank", longest_s=5, share=share)
    for _ in range(calls):
        stage.observe(seconds)
    return stage


def test_a_stage_nobody_has_measured_gets_all_that_is_set() -> None:
    assert StageLimiter("rerank", longest_s=5).budget_s == 5


@pytest.mark.parametrize(
    ("usual_s", "budget_s"), [(0.01, 0.75), (0.5, 1.5), (1.0, 3.0), (4.0, 5.0)]
)
def test_the_budget_is_three_times_what_calls_take_within_its_bounds(
    usual_s: float, budget_s: float
) -> None:
    assert stage_that_takes(usual_s).budget_s == pytest.approx(budget_s)


def test_a_stage_that_takes_longer_than_is_left_is_skipped_and_says_why() -> None:
    stage = stage_that_takes(0.4, share=0.5)
    assert stage.limit(Deadline.after(1.0)).remaining_s() == pytest.approx(0.5, abs=0.05)
    with pytest.raises(
        DeadlineExceeded, match=r"stage rerank take longer than 400 ms; (2\d\d|300) ms"
    ):
        stage.limit(Deadline.after(0.6))


@pytest.mark.parametrize(
    ("timeout_s", "is_budget"), [(30, True), (1.0, False)], ids=["patient", "in a hurry"]
)
def test_a_limit_says_whether_it_is_the_stages_or_the_callers(
    timeout_s: float, is_budget: bool
) -> None:
    stage = stage_that_takes(0.3, share=0.5)
    assert stage.limit(Deadline.after(timeout_s)).is_budget is is_budget


async def test_a_stage_that_has_become_slower_gets_a_larger_budget() -> None:
    stage = stage_that_takes(0.01)
    before = stage.budget_s
    for _ in range(40):
        with pytest.raises(DeadlineExceeded):
            async with stage.place(Priority.DEFAULT, Deadline.after(5)):
                # As one that used up its whole budget.
                stage._latencies.add(before)
                raise DeadlineExceeded("late")
    assert stage.budget_s > 2 * before


async def test_a_query_in_a_hurry_makes_no_budget_smaller_or_larger() -> None:
    stage = stage_that_takes(0.5)
    for _ in range(100):
        with pytest.raises(DeadlineExceeded):
            async with stage.place(Priority.DEFAULT, Deadline.after(5)):
                raise DeadlineExceeded("a hurry")
    assert stage.budget_s == pytest.approx(1.5)


async def test_a_full_stage_refuses_at_once_and_says_when_to_return() -> None:
    stage = StageLimiter("rerank", longest_s=5)
    deadline, release = Deadline.after(30), asyncio.Event()

    async def pass_through() -> None:
        async with stage.place(Priority.DEFAULT, deadline):
            await release.wait()

    inside = [asyncio.create_task(pass_through()) for _ in range(LARGEST + QUEUE)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded) as refused:
        await pass_through()
    assert (refused.value.retry_after_s or 0) > 0
    release.set()
    await asyncio.gather(*inside, return_exceptions=True)
    assert (stage.limiter.running, stage.limiter.waiting) == (0, 0)


def test_the_mesh_stands_on_the_lowest_rung_of_what_is_away() -> None:
    assert current_level([]).name == "full"
    assert current_level(["reranker"]).name == "fused_order"
    assert current_level(["embedder", "reranker"]).name == "lexical"
    assert current_level(["retriever", "generator", "redis"]).name == "kept_answers"
    assert len({level.name for level in LEVELS}) == len(LEVELS)
