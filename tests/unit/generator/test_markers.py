"""The marker parser: what it finds does not depend on how the stream was cut."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from raglan_generator.markers import Marker, MarkerParser

TEXT = st.text(alphabet=st.sampled_from("a .[]12,;\n"), max_size=60)


def parsed(pieces: Iterable[str]) -> list[str | Marker]:
    parser, found = MarkerParser(), list[str | Marker]()
    for piece in pieces:
        found += parser.feed(piece)
    found.append(parser.flush())
    joined: list[str | Marker] = []
    for item in found:
        if isinstance(item, str) and joined and isinstance(joined[-1], str):
            joined[-1] += item
        elif item:
            joined.append(item)
    return joined


@given(TEXT, st.lists(st.integers(1, 5), max_size=60))
def test_every_cut_of_a_stream_gives_the_same_pieces(text: str, sizes: list[int]) -> None:
    pieces, at = [], 0
    for size in sizes:
        pieces.append(text[at : at + size])
        at += size
    pieces.append(text[at:])
    assert parsed(pieces) == parsed([text])


@given(TEXT)
def test_little_is_held_back(text: str) -> None:
    parser = MarkerParser()
    for character in text:
        parser.feed(character)
    assert len(parser.flush()) <= 58


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("Blue [1].", ["Blue", Marker((1,), " "), "."]),
        ("Blue.[1][12]", ["Blue.", Marker((1,)), Marker((12,))]),
        ("Blue [1, 2; 3]", ["Blue", Marker((1, 2, 3), " ")]),
        ("a[i] and [x]", ["a[i] and [x]"]),
        ("[12345]", ["[12345]"]),
        ("open [1", ["open [1"]),
    ],
)
def test_markers_are_told_from_other_brackets(text: str, pieces: list[str | Marker]) -> None:
    assert parsed([text]) == pieces
