"""A concurrency limit that follows the gradient of latency.

The step is that of Netflix's concurrency-limits (`GradientLimit`) and Envoy's adaptive concurrency
filter: after each window of calls

    limit <- (1 - s) * limit + s * (limit * min(1, tolerance * unloaded / measured) + sqrt(limit))

so that it grows by the square root while latency is what it is without load, and shrinks with the
ratio once calls queue behind each other. It grows only when somebody
had to wait for it, and a window in which the service refused a call costs it a tenth.

What differs is how the unloaded latency is known. An average over everything (`Gradient2Limit`)
drifts: under lasting overload it takes the queue for normal, and the limit grows without end. A
minimum ever seen never lets go. So it is measured: while less than half of the limit is in use, any
window tells it. Otherwise the limit is halved for one window, and halved again while that makes
calls much faster, because then they had been queueing. This look is taken

- before the first step, so that a start under overload does not take the queue for normal,
- every hundred windows in full use,
- when the limit has come down by half: that was a queue, or the work became slower, and only a look
  can tell one from the other,
- when calls take far less than they should without load.
"""

from __future__ import annotations

import math
from typing import Final

TOLERANCE: Final = 1.25
"""Latency that counts as unloaded: a service of c workers then has c/4 calls waiting for them."""

SMOOTHING: Final = 0.2
"""Share of the new limit in each step, as with Netflix."""

HELPED: Final = 0.75
"""Half the calls at a time and less than this of the latency: they were queueing. With nothing but
queue it falls to a half, without any it stays as it is."""

FAR: Final = 0.6
"""Latencies that differ more than by this factor do not differ by chance."""

WINDOW_CALLS: Final = 25
"""Calls a window has at least, and at least as many as ran at a time."""

PROBE_WINDOWS: Final = 100
"""Windows in full use between two looks at the unloaded latency. One look costs about a fifth of
what the service does in five windows, so some 1 %."""

SETTLE: Final = 2.0
"""Mean latencies that pass between a halving and the window that counts: the calls that end first
after any change are the short ones."""

LEARNING: Final = 0.25
"""Weight of a window in the unloaded latency: windows differ by chance."""

REFUSED: Final = 0.9
"""Factor on the limit after a window in which the service rejected a call."""

_SHORTEST_S: Final = 1e-6


class GradientLimit:
    """The limit of one service. Pure arithmetic: no clock; times are any monotonic seconds."""

    def __init__(self, *, initial: int = 20, smallest: int = 2, largest: int = 1000) -> None:
        if not 1 <= smallest <= initial <= largest:
            raise ValueError(
                f"A limit of {initial} calls must lie between smallest ({smallest}, at least 1) "
                f"and largest ({largest})."
            )
        self._smallest = smallest
        self._largest = largest
        self._limit = float(initial)
        self.unloaded_s: float | None = None
        """Estimated latency on an idle service, in seconds; None before the first estimate."""
        self.latency_s: float | None = None
        """Mean latency in the last window, in seconds."""
        self._probe: float | None = None
        """The limit while the unloaded latency is looked for."""
        self._windows = 0
        self._found = False
        """True once the limit was too high. Until then it grows without smoothing."""
        self._highest = self._limit
        """Since the last look at the unloaded latency."""
        self._counts_from = -math.inf
        self._sum = 0.0
        self._answered = self._ended = 0
        self._peak = 0
        self._was_queued = self._refused = False

    @property
    def limit(self) -> int:
        """Calls that may run at a time now."""
        return int(self._limit if self._probe is None else self._probe)

    @property
    def probing(self) -> bool:
        """True while the limit is lowered to measure the unloaded latency."""
        return self._probe is not None

    def started(self, running: int, now: float) -> None:
        """A call started at `now`; `running` with it."""
        self._peak = max(self._peak, running)
        if self._counts_from == math.inf and running <= self.limit:
            self._settle_at(now)

    def queued(self) -> None:
        """A call had to queue."""
        self._was_queued = True

    def refused(self, now: float) -> None:
        """The service itself refused a call for being busy."""
        self._refused = True
        self._count_one(now)

    def timed_out(self, seconds: float, now: float) -> None:
        """A call had no answer after `seconds`: news only if others take less."""
        if self.latency_s is None or seconds > self.latency_s:
            self.observe(seconds, now)

    def observe(self, seconds: float, now: float) -> None:
        """A call that ended at `now` took `seconds`."""
        if now >= self._counts_from:
            self._sum += seconds
            self._answered += 1
            self._count_one(now)

    # --- Inside -----------------------------------------------------------------------------------

    def _count_one(self, now: float) -> None:
        self._ended += 1
        enough = max(WINDOW_CALLS, self._peak) if self._probe is None else 2 * WINDOW_CALLS
        if self._ended < enough:
            return
        if self._answered:
            self._end_window(self._sum / self._answered, now)
        else:
            self._set(REFUSED * self._limit)
        self._begin_window()

    def _settle_at(self, now: float) -> None:
        self._counts_from = now + SETTLE * (self.latency_s or 0.0)

    def _begin_window(self) -> None:
        self._sum = 0.0
        self._answered = self._ended = 0
        self._peak = 0
        self._was_queued = self._refused = False

    def _end_window(self, seconds: float, now: float) -> None:
        before, self.latency_s = self.latency_s, seconds
        if before is None:
            pass  # the calls that ended first were the short ones
        elif self._probe is not None:
            self._look(seconds, before, now)
        elif self._peak <= self._limit / 2 and not (self._was_queued or self._refused):
            self._learn(seconds)
        else:
            self._step(seconds, before)

    def _learn(self, seconds: float) -> None:
        if self.unloaded_s is None or not FAR <= seconds / self.unloaded_s <= 1 / FAR:
            self.unloaded_s = max(seconds, _SHORTEST_S)
        self.unloaded_s += LEARNING * (seconds - self.unloaded_s)

    def _step(self, seconds: float, before: float) -> None:
        if self.unloaded_s is None:
            self._halve(self._limit)
            return
        gradient = max(0.5, min(1.0, TOLERANCE * self.unloaded_s / max(seconds, _SHORTEST_S)))
        limit = self._limit * gradient + math.sqrt(self._limit)
        if self._refused:
            limit = self._limit * (1 - (1 - REFUSED) / SMOOTHING)
        elif not self._was_queued:
            limit = min(limit, self._limit)
        self._found = self._found or limit < self._limit
        self._set(self._limit + (SMOOTHING if self._found else 1.0) * (limit - self._limit))
        self._highest = max(self._highest, self._limit)
        self._windows += 1
        if (
            self._windows >= PROBE_WINDOWS
            or self._limit <= max(self._highest / 2, self._smallest)
            or max(seconds, before) < FAR * self.unloaded_s
        ):
            self._halve(self._limit)

    def _halve(self, limit: float) -> None:
        self._probe = max(self._smallest, limit / 2)
        self._counts_from = math.inf

    def _look(self, seconds: float, before: float, now: float) -> None:
        """Evaluate a window at the halved limit."""
        assert self._probe is not None
        if self._probe > self._smallest and self._queues_still(seconds, before):
            self._halve(self._probe)
            return
        self._learn(seconds)
        self._set(min(self._limit, 4 * self._probe))  # what ran above this only queued
        self._highest = self._limit
        self._windows = 0
        self._probe = None
        self._settle_at(now)

    def _queues_still(self, seconds: float, before: float) -> bool:
        if self.unloaded_s is None:  # the window before was that of a service filling up
            return seconds < HELPED * before or self._probe == self._limit / 2
        known = FAR * self.unloaded_s <= seconds <= TOLERANCE * self.unloaded_s
        return seconds < HELPED * before and not known

    def _set(self, limit: float) -> None:
        self._limit = max(self._smallest, min(self._largest, limit))
