"""What the generator's metrics say of answers that end, fail, and are left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field

import pytest
from prometheus_client import CollectorRegistry
from raglan.errors import DeadlineExceeded, Overloaded, RaglanError, Unavailable
from raglan_generator.engines.extractive import ExtractiveEngine
from raglan_generator.generation import (
    Delta,
    Event,
    Finished,
    FinishReason,
    Load,
    Support,
    Usage,
)
from raglan_generator.metrics import GeneratorMetrics

WHOLE = Finished(
    FinishReason.STOP, Usage(30, 4, cached_tokens=16), Support(0.9, 1.0), "m", queue_ns=2 * 10**9
)


async def answering(*pieces: Event | RaglanError) -> AsyncGenerator[Event]:
    for piece in pieces:
        if isinstance(piece, RaglanError):
            raise piece
        yield piece


@dataclass
class Counted:
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        self.metrics = GeneratorMetrics(self.registry)

    def value(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"raglan_generator_{name}", labels) or 0.0

    async def all_of(self, *pieces: Event | RaglanError) -> list[Event]:
        async with aclosing(self.metrics.measured(answering(*pieces))) as events:
            return [event async for event in events]


@pytest.fixture
def counted() -> Counted:
    return Counted()


async def test_a_whole_answer_counts_its_tokens_by_kind(counted: Counted) -> None:
    assert await counted.all_of(Delta("a"), WHOLE) == [Delta("a"), WHOLE]
    assert counted.value("tokens_total", kind="prompt") == 30
    assert counted.value("tokens_total", kind="cached") == 16
    assert counted.value("tokens_total", kind="completion") == 4
    assert counted.value("answers_total", end="stop") == 1
    assert counted.value("queue_seconds_sum") == 2
    assert counted.value("first_token_seconds_count") == 1
    assert counted.value("per_token_seconds_count") == 1


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Overloaded("full"), "refused"),
        (DeadlineExceeded("late"), "deadline"),
        (Unavailable("gone"), "failed"),
    ],
)
async def test_an_answer_that_fails_counts_by_its_reason(
    counted: Counted, error: RaglanError, reason: str
) -> None:
    with pytest.raises(type(error)):
        await counted.all_of(Delta("a"), error)
    assert counted.value("aborted_total", reason=reason) == 1
    assert counted.value("answers_total", end="stop") == 0


async def test_a_client_that_leaves_is_counted_once(counted: Counted) -> None:
    async with aclosing(counted.metrics.measured(answering(Delta("a"), WHOLE))) as events:
        await anext(events)
    assert counted.value("aborted_total", reason="left") == 1


async def test_a_client_that_leaves_before_the_first_token_is_counted(counted: Counted) -> None:
    async def stuck() -> AsyncGenerator[Event]:
        await asyncio.Event().wait()
        yield Delta("never")

    async def reading() -> None:
        async with aclosing(counted.metrics.measured(stuck())) as events:
            await anext(events)

    task = asyncio.create_task(reading())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert counted.value("aborted_total", reason="left") == 1


async def test_a_client_that_leaves_after_the_end_has_lost_nothing(counted: Counted) -> None:
    async with aclosing(counted.metrics.measured(answering(WHOLE))) as events:
        await anext(events)
    assert counted.value("aborted_total", reason="left") == 0


class Busy(ExtractiveEngine):
    def load(self) -> Load:
        return Load(running=3, kv_use=0.5, backlog_s=1.5, drafted_total=10, accepted_total=7)


def test_the_engines_own_numbers_are_read_when_asked_for(counted: Counted) -> None:
    counted.metrics.watch(Busy())
    assert counted.value("running") == 3
    assert counted.value("kv_use") == 0.5
    assert (counted.value("drafted_total"), counted.value("accepted_total")) == (10, 7)
    assert counted.registry.get_sample_value("raglan_backlog_seconds") == 1.5
