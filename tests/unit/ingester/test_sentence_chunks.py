"""Chunks of whole sentences."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from raglan.chunking_strategy import ChunkingStrategy
from raglan_ingester.chunking import Chunk, Sizes, chunk
from raglan_ingester.parsers.text import read_text

SENTENCE = "The {} release is signed off by its manager."


def cut(text: str, max_chars: int) -> list[Chunk]:
    return chunk(read_text(text), Sizes(max_chars), strategy=ChunkingStrategy.SENTENCES)


def test_a_chunk_fills_up_across_paragraphs() -> None:
    text = "\n\n".join(f"{SENTENCE.format(n)} {SENTENCE.format(n)}" for n in range(4))
    pieces = [text[each.start : each.end] for each in cut(text, 150)]
    assert [piece.count("release") for piece in pieces] == [3, 3, 2]
    assert all(piece.endswith("manager.") for piece in pieces)


def test_a_section_keeps_its_own_chunks() -> None:
    text = "First\n=====\n\nOne sentence.\n\nSecond\n======\n\nAnother sentence.\n"
    assert [each.heading_path for each in cut(text, 500)] == [("First",), ("Second",)]


@given(st.lists(st.integers(0, 99), min_size=1, max_size=40), st.integers(60, 400))
def test_every_sentence_is_whole_in_one_chunk(numbers: list[int], max_chars: int) -> None:
    text = " ".join(SENTENCE.format(number) for number in numbers)
    pieces = [text[each.start : each.end] for each in cut(text, max_chars)]
    assert all(len(piece) <= max_chars for piece in pieces)
    assert " ".join(pieces) == text
    assert all(piece.endswith("manager.") for piece in pieces)
