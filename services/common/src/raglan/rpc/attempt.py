"""One call on its way to one replica, and what its end says of that replica."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from raglan.errors import DeadlineExceeded, Internal, Unavailable
from raglan.resilience.breaker import Permit
from raglan.rpc import tracing
from raglan.rpc.endpoint import Endpoint


@dataclass(eq=False, slots=True)
class Attempt:
    """One call on its way to one replica."""

    endpoint: Endpoint
    permit: Permit
    limit_s: float
    usual_s: float | None
    """The time in which nearly all calls of this kind are answered, where that is known."""
    span: tracing.Attempt
    overtaken: bool = False
    """Whether a hedge that began later was answered earlier."""

    def overtake(self) -> None:
        """Its hedge was answered earlier."""
        self.overtaken = True
        self.span.overtaken()

    def ended(self, error: BaseException | None) -> None:
        """Tell the breaker what it may learn from it.

        A bad request, a caller that left and a replica's own shedding say nothing of its health;
        nor does a deadline that was too short for anyone.
        """
        match error:
            case None:
                self.permit.succeeded()
            case Unavailable() | Internal():
                self._failed(error.message)
            case DeadlineExceeded() if self.limit_s >= (self.usual_s or 0):
                self._failed(error.message)
            case asyncio.CancelledError() if self.overtaken:
                self._failed("Others answered earlier.")
            case _:
                self.permit.released()

    def _failed(self, why: str) -> None:
        self.endpoint.last_failure = why
        self.permit.failed()
