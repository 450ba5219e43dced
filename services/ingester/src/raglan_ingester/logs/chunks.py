"""Chunks of whole log entries, with what their entries can be filtered by."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from statistics import median
from typing import Any, Final

from drain3.drain import LogCluster

from raglan_ingester.logs.entries import SEVERITY, Entry, Log
from raglan_ingester.logs.templates import TemplateMiner

Load = Callable[[int, int], float]
"""Share of a chunk that text[start:end] takes; 1 is a full one."""
_LEAST_GAP_S: Final = 30.0
_GAPS: Final = 20
"""A pause this many times as long as the usual one ends a chunk."""
_HALF: Final = 0.5
_MOST_TEMPLATES: Final = 8
_SERIOUS: Final = SEVERITY.index("error")


def group(log: Log, load: Load) -> Iterator[tuple[Sequence[Entry], dict[str, Any]]]:
    """Group neighbouring entries into chunks; an entry is never cut.

    A chunk ends where it is full, where the log pauses, between errors and what is none, and, from
    half of a chunk on, where the template changes.

    Returns:
        For each chunk its entries and its metadata.
    """
    miner = TemplateMiner()
    clusters = [miner.add(entry.message) for entry in log.entries]
    pause = _pause(log.entries)
    begun = 0
    for at in range(1, len(log.entries) + 1):
        if at < len(log.entries) and not _ends(log.entries, clusters, begun, at, pause, load):
            continue
        yield log.entries[begun:at], _metadata(log, begun, at, clusters[begun:at])
        begun = at


def _ends(
    entries: Sequence[Entry],
    clusters: Sequence[LogCluster],
    begun: int,
    at: int,
    pause: float,
    load: Load,
) -> bool:
    """Return whether the chunk that begins with entry `begun` ends before entry `at`."""
    before, entry = entries[at - 1], entries[at]
    if _is_serious(before) != _is_serious(entry) or load(entries[begun].start, entry.end) > 1:
        return True
    if before.time and entry.time and (entry.time - before.time).total_seconds() > pause:
        return True
    is_other = clusters[at] is not clusters[at - 1]
    return is_other and load(entries[begun].start, before.end) >= _HALF


def _is_serious(entry: Entry) -> bool:
    return SEVERITY.index(entry.level) >= _SERIOUS


def _pause(entries: Sequence[Entry]) -> float:
    times = [entry.time for entry in entries if entry.time is not None]
    gaps = [(b - a).total_seconds() for a, b in itertools.pairwise(times)]
    usual = median(gaps) if gaps else 0.0
    return max(_LEAST_GAP_S, _GAPS * usual)


def _metadata(log: Log, begun: int, end: int, clusters: Sequence[LogCluster]) -> dict[str, Any]:
    entries = log.entries[begun:end]
    times = [entry.time for entry in entries if entry.time is not None]
    levels = sorted({entry.level for entry in entries} - {""}, key=SEVERITY.index)
    templates = list(dict.fromkeys(cluster.get_template() for cluster in clusters))
    found: dict[str, Any] = {
        "format": log.format,
        "entries": len(entries),
        "templates": templates[:_MOST_TEMPLATES],
    }
    if levels:
        found |= {"level": levels[-1], "levels": levels}
    if times:
        found |= {"from": _text(min(times)), "to": _text(max(times))}
    return {"log": found}


def _text(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
