"""Counts of what happened in the last seconds, in as many buckets as it takes and no more."""

from __future__ import annotations

from typing import Final

BUCKETS: Final = 10


class Window:
    """One count over the last `span_s` seconds, in buckets of a tenth of it.

    The time is any clock's, in seconds; one that steps back is taken to stand still.
    """

    def __init__(self, span_s: float) -> None:
        self._width_s = span_s / BUCKETS
        # One bucket more than the span has: the newest is never full.
        self._counts = [0] * (BUCKETS + 1)
        self._newest = 0
        self._total = 0

    def add(self, now: float) -> None:
        """It happened once more."""
        self._turn(now)
        self._counts[self._newest % len(self._counts)] += 1
        self._total += 1

    def at_most(self, now: float) -> int:
        """Count the events of the last 90 to 100 % of the span; none older."""
        self._turn(now)
        return self._total - self._counts[(self._newest + 1) % len(self._counts)]

    def at_least(self, now: float) -> int:
        """Count the events of the last 100 to 110 % of the span; none younger is missing."""
        self._turn(now)
        return self._total

    def clear(self) -> None:
        """Forget all."""
        self._counts = [0] * len(self._counts)
        self._total = 0

    def _turn(self, now: float) -> None:
        newest = int(now // self._width_s)
        passed = min(newest - self._newest, len(self._counts))
        if passed <= 0:
            return
        for bucket in range(newest - passed + 1, newest + 1):
            self._total -= self._counts[bucket % len(self._counts)]
            self._counts[bucket % len(self._counts)] = 0
        self._newest = newest
