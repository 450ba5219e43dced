"""The rule by which work leaves the queue, driven without clock, thread or loop."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from raglan.encoders.queue import BatchLimits, Lane, Lanes, Part, split

LIMITS = BatchLimits(tokens=512, items=8)
lengths = st.lists(st.integers(1, 700), min_size=1, max_size=80)


def part(owner: object, sizes: list[int], *, expires_at: float = 100.0) -> Part[int]:
    return Part(owner, expires_at, items=sizes, positions=range(len(sizes)), lengths=sizes)


@given(lengths)
def test_a_split_holds_every_item_once(sizes: list[int]) -> None:
    batches = split(sizes, LIMITS)
    assert sorted(position for batch in batches for position in batch) == list(range(len(sizes)))


@given(lengths)
def test_a_batch_keeps_its_limits_unless_it_is_one_long_item(sizes: list[int]) -> None:
    for batch in split(sizes, LIMITS):
        padded = len(batch) * max(sizes[position] for position in batch)
        assert len(batch) == 1 or (padded <= LIMITS.tokens and len(batch) <= LIMITS.items)


@given(lengths)
def test_a_split_is_sorted_by_length(sizes: list[int]) -> None:
    order = [sizes[position] for batch in split(sizes, LIMITS) for position in batch]
    assert all(longer >= shorter for longer, shorter in pairwise(order))


works = st.lists(
    st.tuples(
        st.sampled_from(Lane),
        st.lists(st.integers(1, 300), min_size=1, max_size=4),
        st.floats(0, 20),
    ),
    max_size=30,
)


@given(works, st.floats(0, 20))
def test_everything_that_waits_leaves_once_in_time_or_as_late(
    work: list[tuple[Lane, list[int], float]], now: float
) -> None:
    lanes: Lanes[int] = Lanes(LIMITS)
    parts = [(lane, part(object(), sizes, expires_at=at)) for lane, sizes, at in work]
    for lane, each in parts:
        lanes.add([each], lane)
    ran: list[Part[int]] = []
    dropped: list[Part[int]] = []
    while True:
        batch, late = lanes.take(now)
        if not batch and not late:
            break
        ran += batch
        dropped += late
    assert len(lanes) == 0
    assert {id(each) for each in ran} == {id(p) for _, p in parts if p.expires_at > now}
    assert {id(each) for each in dropped} == {id(p) for _, p in parts if p.expires_at <= now}
    assert len(ran) + len(dropped) == len(parts)


@given(works)
def test_no_bulk_leaves_while_a_query_waits(
    work: list[tuple[Lane, list[int], float]],
) -> None:
    lanes: Lanes[int] = Lanes(LIMITS)
    lane_of: dict[int, Lane] = {}
    keep = []
    for lane, sizes, _ in work:
        each = part(object(), sizes)
        keep.append(each)
        lane_of[id(each)] = lane
        lanes.add([each], lane)
    left = [lane_of[id(each)] for batch in iter(lambda: lanes.take(0.0)[0], []) for each in batch]
    assert left == sorted(left)
    assert len(left) == len(keep)


@given(works)
def test_parts_that_run_together_keep_the_limits(
    work: list[tuple[Lane, list[int], float]],
) -> None:
    lanes: Lanes[int] = Lanes(LIMITS)
    for lane, sizes, _ in work:
        lanes.add([part(object(), sizes)], lane)
    for batch in iter(lambda: lanes.take(0.0)[0], []):
        count = sum(len(each.items) for each in batch)
        padded = count * max(each.longest for each in batch)
        assert len(batch) == 1 or (padded <= LIMITS.tokens and count <= LIMITS.items)


def test_short_queries_leave_together() -> None:
    lanes: Lanes[int] = Lanes(LIMITS)
    for size in (12, 14, 16):
        lanes.add([part(object(), [size])], Lane.INTERACTIVE)
    assert [each.items for each in lanes.take(0.0)[0]] == [[12], [14], [16]]


def test_a_short_text_does_not_ride_with_one_that_would_mostly_pad_it() -> None:
    lanes: Lanes[int] = Lanes(LIMITS)
    lanes.add([part(object(), [10])], Lane.INTERACTIVE)
    lanes.add([part(object(), [200])], Lane.INTERACTIVE)
    assert [each.items for each in lanes.take(0.0)[0]] == [[10]]


def test_what_is_discarded_never_leaves() -> None:
    lanes: Lanes[int] = Lanes(LIMITS)
    gone, stays = object(), object()
    lanes.add([part(gone, [5]), part(gone, [300])], Lane.BULK)
    lanes.add([part(stays, [7])], Lane.BULK)
    lanes.discard(gone)
    assert [each.owner for each in lanes.take(0.0)[0]] == [stays]
    assert lanes.take(0.0) == ([], [])
