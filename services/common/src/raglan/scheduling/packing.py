"""Which texts run together: those of like length, because padding is what batching costs."""

from __future__ import annotations

from collections.abc import Sequence

from raglan.scheduling.work import Closed, Item


def width(tokens: int, step: int) -> int:
    """`tokens` rounded up to a multiple of `step`."""
    return -(-tokens // step) * step


def pack(
    window: Sequence[Item], *, tokens: int, items: int, spare_tokens: float, step: int
) -> tuple[list[Item], int, Closed]:
    """A batch around the first of `window`, its padded tokens, and what ended its growth.

    The window is sorted by length; from its first item the batch grows to whichever neighbour adds
    less padding, so the most urgent text always goes and goes with its like. Texts of one width
    join in the window's order.

    Args:
        window: at least one item, most urgent first.
        tokens: padded tokens the batch may hold; the first item goes even if it is longer.
        items: how many it may hold, >= 1.
        spare_tokens: padding one more text may bring; with more, a batch of its own is cheaper.
    """
    widths = [width(item.tokens, step) for item in window]
    order = sorted(range(len(window)), key=widths.__getitem__)
    low = high = order.index(0)
    widest, count = widths[0], 1
    while True:
        grown = []
        if low > 0:
            grown.append((widest - widths[order[low - 1]], widest, low - 1, high))
        if high + 1 < len(order):
            wider = widths[order[high + 1]]
            grown.append((count * (wider - widest), wider, low, high + 1))
        fitting = [each for each in grown if (count + 1) * each[1] <= tokens]
        if not grown:
            closed = Closed.IDLE
        elif count >= items:
            closed = Closed.ITEM_CAP
        elif not fitting:
            closed = Closed.TOKEN_CAP
        elif min(fitting)[0] > spare_tokens:
            closed = Closed.PADDING
        else:
            # Upwards on a tie: among texts of one width the more urgent lie before.
            _, widest, low, high = min(fitting, key=lambda each: (each[0], each[2] < low))
            count += 1
            continue
        return [window[at] for at in order[low : high + 1]], count * widest, closed
