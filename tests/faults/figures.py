"""What a load has seen, in figures: outcomes, percentiles, how long until all is well again."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from faults.open_loop import Record

ANSWERED = ("ok",)
UNTYPED = ("untyped_500", "untyped")
FAILED = ("refused", "error", "untyped_500", "untyped", "broken", "reset", "late")


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
    records: Sequence[Record], repaired: float, baseline: Sequence[Record], *, window_s: float
) -> float:
    """Seconds from the repair until `window_s` begin in which all is as before; infinite if never.

    As before: nothing fails, nothing is degraded, and p99 is at most 1.5 times the baseline's.
    """
    end = max((record.at for record in records), default=repaired)
    start = repaired
    while start + window_s <= end:
        now = due(records, start, start + window_s)
        well = now and not failed(now) and not any(record.degraded for record in now)
        if well and slowdown(now, baseline) <= 1.5:
            return start - repaired
        start += 0.25
    return float("inf")


def last_harm_s(records: Sequence[Record], begun: float, limit_s: float) -> float:
    """Seconds from `begun` until the last request that failed or took longer than `limit_s`."""
    harmed = [r.at - begun for r in due(records, begun) if r.outcome != "ok" or r.took_s > limit_s]
    return max(harmed, default=0.0)
