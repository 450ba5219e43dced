"""The part of a document that a language model is shown for one of its chunks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from raglan_ingester.contexts import around


@given(st.text(min_size=1, max_size=400), st.integers(0, 399), st.integers(1, 60), st.data())
def test_what_is_shown_of_a_document_is_bounded_and_holds_the_passage(
    text: str, start: int, length: int, data: st.DataObject
) -> None:
    start = min(start, len(text) - 1)
    end = min(len(text), start + length)
    limit = data.draw(st.integers(2 * (end - start), 800))
    shown = around(text, start, end, limit)
    assert text[start:end] in shown
    assert len(shown) <= limit + len("\n[...]\n")
    assert shown.startswith(text[: limit // 2])


def test_the_gap_is_shown() -> None:
    assert around("abcdefghij" * 3, 22, 24, 8) == "abcd\n[...]\nbcde"
