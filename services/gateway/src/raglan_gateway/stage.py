"""What every stage of a query obeys: a time budget that follows the stage's own speed, and a limit
on how many may be in it, which does too."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Protocol

from raglan.deadline import Deadline
from raglan.errors import DeadlineExceeded
from raglan.logs import in_stage
from raglan.resilience.latency import LatencyWindow
from raglan.resilience.limiter import AdaptiveLimiter, Priority, Slot

_TIMES_P99: Final = 3.0
"""A budget is so many times what 99 % of the calls took."""

QUEUE: Final = 64
LARGEST: Final = 512


class StageObserver(Protocol):
    """Told how stages go; must return at once."""

    def stage_began(self, stage: str, remaining_s: float) -> None:
        """A query with so much time left came to `stage`."""

    def stage_ended(self, stage: str, seconds: float, error: BaseException | None) -> None:
        """It left it, because of `error` if there is one."""


class Unobserved:
    """Nobody looks."""

    def stage_began(self, stage: str, remaining_s: float) -> None:
        pass

    def stage_ended(self, stage: str, seconds: float, error: BaseException | None) -> None:
        pass


class Stage:
    """One stage, for all queries that pass through it."""

    def __init__(
        self, name: str, *, longest_s: float, shortest_s: float = 0.75, share: float = 1.0
    ) -> None:
        """Args:
        longest_s: the budget while nothing is known of the stage, and its most.
        shortest_s: its least, so that a stage which has been fast may stumble.
        share: of the time that a query has left, how much the stage may use; below 1, so that
            what comes after it still finds time.
        """
        self.name = name
        # Wide: what a stage takes includes the gateway's own delays, and under those it is the door
        # that has to become narrower. A service that is full refuses by itself.
        self.limiter = AdaptiveLimiter(initial=256, smallest=64, largest=LARGEST, queue=QUEUE)
        self._longest_s = longest_s
        self._shortest_s = min(shortest_s, longest_s)
        self._share = share
        self._took = LatencyWindow()

    @property
    def budget_s(self) -> float:
        """How long it may take now."""
        p99_s = self._took.quantile(0.99)
        if p99_s is None:
            return self._longest_s
        return min(self._longest_s, max(self._shortest_s, _TIMES_P99 * p99_s))

    def limit(self, deadline: Deadline) -> Deadline:
        """Until when the stage of a query with `deadline` may run.

        Raises:
            DeadlineExceeded: half of its calls take longer than that.
        """
        limit = deadline.within(self._share * deadline.remaining_s())
        limit = limit.within(self.budget_s, is_budget=True)
        usual_s, left_s = self._took.quantile(0.5), limit.remaining_s()
        if usual_s is not None and usual_s > left_s:
            raise DeadlineExceeded(
                f"Half of the calls in stage {self.name} take longer than {usual_s * 1e3:.0f} ms; "
                f"{left_s * 1e3:.0f} ms are left for it."
            )
        return limit

    @asynccontextmanager
    async def entered(self, priority: Priority, limit: Deadline) -> AsyncIterator[Slot]:
        """A place in the stage.

        Raises:
            Overloaded: there is none by `limit`.
        """
        async with self.limiter.slot(priority, limit) as slot:
            began, budget_s = time.monotonic(), self.budget_s
            try:
                with in_stage(self.name):
                    yield slot
            except DeadlineExceeded:
                # A stage that has become slower needs a larger budget. A query in a hurry tells
                # nothing.
                if time.monotonic() - began >= 0.9 * budget_s:
                    self._took.add(budget_s)
                raise

    def took(self, seconds: float) -> None:
        """One call was answered after so many seconds in the stage."""
        self._took.add(seconds)
