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
DATA = ["one", " two\n\nthree 😀"]


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


def test_a_byte_order_mark_is_no_part_of_the_first_event() -> None:
    events = EventData()
    assert [each for byte in b"\xef\xbb\xbfdata: x\n\n" for each in events.feed(bytes([byte]))] == [
        "x"
    ]


@pytest.mark.parametrize(
    ("stream", "data"),
    [
        ('event: error\ndata: {"message": "no"}\n\n', '{"error": {"message": "no"}}'),
        ('event: error\ndata: {"error": 1}\n\n', '{"error": 1}'),
        ('error: {"code": 500}\n\n', '{"error": {"code": 500}}'),
        ("event: error\ndata: out of memory\n\n", '{"error": "out of memory"}'),
    ],
)
def test_an_event_of_that_name_is_an_error(stream: str, data: str) -> None:
    assert EventData().feed(stream.encode()) == [data]


def test_a_last_event_needs_no_blank_line_but_has_to_be_whole() -> None:
    whole, cut = EventData(), EventData()
    assert whole.feed(b'data: {"a": 1}') == cut.feed(b'data: {"a":') == []
    assert (whole.end(), cut.end()) == (['{"a": 1}'], [])


@pytest.mark.parametrize("piece", [b"x" * 65_536, b"data: " + b"x" * 65_536 + b"\n"])
def test_an_event_without_an_end_is_given_up(piece: bytes) -> None:
    events = EventData()
    with pytest.raises(Unavailable, match="larger than"):
        for _ in range(2 * MAX_EVENT_BYTES // len(piece)):
            events.feed(piece)
