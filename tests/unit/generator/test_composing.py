"""Composition of quotes to an answer: Markdown, one marker for each quote, true offsets."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pytest
from raglan.blocks import Block, BlockKind, Cell
from raglan.deadline import Deadline
from raglan_generator.engines.extractive import ExtractiveEngine
from raglan_generator.generation import (
    Citation,
    Delta,
    Event,
    Finished,
    FinishReason,
    Passage,
    Request,
)

HIVES = """\
# Hives

To move a hive to the meadow:

1. Close the entrance.
2. Strap the hive:

   ```sh
   strap --twice
   ```
3. Drive slowly.

| hive | bees |
|---|---|
| Warré | 20,000 |
| Dadant | 60,000 |

## How long does a queen live?

Up to five years. Most are replaced earlier."""


def block(kind: BlockKind, part: str, **more: object) -> Block:
    start = HIVES.index(part)
    return Block(kind, start, start + len(part), **more)  # type: ignore[arg-type]


def cells(*texts: str) -> tuple[Cell, ...]:
    starts = [HIVES.index(text) for text in texts]
    return tuple(Cell(at, at + len(text)) for at, text in zip(starts, texts, strict=True))


LEAD_IN = "To move a hive to the meadow:"
TABLE = HIVES[HIVES.index("| hive") : HIVES.index("\n\n## How")]
HEADER = tuple(Cell(start, start + 4) for start in (HIVES.index("hive |"), HIVES.index("bees |")))
BLOCKS = (
    block(BlockKind.HEADING, "# Hives", level=1),
    block(BlockKind.PARAGRAPH, LEAD_IN),
    block(BlockKind.LIST_ITEM, "1. Close the entrance.", level=1, label="1", lead_in=LEAD_IN),
    block(
        BlockKind.LIST_ITEM,
        "2. Strap the hive:\n\n   ```sh\n   strap --twice\n   ```",
        level=1,
        label="2",
        lead_in=LEAD_IN,
    ),
    block(BlockKind.CODE, "```sh\n   strap --twice\n   ```", label="sh"),
    block(BlockKind.LIST_ITEM, "3. Drive slowly.", level=1, label="3", lead_in=LEAD_IN),
    block(
        BlockKind.TABLE,
        TABLE,
        rows=(
            HEADER,
            cells("Warré", "20,000"),
            cells("Dadant", "60,000"),
        ),
        has_header=True,
    ),
    block(BlockKind.HEADING, "## How long does a queen live?", level=2),
    block(BlockKind.PARAGRAPH, "Up to five years. Most are replaced earlier."),
)
PASSAGE = Passage(HIVES, 100, title="Bees", blocks=BLOCKS, page=3, document="bees")


async def answer(question: str, *passages: Passage, max_tokens: int = 512) -> list[Event]:
    engine = ExtractiveEngine(min_confidence=0, max_sentences=1)
    request = Request(question, passages or (PASSAGE,), max_tokens=max_tokens)
    return [event async for event in engine.generate(request, Deadline.after(10))]


def text_of(events: Iterable[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))


def citation_of(events: Iterable[Event]) -> Citation:
    (found,) = (event for event in events if isinstance(event, Citation))
    assert found.quote == HIVES[found.start - 100 : found.end - 100]
    return found


async def test_a_list_that_is_asked_for_comes_whole_with_its_lead_in() -> None:
    events = await answer("How do I move a hive to the meadow?")
    assert text_of(events) == (
        "To move a hive to the meadow: [1]\n\n"
        "1. Close the entrance.\n"
        "2. Strap the hive:\n\n   ```sh\n   strap --twice\n   ```\n"
        "3. Drive slowly."
    )
    quote = citation_of(events).quote
    assert quote.startswith("To move a hive to the meadow:\n\n1. Close")
    assert quote.endswith("3. Drive slowly.")


async def test_a_row_names_its_columns() -> None:
    events = await answer("bees in a Dadant")
    assert text_of(events) == "- hive: Dadant; bees: 60,000 [1]"
    assert citation_of(events).quote == "| Dadant | 60,000 |"


async def test_a_question_of_the_document_leads_to_the_answer_below_it() -> None:
    events = await answer("how long does a queen live")
    assert text_of(events) == "Up to five years. [1]"
    citation = citation_of(events)
    assert citation.heading_path == ("Hives", "How long does a queen live?")
    assert citation.page == 3


async def test_what_would_be_wrong_in_part_is_left_out_where_it_does_not_fit() -> None:
    events = await answer("How do I move a hive to the meadow?", max_tokens=8)
    assert text_of(events) == ""
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert finished.reason is FinishReason.LENGTH


@pytest.mark.parametrize("has_blocks", [False, True])
async def test_brackets_of_the_document_are_no_markers(has_blocks: bool) -> None:
    text = "The pump ran for 500 hours without failure [12], [3, 4]."
    blocks = (Block(BlockKind.PARAGRAPH, 0, len(text)),) if has_blocks else ()
    events = await answer("How long did the pump run?", Passage(text, blocks=blocks))
    assert re.findall(r"\[([\d, ]+)\]", text_of(events)) == ["1"]
    assert text_of(events) == r"The pump ran for 500 hours without failure \[12\], \[3, 4\]. [1]"
    (citation,) = (event for event in events if isinstance(event, Citation))
    assert citation.quote == text


async def test_a_sentence_that_refers_back_comes_with_the_one_before_it() -> None:
    text = "Set the flag to true. That way both paths lead to the same hive."
    passage = Passage(text, blocks=(Block(BlockKind.PARAGRAPH, 0, len(text)),))
    assert text_of(await answer("both paths to the same hive", passage)) == f"{text} [1]"
