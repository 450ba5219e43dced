"""What every engine must do, whatever is behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing

import pytest
from raglan.deadline import Deadline
from raglan.errors import DeadlineExceeded
from raglan_generator.engines.extractive import ExtractiveEngine
from raglan_generator.engines.null import NullEngine
from raglan_generator.generation import (
    ABSTENTION,
    Citation,
    Delta,
    Engine,
    Event,
    Finished,
    FinishReason,
    Passage,
    Request,
)

DOCUMENT = "Préface 😀. Raglan pins devices. The reranker runs on the second GPU."
ASKED = Request("Where does the reranker run?", (Passage(DOCUMENT[9:], start=9),))


@pytest.fixture(params=["extractive", "openai", "null"])
async def engine(request: pytest.FixtureRequest, llm, asking_openai) -> AsyncIterator[Engine]:
    async def script(exchange) -> None:
        await exchange.stream("The reranker runs on the ", "second GPU.[1][7]")

    llm.script = script
    engines: dict[str, Callable[[], Engine]] = {
        "extractive": ExtractiveEngine,
        "openai": lambda: asking_openai(llm.base_url),
        "null": lambda: NullEngine(tokens=3),
    }
    engine = engines[request.param]()
    await engine.start()
    yield engine
    await engine.close()


async def answer(engine: Engine, request: Request = ASKED) -> list[Event]:
    async with aclosing(engine.generate(request, Deadline.after(10))) as events:
        return [event async for event in events]


async def test_an_answer_ends_with_exactly_one_finished(engine) -> None:
    events = await answer(engine)
    assert [event for event in events if isinstance(event, Finished)] == events[-1:]
    assert 0 < events[-1].support.confidence <= 1
    assert 0 < events[-1].support.groundedness <= 1


async def test_markers_and_citations_match_and_quotes_hold(engine) -> None:
    text, cited = "", []
    for event in await answer(engine):
        if isinstance(event, Delta):
            text += event.text
        elif isinstance(event, Citation):
            assert text.endswith(f"[{event.marker}]")
            assert event.quote == DOCUMENT[event.start : event.end]
            cited.append(event.marker)
    assert cited == list(range(1, len(cited) + 1))
    assert cited
    assert "[7]" not in text


async def test_without_passages_it_abstains(engine) -> None:
    events = await answer(engine, Request("Why?", ()))
    assert events[0] == Delta(ABSTENTION)
    assert events[-1].reason is FinishReason.ABSTAINED
    assert len(events) == 2


async def test_after_the_deadline_it_raises(engine) -> None:
    with pytest.raises(DeadlineExceeded):
        async for _ in engine.generate(ASKED, Deadline.after(0)):
            pass


async def test_left_early_it_answers_the_next(engine) -> None:
    async with aclosing(engine.generate(ASKED, Deadline.after(10))) as events:
        await anext(events)
    assert isinstance((await answer(engine))[-1], Finished)


async def test_it_describes_itself(engine) -> None:
    assert engine.info.engine in {"extractive", "openai", "null"}
    assert engine.info.model
