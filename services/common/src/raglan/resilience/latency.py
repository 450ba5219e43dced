"""Recent latencies: exact quantiles at the cost of a lookup, and a decaying mean."""

from __future__ import annotations

import math
import time
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable
from typing import Final

_SILENCE: Final = 3.0


class LatencyWindow:
    """The last `size` latencies that are not older than `max_age_s`. `clock` is monotonic."""

    def __init__(
        self,
        size: int = 512,
        max_age_s: float = 60.0,
        min_samples: int = 20,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._size = size
        self._max_age_s = max_age_s
        self._min_samples = min_samples
        self._clock = clock
        self._arrived: deque[tuple[float, float]] = deque()
        # Kept in order by insertion: with a few hundred entries that is one small memmove, while
        # sorting anew after every call would cost thirty times as much.
        self._sorted: list[float] = []

    def __len__(self) -> int:
        return len(self._sorted)

    def add(self, seconds: float) -> None:
        """One more call took `seconds`."""
        now = self._clock()
        if len(self._arrived) >= self._size:
            self._forget()
        self._arrived.append((now, seconds))
        insort(self._sorted, seconds)
        self._expire(now)

    def quantile(self, q: float) -> float | None:
        """The latency, in seconds, that a share `q` of the calls did not pass (nearest rank).

        None while there are fewer than `min_samples`.
        """
        self._expire(self._clock())
        count = len(self._sorted)
        if count < self._min_samples or not count:
            return None
        return self._sorted[max(0, math.ceil(q * count) - 1)]

    def _expire(self, now: float) -> None:
        while self._arrived and now - self._arrived[0][0] > self._max_age_s:
            self._forget()

    def _forget(self) -> None:
        _, seconds = self._arrived.popleft()
        del self._sorted[bisect_left(self._sorted, seconds)]


class DecayingMean:
    """Mean latency with weights that decay with the age of a call.

    Weights by time and not by number, as Finagle's `PeakEwma` has them, but without its peak: one
    stumble of a replica is no reason to send all of its traffic to others. A call stands for the
    time since the one before it, or for its own, whichever is longer: several slow ones at a time
    are as many witnesses. In silence the mean fades to nothing, so that who was slow is tried
    again. `clock` is monotonic.
    """

    __slots__ = ("_at", "_clock", "_fades_s", "_mean_s")

    def __init__(
        self, fades_s: float = 10.0, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`fades_s` is the time in which a weight falls to 1/e; in silence it takes three times."""
        self._fades_s = fades_s
        self._clock = clock
        self._mean_s = 0.0
        self._at = clock()

    def add(self, seconds: float) -> None:
        """A call took `seconds`."""
        now = self._clock()
        stands_for_s = max(now - self._at, seconds)
        kept = math.exp(-stands_for_s / self._fades_s) if self._mean_s else 0.0
        self._mean_s = kept * self._mean_s + (1 - kept) * seconds
        self._at = now

    def value_s(self) -> float:
        """The mean in seconds, faded by the silence since the last call; 0 before the first."""
        silence_s = self._clock() - self._at
        return self._mean_s * math.exp(-silence_s / (_SILENCE * self._fades_s))
