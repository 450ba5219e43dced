"""Sentences: offsets exact, lengths bounded, boundaries where a reader sees them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from raglan_generator.sentences import MAX_CHARS, Span, first_words, split

TEXT = st.text(alphabet=st.sampled_from("ab Z.!?。？！।\n\t\x00😀é'\"()[]1,3\u0301"), max_size=900)  # noqa: RUF001


def texts(text: str) -> list[str]:
    return [text[start:end] for start, end in split(text)]


def words(text: str) -> str:
    return "".join(character for character in text if character.isalnum())


@given(TEXT | st.text(max_size=300))
def test_sentences_are_ordered_trimmed_and_bounded(text: str) -> None:
    previous = 0
    for start, end in split(text):
        assert previous <= start < end <= len(text)
        assert text[start:end] == text[start:end].strip()
        assert end - start <= MAX_CHARS
        previous = end


@given(TEXT)
def test_no_letter_or_digit_lies_between_sentences(text: str) -> None:
    assert words("".join(texts(text))) == words(text)


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Dr. Smith paid $3.50. He left.", ["Dr. Smith paid $3.50.", "He left."]),
        ("See Fig. 3 of the U.S. Army. Yes!", ["See Fig. 3 of the U.S. Army.", "Yes!"]),
        ("第一句。第二句！好吗？", ["第一句。", "第二句！", "好吗？"]),  # noqa: RUF001
        ("यह एक वाक्य है। दूसरा वाक्य।", ["यह एक वाक्य है।", "दूसरा वाक्य।"]),
        ("The cat sat\non the mat. It left.", ["The cat sat\non the mat.", "It left."]),
        ("# Cats\nThe cat sat\n\nIt left.", ["# Cats", "The cat sat", "It left."]),
        ("| a | b |\n|---|---|\n| 1 | 2 |\nDone.", ["| a | b |", "| 1 | 2 |", "Done."]),
        ("Two:\n- a cat\n  on a mat\n- a dog", ["Two:", "- a cat\n  on a mat", "- a dog"]),
    ],
)
def test_boundaries_are_those_of_the_language(text: str, sentences: list[str]) -> None:
    assert texts(text) == sentences


def test_a_table_is_cut_at_white_space() -> None:
    text = "value | " * 200
    pieces = texts(text)
    assert len(pieces) > 3
    assert all(set(piece.split()) <= {"value", "|"} for piece in pieces)


def test_text_without_white_space_is_cut_anyway() -> None:
    assert [len(piece) for piece in texts("x" * 900)] == [400, 400, 100]


def test_a_huge_text_is_split_like_its_parts() -> None:
    line = "The cat sat on the mat. It left.\n"
    assert texts(line * 4_000) == ["The cat sat on the mat.", "It left."] * 4_000


def test_the_first_words_end_at_a_word() -> None:
    text = "  one two  three"
    assert first_words(text, Span(2, 16), 2) == Span(2, 9)
    assert first_words(text, Span(2, 16), 3) == Span(2, 16)
    assert first_words(text, Span(2, 16), 0) is None
