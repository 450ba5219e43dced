"""The null engine keeps to its numbers and to its limits."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing

import pytest
from raglan.deadline import Deadline
from raglan.errors import DeadlineExceeded
from raglan_generator.engines.null import NullEngine
from raglan_generator.generation import Citation, Delta, Event, FinishReason, Passage, Request

ASKED = Request("Why?", (Passage("Because.", start=4), Passage("Or else.")))


async def answer(
    engine: NullEngine, request: Request = ASKED, within_s: float = 10
) -> tuple[list[Event], DeadlineExceeded | None]:
    """What came, and what ended it early."""
    events: list[Event] = []
    try:
        async with aclosing(engine.generate(request, Deadline.after(within_s))) as answering:
            async for event in answering:
                events.append(event)
    except DeadlineExceeded as error:
        return events, error
    return events, None


def words(events: list[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Delta)]


async def test_its_words_are_numbered_and_the_last_cites_the_first_passage():
    events, _ = await answer(NullEngine(tokens=3))
    assert words(events) == ["word1", " word2", " word3 [1]"]
    assert events[3] == Citation(1, 0, "Because.", 4, 12)
    assert events[4].usage.completion_tokens == 3
    assert events[4].reason is FinishReason.STOP


async def test_a_request_for_less_gets_less():
    events, _ = await answer(
        NullEngine(tokens=3), Request(ASKED.question, ASKED.passages, max_tokens=2)
    )
    assert words(events) == ["word1", " word2 [1]"]
    assert events[-1].reason is FinishReason.LENGTH


async def test_tokens_come_by_the_clock():
    began = time.monotonic()
    came = []
    async for event in NullEngine(tokens=4, first_token_s=0.1, token_s=0.02).generate(
        ASKED, Deadline.after(10)
    ):
        if isinstance(event, Delta):
            came.append(time.monotonic() - began)
    for number, at in enumerate(came):
        # asyncio's timers may fire up to a clock tick early.
        assert at >= 0.099 + number * 0.02


async def test_at_the_deadline_it_stops_with_what_it_has_written():
    events, error = await answer(NullEngine(tokens=1_000, token_s=0.2), within_s=1)
    assert error is not None
    assert "before the answer ended" in error.message
    assert 1 <= len(words(events)) <= 6
    assert words(events) == ["word1", *(f" word{n}" for n in range(2, len(events) + 1))]


@pytest.mark.parametrize(
    ("first_token_s", "within_s", "said"),
    [(0.05, 10.0, "did not begin in time"), (None, 0.05, "before the answer began")],
)
async def test_what_does_not_begin_in_time_is_ended(
    first_token_s: float | None, within_s: float, said: str
):
    request = Request(ASKED.question, ASKED.passages, first_token_s=first_token_s)
    began = time.monotonic()
    events, error = await answer(NullEngine(tokens=1, first_token_s=60), request, within_s)
    assert events == []
    assert error is not None
    assert said in error.message
    assert time.monotonic() - began < 60


async def test_a_caller_who_leaves_frees_his_place_at_once():
    engine = NullEngine(tokens=2, token_s=60)

    async def read() -> None:
        await answer(engine, within_s=120)

    reading = asyncio.create_task(read())
    async with asyncio.timeout(30):
        while engine.load().running == 0:
            await asyncio.sleep(0)
    reading.cancel()
    await asyncio.wait((reading,), timeout=30)
    assert reading.cancelled()
    assert engine.load().running == 0
