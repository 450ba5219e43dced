"""Questions about all of the documents."""

from __future__ import annotations

import pytest
from raglan.blocks import Block, BlockKind
from raglan_generator.generation import Passage
from raglan_generator.overview import asks_for_overview, overview


@pytest.mark.parametrize(
    "question",
    [
        "What is this about?",
        "what are these documents about",
        "Summarise",
        "Please summarize the documents.",
        "Give me a short overview",
        "What does this collection contain?",
        "Worum geht es?",
    ],
)
def test_an_overview_is_asked_for(question: str) -> None:
    assert asks_for_overview(question)


@pytest.mark.parametrize(
    "question", ["What is the pump about?", "Summary of the leave policy", "What is a hive?"]
)
def test_a_question_about_something_is_none_for_an_overview(question: str) -> None:
    assert not asks_for_overview(question)


def passage(document: str, text: str, start: int = 0) -> Passage:
    heading = text.split("\n")[0]
    body = text.index("\n\n") + 2
    blocks = (
        Block(BlockKind.HEADING, 0, len(heading), level=1),
        Block(BlockKind.PARAGRAPH, body, len(text)),
    )
    return Passage(text, start, title=document.title(), blocks=blocks, document=document)


def test_an_overview_is_the_title_and_first_sentence_of_each_document() -> None:
    passages = [
        passage("bees", "# Winter\n\nBees cluster. They hum.", start=500),
        passage("bees", "# Bees\n\nThis guide is about bees. It is long."),
        passage("pumps", "# Pumps\n\nPumps move water. They break."),
    ]
    found = overview(passages, most=4)
    assert [quote.unit.text for quote in found.quotes] == [
        "- **Bees**: This guide is about bees.",
        "- **Pumps**: Pumps move water.",
    ]
    assert [quote.text for quote in found.quotes] == [
        "This guide is about bees.",
        "Pumps move water.",
    ]
    assert found.confidence > 0.5


def test_without_passages_there_is_no_overview() -> None:
    assert overview([], most=3).confidence == 0
