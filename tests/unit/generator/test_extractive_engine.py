"""The extractive engine: quotes that hold, limits that bind, a loop that keeps turning."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from raglan.deadline import Deadline
from raglan.errors import DeadlineExceeded
from raglan_generator.engines.extractive import ExtractiveEngine
from raglan_generator.generation import (
    ABSTENTION,
    Citation,
    Delta,
    Event,
    Finished,
    FinishReason,
    Passage,
    Request,
)

WORDS = st.sampled_from(
    [
        "Rollo",
        "ruled",
        "Normandy",
        "in",
        "911.",
        "Ärger",
        "😀",
        "東京。",
        "e\u0301t\u0301",
        "\n\n",
        "\x00",
        "Who?",
    ]
)
DOCUMENT = st.lists(WORDS, min_size=1, max_size=80).map(" ".join)
NORMANS = Passage("Rollo ruled Normandy in 911. He was a Norse leader. His heirs ruled England.")


async def answer(
    request: Request, engine: ExtractiveEngine | None = None, seconds: float = 10
) -> list[Event]:
    engine = engine or ExtractiveEngine()
    return [event async for event in engine.generate(request, Deadline.after(seconds))]


def finished(events: list[Event]) -> Finished:
    assert isinstance(events[-1], Finished)
    return events[-1]


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))


@given(DOCUMENT, st.lists(st.tuples(st.integers(0, 200), st.integers(1, 200)), max_size=5))
def test_every_quote_equals_the_document_at_its_offsets(
    document: str, cuts: list[tuple[int, int]]
) -> None:
    passages = tuple(Passage(document[at : at + size], start=at) for at, size in cuts)
    engine = ExtractiveEngine(min_confidence=0)
    events = asyncio.run(answer(Request("Who ruled 東京 in 911?", passages), engine))
    for event in events:
        if isinstance(event, Citation):
            assert event.quote == document[event.start : event.end]
            assert event.quote in passages[event.passage_index].text


async def test_each_citation_follows_the_text_with_its_marker() -> None:
    events = await answer(Request("What did his heirs and leaders rule?", (NORMANS,)))
    citations = [event for event in events if isinstance(event, Citation)]
    assert [citation.marker for citation in citations] == [1, 2]
    for before, event in pairwise(events):
        if isinstance(event, Citation):
            assert isinstance(before, Delta)
            assert before.text.endswith(f"[{event.marker}]")


async def test_a_sentence_quoted_over_a_line_end_reads_as_one_line() -> None:
    events = await answer(Request("Who ruled Normandy?", (Passage("Rollo ruled\nNormandy."),)))
    assert text_of(events) == "Rollo ruled Normandy. [1]"


async def test_a_question_about_something_else_is_declined() -> None:
    events = await answer(Request("How do enzymes regulate glucose metabolism?", (NORMANS,)))
    assert text_of(events) == ABSTENTION
    assert finished(events).reason is FinishReason.ABSTAINED
    assert finished(events).support.confidence < 0.4


async def test_a_question_of_stop_words_alone_is_declined() -> None:
    assert finished(await answer(Request("What is it?", (NORMANS,)))).support.confidence == 0


@pytest.mark.parametrize("max_tokens", [1, 4, 6])
async def test_an_answer_over_the_limit_is_cut_at_a_word(max_tokens: int) -> None:
    question = "Who ruled Normandy, and what did his heirs rule?"
    events = await answer(Request(question, (NORMANS,), max_tokens=max_tokens))
    assert finished(events).reason is FinishReason.LENGTH
    assert finished(events).usage.completion_tokens == max_tokens
    quotes = [event.quote for event in events if isinstance(event, Citation)]
    assert sum(len(quote.split()) for quote in quotes) == max_tokens


async def test_usage_counts_the_words_of_question_and_passages() -> None:
    events = await answer(Request("Who ruled Normandy?", (NORMANS,)))
    assert finished(events).usage.prompt_tokens == 3 + 14


async def test_after_the_deadline_nothing_is_started() -> None:
    with pytest.raises(DeadlineExceeded):
        await answer(Request("Who ruled Normandy?", (NORMANS,)), seconds=0)


async def test_a_deadline_ends_work_on_large_passages() -> None:
    passages = (Passage(NORMANS.text * 20),) * 300
    # CPU time: a busy machine slows the clock on the wall, not this one.
    started = time.process_time()
    with pytest.raises(DeadlineExceeded):
        await answer(Request("Who ruled Normandy?", passages), seconds=0.05)
    assert time.process_time() - started < 0.3


async def test_the_loop_turns_while_large_passages_are_read() -> None:
    passages = (Passage(NORMANS.text * 20),) * 300
    answering = asyncio.create_task(answer(Request("Who ruled Normandy?", passages)))
    started = last = time.process_time()
    longest, turns = 0.0, 0
    while not answering.done():
        await asyncio.sleep(0.001)
        now = time.process_time()
        longest, turns, last = max(longest, now - last), turns + 1, now
    assert finished(await answering).reason is FinishReason.STOP
    assert turns > 5
    assert longest < (last - started) / 2, "one turn took as long as the work"


async def test_a_huge_question_costs_no_more_than_a_long_one() -> None:
    """8,000 characters over 100 passages: what an attacker may send."""
    question = " ".join(f"word{n}" for n in range(1_000))[:8_000]
    text = " ".join(f"Rollo word{n} ruled number {n}." for n in range(40))
    passages = tuple(Passage(text, document=str(n)) for n in range(100))
    started = time.process_time()
    await answer(Request(question, passages))
    assert time.process_time() - started < 2


async def test_a_huge_word_is_read_in_little_time() -> None:
    passages = (Passage("a" * 1_000_000), NORMANS)
    started = time.process_time()
    await answer(Request("Who ruled Normandy?", passages))
    assert time.process_time() - started < 2


async def test_a_follow_up_is_answered_by_its_stand_alone_form() -> None:
    asked = Request("and when?", (NORMANS,), standalone_question="When did Rollo rule Normandy?")
    text = "".join(
        [
            event.text
            async for event in ExtractiveEngine().generate(asked, Deadline.after(10))
            if isinstance(event, Delta)
        ]
    )
    assert "911" in text
