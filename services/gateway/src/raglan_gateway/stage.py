"""Limits of a query's stages, which follow their latency: a time budget and a concurrency limit."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Final, Protocol

from raglan.deadline import Deadline
from raglan.errors import DeadlineExceeded
from raglan.logs import in_stage
from raglan.resilience.latency import LatencyWindow
from raglan.resilience.limiter import AdaptiveLimiter, Priority

_TIMES_P99: Final = 3.0
"""A budget is so many times what 99 % of the calls took."""

QUEUE: Final = 64
LARGEST: Final = 512


class StageObserver(Protocol):
    """Observer of stages; must return at once."""

    def stage_began(self, stage: str, remaining_s: float) -> None:
        """Record that a query with so much time left came to `stage`."""

    def stage_ended(self, stage: str, seconds: float, error: BaseException | None) -> None:
        """Record that it left `stage`, because of `error` if there is one."""


class Unobserved:
    """No-op observer."""

    def stage_began(self, stage: str, remaining_s: float) -> None:
        """Ignore the start of a stage."""

    def stage_ended(self, stage: str, seconds: float, error: BaseException | None) -> None:
        """Ignore the end of a stage."""


class StageLimiter:
    """Limits of one stage, shared by all queries that pass through it.

    Args:
        longest_s: the budget while no latency is known, and the largest.
        shortest_s: the smallest budget, so that a stage which has been fast may be slow once.
        share: the share of a query's remaining time that the stage may use; below 1, so that
            the stages after it still find time.
    """

    def __init__(
        self, name: str, *, longest_s: float, shortest_s: float = 0.75, share: float = 1.0
    ) -> None:
        self.name = name
        # Wide: the latency of a stage includes the gateway's own delays, and under those the load
        # shedder has to admit less. A service that is full refuses by itself.
        self.limiter = AdaptiveLimiter(initial=256, smallest=64, largest=LARGEST, queue=QUEUE)
        self._longest_s = longest_s
        self._shortest_s = min(shortest_s, longest_s)
        self._share = share
        self._latencies = LatencyWindow()

    @property
    def budget_s(self) -> float:
        """Longest time that a call may take now, in seconds."""
        p99_s = self._latencies.quantile(0.99)
        if p99_s is None:
            return self._longest_s
        return min(self._longest_s, max(self._shortest_s, _TIMES_P99 * p99_s))

    def limit(self, deadline: Deadline) -> Deadline:
        """Return the deadline of this stage for a query with `deadline`.

        Raises:
            DeadlineExceeded: half of the calls take longer than that.
        """
        limit = deadline.within(self._share * deadline.remaining_s())
        limit = limit.within(self.budget_s, is_budget=True)
        usual_s, left_s = self._latencies.quantile(0.5), limit.remaining_s()
        if usual_s is not None and usual_s > left_s:
            raise DeadlineExceeded(
                f"Half of the calls in stage {self.name} take longer than {usual_s * 1e3:.0f} ms; "
                f"{left_s * 1e3:.0f} ms are left for it."
            )
        return limit

    def place(self, priority: Priority, limit: Deadline) -> StagePlace:
        """Return a place in the stage, to be entered; see `StagePlace`."""
        return StagePlace(self, priority, limit)

    def observe(self, seconds: float) -> None:
        """Record the latency of a call that was answered."""
        self._latencies.add(seconds)

    def observe_timeout(self, seconds: float, budget_s: float) -> None:
        """Record a call without an answer after `seconds`.

        A stage that has become slower needs a larger budget. A query in a hurry tells nothing.
        """
        if seconds >= 0.9 * budget_s:
            self._latencies.add(budget_s)


class StagePlace:
    """A place in a stage, held for the block; lines of the log name the stage.

    Entering raises:
        Overloaded: there is no place by the deadline.
    """

    __slots__ = ("_began", "_budget_s", "_in_stage", "_limiter", "_slot")

    def __init__(self, limiter: StageLimiter, priority: Priority, limit: Deadline) -> None:
        self._limiter = limiter
        self._slot = limiter.limiter.slot(priority, limit)
        self._in_stage = in_stage(limiter.name)

    async def __aenter__(self) -> None:
        await self._slot.__aenter__()
        self._began, self._budget_s = time.monotonic(), self._limiter.budget_s
        self._in_stage.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._in_stage.__exit__()
        if isinstance(error, DeadlineExceeded):
            self._limiter.observe_timeout(time.monotonic() - self._began, self._budget_s)
        await self._slot.__aexit__(kind, error, traceback)
