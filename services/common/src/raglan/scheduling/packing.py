"""Batch packing: texts of similar length run together, because batching costs padding."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Final

from raglan.scheduling.work import FlushReason, Item

_CHOICES: Final = 32
"""Batches are compared at so many widths above the first text and so many below it."""


def pack(
    window: Sequence[Item],
    *,
    tokens: int,
    items: int,
    overhead_tokens: float,
    padded: Callable[[int], int] = int,
) -> tuple[list[Item], int, FlushReason]:
    """A batch around the first of `window`, its padded tokens, and what ended its growth.

    Of the runs of neighbours by length that hold the first text, the one that does most for its
    cost. A batch costs its padded tokens and the fixed part; a text is worth what it would cost in
    a batch of its like: its tokens and a share of a fixed part, the smaller the more texts wait.
    So padding is worth it when little waits, and is not when the others fill batches of their own.

    Args:
        window: at least one item, most urgent first.
        tokens: padded tokens the batch may hold; the first item goes even if it is longer.
        items: how many it may hold, >= 1.
        overhead_tokens: tokens that take as long as the fixed part of a batch.
        padded: how wide a batch is whose longest item has so many tokens.
    """
    widths = [padded(item.tokens) for item in window]
    order, at = _by_width(widths)
    sizes = [widths[position] for position in order]
    worth = [0.0, *accumulate(_worth(size, len(order), tokens, items, overhead_tokens)
                              for size in sizes)]  # fmt: skip
    best, chosen = 0.0, (at, at + 1)
    for low, high in _runs(sizes, at, tokens, items):
        cost = (high - low) * sizes[high - 1] + overhead_tokens
        if (value := (worth[high] - worth[low]) / max(cost, 1e-9)) > best:
            best, chosen = value, (low, high)
    low, high = chosen
    widest, count = sizes[high - 1], high - low
    return (
        [window[i] for i in order[low:high]],
        count * widest,
        _closed(sizes, low, high, tokens, items),
    )


def _by_width(widths: Sequence[int]) -> tuple[list[int], int]:
    """Positions by width, and where the first of them now is.

    Within one width the more urgent lie nearer to the first, so that they join before others.
    """
    own = widths[0]
    below = sorted(
        (i for i, size in enumerate(widths) if size < own), key=lambda i: (widths[i], -i)
    )
    rest = sorted((i for i, size in enumerate(widths) if size >= own), key=lambda i: (widths[i], i))
    return below + rest, len(below)


def _worth(size: int, waiting: int, tokens: int, items: int, overhead_tokens: float) -> float:
    together = max(1, min(waiting, items, tokens // size))
    return size + overhead_tokens / together


def _runs(sizes: Sequence[int], at: int, tokens: int, items: int) -> Iterator[tuple[int, int]]:
    """Runs `sizes[low:high]` around `at` that keep the limits, at a bounded number of widths."""
    yield at, at + 1
    tops = [i for i in range(at, len(sizes)) if i + 1 == len(sizes) or sizes[i + 1] > sizes[i]]
    starts = [i for i in range(at, -1, -1) if i == 0 or sizes[i - 1] < sizes[i]]
    for top in _spread(tops):
        most = min(items, tokens // sizes[top])
        high = min(top + 1, at + most)
        if high <= at or sizes[high - 1] < sizes[top]:
            continue
        lowest = max(0, high - most)
        yield from ((low, high) for low in {lowest, at, *_spread(starts)} if lowest <= low <= at)


def _spread(positions: Sequence[int]) -> Sequence[int]:
    """At most `_CHOICES` of `positions`, the first and the last among them."""
    if len(positions) <= _CHOICES:
        return positions
    last = len(positions) - 1
    return [positions[i * last // (_CHOICES - 1)] for i in range(_CHOICES)]


def _closed(sizes: Sequence[int], low: int, high: int, tokens: int, items: int) -> FlushReason:
    count, widest = high - low, sizes[high - 1]
    if count == len(sizes):
        return FlushReason.IDLE
    if count >= items:
        return FlushReason.ITEM_CAP
    neighbour = widest if low > 0 else sizes[high]
    return FlushReason.TOKEN_CAP if (count + 1) * neighbour > tokens else FlushReason.PADDING
