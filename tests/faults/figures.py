"""What a load has seen, in figures: outcomes, percentiles, how long until all is well again."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from faults.open_loop import Record

UNTYPED = ("untyped_500", "untyped")
SLOWDOWN = 1.5
"""p99 over the baseline's up to which all is as before."""


def read(path: Path) -> list[Record]:
    """The records so far; a line that is still being written is left out."""
    if not path.exists():
        return []
    lines = path.read_text().split("\n")[:-1]
    return [Record(**json.loads(line)) for line in lines]


def due(records: Iterable[Record], start: float, end: float = float("inf")) -> list[Record]:
    """Those that were due in [start, end)."""
    return [record for record in records if start <= record.at < end]


def unary(records: Iterable[Record]) -> list[Record]:
    """Those that are answered whole."""
    return [record for record in records if record.kind != "stream"]


def outcomes(records: Iterable[Record]) -> dict[str, int]:
    """How many ended how."""
    return dict(Counter(record.outcome for record in records))


def failed(records: Iterable[Record]) -> int:
    """How many were not answered."""
    return sum(record.outcome != "ok" for record in records)


def reasons(records: Iterable[Record]) -> str:
    """Why requests failed, the most frequent reasons first."""
    found = Counter(
        f"{r.kind} {r.outcome} {r.code} {r.message}".strip() for r in records if r.outcome != "ok"
    )
    return "; ".join(f"{count} x {reason}" for reason, count in found.most_common(4))


def share(records: Sequence[Record], true: Callable[[Record], bool]) -> float:
    """Of `records`, the share for which `true`; 0 of none."""
    return sum(map(true, records)) / len(records) if records else 0.0


def quantile(values: Iterable[float], q: float) -> float:
    """The smallest value that a share `q` does not exceed; NaN of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else float("nan")


def p99_s(records: Iterable[Record]) -> float:
    """Of those that were answered, in seconds."""
    return quantile((record.took_s for record in records if record.outcome == "ok"), 0.99)


def slowdown(records: Sequence[Record], baseline: Sequence[Record]) -> float:
    """p99 over the baseline's p99: of searches or of answers, whichever grew more.

    Apart, because a search is far quicker than an answer and would hide behind it.
    """
    grown = []
    for kinds in (("search",), ("query", "stream")):
        now, before = ([r for r in each if r.kind in kinds] for each in (records, baseline))
        if now and before:
            grown.append(p99_s(now) / p99_s(before))
    return max(grown, default=float("nan"))


def recovered_s(
    records: Sequence[Record],
    repaired: float,
    baseline: Sequence[Record],
    *,
    window_s: float,
    slowdown_limit: float = SLOWDOWN,
) -> float:
    """Seconds from the repair until `window_s` begin in which all is as before; infinite if never.

    As before: nothing fails, nothing is degraded, and p99 is at most `slowdown_limit` times higher.
    """
    for start, now in _windows(records, repaired, window_s):
        well = now and not failed(now) and not any(record.degraded for record in now)
        if well and (slowdown_limit == math.inf or slowdown(now, baseline) <= slowdown_limit):
            return start - repaired
    return float("inf")


def best_window(
    records: Sequence[Record], repaired: float, baseline: Sequence[Record], *, window_s: float
) -> str:
    """The window after the repair that came nearest to the baseline, in words."""
    found = [
        (slowdown(now, baseline), failed(now), sum(bool(record.degraded) for record in now))
        for _, now in _windows(records, repaired, window_s)
    ]
    if not found:
        return "no window"
    slower, failures, degraded = min(found, key=lambda each: (each[1] + each[2], each[0]))
    return f"best {window_s:g} s: {slower:.2f}x, {failures} failed, {degraded} degraded"


def _windows(
    records: Sequence[Record], begin: float, window_s: float
) -> Iterator[tuple[float, list[Record]]]:
    """(start, the records due in it), a quarter of a second apart."""
    end = max((record.at for record in records), default=begin)
    later = due(records, begin)
    start = begin
    while start + window_s <= end:
        yield start, due(later, start, start + window_s)
        start += 0.25


def last_harm_s(records: Sequence[Record], begun: float, limit_s: float) -> float:
    """Seconds from `begun` until the last request that failed or took longer than `limit_s`."""
    harmed = [r.at - begun for r in due(records, begun) if r.outcome != "ok" or r.took_s > limit_s]
    return max(harmed, default=0.0)
