"""Small chunks of larger sections."""

from __future__ import annotations

from itertools import groupby

from hypothesis import given
from hypothesis import strategies as st
from raglan.chunking_strategy import ChunkingStrategy
from raglan_ingester.chunking import Chunk, Sizes, chunk
from raglan_ingester.indexing import _sections
from raglan_ingester.parsers.text import read_text
from raglan_ingester.parsing import CutChunk

SENTENCE = "The {} release is signed off by its manager, who also tells the team."


def cut(text: str, max_chars: int) -> list[Chunk]:
    return chunk(read_text(text), Sizes(max_chars), strategy=ChunkingStrategy.PARENT)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=30), st.integers(400, 2_000))
def test_sections_follow_each_other_and_have_the_size_that_was_asked_for(
    paragraphs: list[int], max_chars: int
) -> None:
    text = "\n\n".join(" ".join([SENTENCE.format(n)] * n) for n in paragraphs)
    pieces = cut(text, max_chars)
    numbers = [each.section for each in pieces]
    assert numbers == sorted(numbers)
    assert all(each.end - each.start <= max_chars // 4 for each in pieces)
    for _, some in groupby(pieces, key=lambda each: each.section):
        children = list(some)
        assert children[-1].end - children[0].start <= max_chars
    assert sum(len(text[each.start : each.end].split()) for each in pieces) == len(text.split())


def test_a_section_of_the_top_level_is_never_mixed_with_another() -> None:
    text = "First\n=====\n\nOne sentence.\n\nSecond\n======\n\nAnother sentence.\n"
    assert [each.section for each in cut(text, 2_000)] == [0, 1]


def test_other_strategies_have_no_sections() -> None:
    pieces = chunk(read_text(SENTENCE), Sizes(400))
    assert [each.section for each in pieces] == [None]


def test_each_chunk_knows_the_first_and_the_last_of_its_section() -> None:
    numbers = [0, 0, 1, 2, 2, 2]
    chunks = [CutChunk(at, at + 1, section=number) for at, number in enumerate(numbers)]
    assert _sections(chunks) == {0: (0, 1), 1: (2, 2), 2: (3, 5)}
