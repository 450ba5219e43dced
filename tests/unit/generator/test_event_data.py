"""Server-sent events, cut anywhere, give the same data."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from raglan.errors import Unavailable
from raglan_generator.engines.event_data import MAX_EVENT_BYTES, EventData

STREAM = (
    ": a comment\n\nevent: x\nid: 7\ndata: one\n\n"
    "data:  two\ndata\ndata:three 😀\n\n\n\ndata:\n\ndata: cut"
)
DATA = ["one", " two\n\nthree 😀", ""]


@given(
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    cuts=st.lists(st.integers(0, 120), max_size=30),
)
def test_however_lines_end_and_wherever_they_are_cut(end: str, cuts: list[int]) -> None:
    whole = STREAM.replace("\n", end).encode()
    places = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    events = EventData()
    found = [
        data
        for begin, stop in itertools.pairwise(places)
        for data in events.feed(whole[begin:stop])
    ]
    assert found == DATA


@pytest.mark.parametrize("piece", [b"x" * 65_536, b"data: " + b"x" * 65_536 + b"\n"])
def test_an_event_without_an_end_is_given_up(piece: bytes) -> None:
    events = EventData()
    with pytest.raises(Unavailable, match="larger than"):
        for _ in range(2 * MAX_EVENT_BYTES // len(piece)):
            events.feed(piece)
