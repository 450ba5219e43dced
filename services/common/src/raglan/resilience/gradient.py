"""How many calls at a time a service can use, found from their latency alone.

The step is that of Netflix's concurrency-limits (`GradientLimit`) and Envoy's adaptive concurrency
filter: after each window of calls

    limit <- (1 - s) * limit + s * (limit * min(1, tolerance * unloaded / measured) + sqrt(limit))

so that it grows by the square root while latency is what it is without load, and shrinks with
the ratio once calls queue behind each other. What differs is how the unloaded latency is known:

- It follows what is measured while less than half of the limit is in use, and any latency lower
  than itself. An average over everything (`Gradient2Limit`) drifts: under lasting overload it
  takes the queue for normal, and the limit grows without end.
- While the limit is always in use, it is halved for one window now and then. Halved again as long
  as that makes calls much faster (they were queueing), and what is measured then is the unloaded
  latency.
- A limit that came down by half without calls becoming much faster has not found a queue but
  slower work, which is then the unloaded latency. Otherwise longer texts would throttle a service
  down to nothing.

It grows only when somebody had to wait for it.
"""

from __future__ import annotations

import math
from typing import Final

TOLERANCE: Final = 1.25
"""Latency that counts as unloaded: a service of c workers then has c/4 calls waiting for them."""

SMOOTHING: Final = 0.2
"""Share of the new limit in each step, as with Netflix."""

HELPED: Final = 0.6
"""Half the calls at a time and at most so much of the latency: they were queueing. Without any
queue it would stay as it is, with nothing but queue it would fall to a half."""

WINDOW_CALLS: Final = 10
"""Latencies a window has at least, and as many as calls ran at a time."""

PROBE_WINDOWS: Final = 50
"""Full windows between two looks at the unloaded latency. One costs about half a window's calls."""

REFUSED: Final = 0.9
"""What is left of the limit after a window in which the service itself refused a call."""


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
        """What a call takes on an idle service, as far as is known."""
        self.latency_s: float | None = None
        """What a call took on average in the last window."""
        self._probe: float | None = None
        """The limit while the unloaded latency is looked for."""
        self._windows = PROBE_WINDOWS - 5
        self._top = (self._limit, 0.0)
        """Limit and latency where the present descent began."""
        self._since = -math.inf
        self._sum = 0.0
        self._count = 0
        self._peak = 0
        self._wanted = self._refused = False

    @property
    def limit(self) -> int:
        """Calls that may run at a time now."""
        return int(self._limit if self._probe is None else self._probe)

    def started(self, running: int, now: float) -> None:
        """A call started at `now`; `running` with it."""
        self._peak = max(self._peak, running)
        if running <= self.limit and self._since == math.inf:
            self._since = now

    def wanted(self) -> None:
        """Somebody found no place."""
        self._wanted = True

    def refused(self) -> None:
        """The service itself refused a call for being busy."""
        self._refused = True

    def observe(self, seconds: float, started_at: float) -> None:
        """A call that started at `started_at` took `seconds`."""
        if started_at < self._since:
            return
        if self.unloaded_s is not None:
            seconds = min(seconds, 4 * self.unloaded_s)  # one stall is not the service's speed
        self._sum += seconds
        self._count += 1
        if self._count >= max(WINDOW_CALLS, self._peak):
            self._end_window(self._sum / self._count)

    # --- Inside -----------------------------------------------------------------------------------

    def _begin_window(self) -> None:
        self._sum = 0.0
        self._count = 0
        self._peak = 0
        self._wanted = self._refused = False

    def _end_window(self, seconds: float) -> None:
        before, self.latency_s = self.latency_s, seconds
        if self._probe is not None:
            self._look(seconds, before or seconds)
        elif self._peak <= self._limit / 2 and not self._wanted:
            self._learn(seconds)
        else:
            self._step(seconds)
        self._begin_window()

    def _learn(self, seconds: float) -> None:
        if self.unloaded_s is None:
            self.unloaded_s = seconds
        self.unloaded_s += (seconds - self.unloaded_s) / 2
        self._windows = 0

    def _step(self, seconds: float) -> None:
        if self.unloaded_s is None:
            self.unloaded_s = seconds
        elif seconds < self.unloaded_s:
            self._learn(seconds)
        gradient = max(0.5, min(1.0, TOLERANCE * self.unloaded_s / seconds))
        limit = self._limit * gradient + math.sqrt(self._limit)
        if self._refused:
            limit = self._limit * (1 - (1 - REFUSED) / SMOOTHING)
        elif not self._wanted:
            limit = min(limit, self._limit)
        self._set(self._limit + SMOOTHING * (limit - self._limit))
        self._descend(seconds, gradient)
        self._windows += 1
        if self._windows >= PROBE_WINDOWS:
            self._halve(self._limit)

    def _descend(self, seconds: float, gradient: float) -> None:
        top_limit, top_s = self._top
        if gradient == 1.0:
            self._top = (self._limit, seconds)
        elif self._limit > top_limit / 2 and self._limit > self._smallest:
            self._top = (top_limit, max(top_s, seconds))
        else:
            if seconds > HELPED * top_s:
                self.unloaded_s = seconds
            self._top = (self._limit, seconds)

    def _halve(self, limit: float) -> None:
        self._probe = max(self._smallest, limit / 2)
        self._since = math.inf

    def _look(self, seconds: float, before: float) -> None:
        assert self._probe is not None
        if seconds < HELPED * before and self._probe > self._smallest:
            self._halve(self._probe)
            return
        self.unloaded_s = seconds
        self._probe = None
        self._since = -math.inf
        self._windows = 0

    def _set(self, limit: float) -> None:
        self._limit = max(self._smallest, min(self._largest, limit))
