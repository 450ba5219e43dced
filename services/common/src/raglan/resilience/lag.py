"""A concurrency limit that follows the lag of the event loop.

For the admission of a process rather than for the service behind it. A service that has become slow
makes calls take longer and leaves the loop on time, so more may be in flight; a process that
has more to do than it can is late, however fast its services are. Multiplicative both ways, because
a change shows in the next sample: what suits a slow service is found within a second or two.
"""

from __future__ import annotations

from typing import Final

HIGH_S: Final = 0.005
"""A call needs some ten turns of the loop: at this lag they cost it 50 ms."""

_WEIGHT: Final = 0.3
"""Of the newest sample of the lag."""

_GROW: Final = 1.04
_CUT: Final = 0.85
_HELD_WEIGHT: Final = 0.05


class LagLimit:
    """A `Limit` that follows `lagged`. Pure arithmetic."""

    def __init__(self, *, initial: int = 32, smallest: int = 4, largest: int = 512) -> None:
        self.latency_s: float | None = None
        """Recent mean latency of a call in seconds; None before the first."""
        self._smallest = smallest
        self._largest = largest
        self._limit = float(initial)
        self._lag_s = 0.0
        self._peak = 0
        self._was_queued = False

    @property
    def limit(self) -> int:
        """Calls that may run at a time now."""
        return int(self._limit)

    def lagged(self, seconds: float) -> None:
        """One sample: the loop was so late. Some fifty of them a second."""
        self._lag_s += _WEIGHT * (seconds - self._lag_s)
        if self._lag_s > HIGH_S:
            # From what is in use: a limit far above it would take long to matter.
            used = min(self._limit, float(self._peak or self._limit))
            excess = min(1.0, self._lag_s / HIGH_S - 1)
            self._limit = max(self._smallest, used * (1 - (1 - _CUT) * excess))
        elif self._was_queued:
            self._limit = min(self._largest, self._limit * _GROW + 0.1)
        self._was_queued = False
        self._peak = 0

    def started(self, running: int, now: float) -> None:
        """A call started; `running` with it."""
        self._peak = max(self._peak, running)

    def queued(self) -> None:
        """A call had to queue."""
        self._was_queued = True

    def observe(self, seconds: float, now: float) -> None:
        """A call took `seconds`."""
        if self.latency_s is None:
            self.latency_s = seconds
        self.latency_s += _HELD_WEIGHT * (seconds - self.latency_s)

    def refused(self, now: float) -> None:
        """Ignore a rejection by the service behind: it does not concern this limit."""

    def timed_out(self, seconds: float, now: float) -> None:
        """A call ran out of time: it takes at least so long."""
        self.observe(seconds, now)
