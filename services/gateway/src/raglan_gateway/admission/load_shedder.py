"""The concurrency limit of queries, which follows the lag of the gateway's event loop."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Final

from raglan.deadline import Deadline
from raglan.errors import DeadlineExceeded, Overloaded
from raglan.resilience.lag import LagLimit
from raglan.resilience.limiter import AdaptiveLimiter, Priority

from raglan_gateway.admission.checks import Check, CountRefusal

_QUEUE: Final = 64
_LARGEST: Final = 512


class LoadShedder:
    """Admits as many queries to the stages that find passages as the gateway itself can follow.

    How much the services can do is decided by the stages; a slow service is no reason to refuse.

    Args:
        limiter: for tests; by default one that follows `observe_lag`.
    """

    def __init__(self, limiter: AdaptiveLimiter | None = None) -> None:
        self._lag = LagLimit(largest=_LARGEST)
        self.limiter = limiter or AdaptiveLimiter(limit=self._lag, queue=_QUEUE)
        self.count: CountRefusal = lambda check: None

    def observe_lag(self, seconds: float) -> None:
        """Adapt the limit to a sample of the event loop's lag, and start queries that now fit."""
        self._lag.lagged(seconds)
        self.limiter.serve()

    def check(self, priority: Priority) -> None:
        """Reject a query before it is read, where the queue is full.

        Raises:
            Overloaded: the queue has no room for this class.
        """
        try:
            self.limiter.check(priority)
        except Overloaded:
            self.count(Check.LOAD)
            raise

    async def enter(self, stack: AsyncExitStack, priority: Priority, deadline: Deadline) -> None:
        """Wait for a place, which is held until `stack` closes.

        Raises:
            Overloaded: the queue is full, or the turn would come after the deadline.
            DeadlineExceeded: the deadline has passed.
        """
        try:
            await stack.enter_async_context(self.limiter.slot(priority, deadline))
        except Overloaded:
            self.count(Check.LOAD)
            raise
        except DeadlineExceeded:
            self.count(Check.DEADLINE)
            raise
