"""Which texts run together."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st
from raglan.scheduling import FlushReason, Item, Lane
from raglan.scheduling.packing import pack

windows = st.lists(st.integers(1, 700), min_size=1, max_size=64)


def by(step: int) -> Callable[[int], int]:
    return lambda tokens: -(-tokens // step) * step


def window(lengths: list[int]) -> list[Item]:
    return [Item(length, Lane.INTERACTIVE, 100.0) for length in lengths]


@given(windows, st.integers(1, 2000), st.integers(1, 12), st.floats(0, 300), st.integers(1, 16))
def test_the_first_goes_and_the_limits_hold(
    lengths: list[int], tokens: int, items: int, spare: float, step: int
) -> None:
    waiting = window(lengths)
    picked, total, _ = pack(
        waiting, tokens=tokens, items=items, overhead_tokens=spare, padded=by(step)
    )
    assert waiting[0] in picked
    assert len(set(map(id, picked))) == len(picked) <= items
    assert total == len(picked) * max(by(step)(item.tokens) for item in picked)
    assert len(picked) == 1 or total <= tokens


@given(windows, st.integers(1, 2000), st.integers(1, 12), st.floats(0, 300))
def test_the_batch_does_at_least_as_much_for_its_cost_as_the_first_alone(
    lengths: list[int], tokens: int, items: int, overhead: float
) -> None:
    picked, padded, _ = pack(window(lengths), tokens=tokens, items=items, overhead_tokens=overhead)
    useful = sum(item.tokens for item in picked)
    # A text is worth at most its tokens and a whole overhead.
    assert (useful + overhead * len(picked)) * (lengths[0] + overhead) >= (
        lengths[0] * (padded + overhead)
    ) * (1 - 1e-9)


@given(windows, st.integers(1, 2000), st.integers(1, 12), st.floats(0, 300))
def test_a_batch_stops_growing_only_for_the_reason_it_names(
    lengths: list[int], tokens: int, items: int, spare: float
) -> None:
    waiting = window(lengths)
    picked, _, closed = pack(waiting, tokens=tokens, items=items, overhead_tokens=spare)
    if closed is FlushReason.IDLE:
        assert len(picked) == len(waiting)
    elif closed is FlushReason.ITEM_CAP:
        assert len(picked) == items
    elif closed is FlushReason.TOKEN_CAP:
        widest = max(item.tokens for item in picked)
        others = [item.tokens for item in waiting if item not in picked]
        assert all(max(widest, other) * (len(picked) + 1) > tokens for other in others)


def test_of_texts_of_one_width_the_more_urgent_go_first() -> None:
    waiting = window([16, 200, 14, 15, 16, 13])
    picked, _, _ = pack(waiting, tokens=64, items=8, overhead_tokens=8, padded=by(8))
    assert picked == [waiting[0], waiting[2], waiting[3], waiting[4]]


def test_a_short_text_does_not_ride_with_one_that_would_mostly_pad_it() -> None:
    waiting = window([10, 200])
    picked, padded, closed = pack(waiting, tokens=512, items=8, overhead_tokens=20)
    assert (picked, padded, closed) == ([waiting[0]], 10, FlushReason.PADDING)


def test_padding_is_worth_it_where_a_batch_costs_as_much_as_many_tokens() -> None:
    waiting = window([10, 200])
    picked, padded, _ = pack(waiting, tokens=512, items=8, overhead_tokens=1_000)
    assert (len(picked), padded) == (2, 400)


def test_an_item_longer_than_the_limit_runs_alone() -> None:
    waiting = window([700, 700])
    picked, padded, closed = pack(waiting, tokens=512, items=8, overhead_tokens=0)
    assert (picked, padded, closed) == ([waiting[0]], 700, FlushReason.TOKEN_CAP)


def test_short_texts_that_fill_batches_leave_a_long_one_alone() -> None:
    """A long text is not filled up with short ones that fill batches of their own."""
    waiting = window([250, *[20] * 500, *[245] * 40])
    picked, _, _ = pack(waiting, tokens=16_384, items=256, overhead_tokens=1_333)
    assert sorted(item.tokens for item in picked) == [245] * 40 + [250]
