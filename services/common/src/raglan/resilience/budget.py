"""Budget of extra calls: retries and hedges, as a share of regular calls.

A share, because any fixed number of tries multiplies the load of what is already failing. The idea
is Finagle's RetryBudget; here both counts are kept over one window, so that no credit is saved up.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from raglan.resilience.window import Window


class Budget:
    """In any `window_s` seconds at most `share` of the requests, or `floor_per_s`, are extra."""

    def __init__(
        self,
        share: float,
        floor_per_s: float = 0.0,
        *,
        window_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.share = share
        self.floor = floor_per_s * window_s
        """Extra calls a window that are allowed however few requests there are."""
        self.refused = 0
        """Extra calls that were not allowed, ever."""
        self._clock = clock
        self._requests = Window(window_s)
        self._extras = Window(window_s)

    def request(self) -> None:
        """One more first attempt."""
        self._requests.add(self._clock())

    def try_acquire(self) -> bool:
        """Return whether one extra call is allowed now, and count it if so."""
        now = self._clock()
        allowed = max(self.share * self._requests.at_most(now), self.floor)
        if self._extras.at_least(now) + 1 > allowed:
            self.refused += 1
            return False
        self._extras.add(now)
        return True

    @property
    def share_used(self) -> float:
        """Extra calls by requests in the window, 0 without any request."""
        now = self._clock()
        requests = self._requests.at_most(now)
        return self._extras.at_most(now) / requests if requests else 0.0
