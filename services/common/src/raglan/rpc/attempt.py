"""One attempt of a call at one replica, and the outcome reported to that replica."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from raglan.deadline import Deadline
from raglan.errors import DeadlineExceeded, Internal, Unavailable
from raglan.resilience.breaker import Permit
from raglan.rpc import tracing
from raglan.rpc.endpoint import Endpoint


class FellSilent(DeadlineExceeded):
    """The replies of a stream stopped for longer than the silence that is allowed."""


@dataclass(eq=False, slots=True)
class Attempt:
    """One attempt of a call at one replica."""

    endpoint: Endpoint
    permit: Permit
    limit: Deadline
    usual_s: float | None
    """The time in which nearly all calls of this kind were answered, where that is known."""
    span: tracing.Attempt
    overtaken: bool = False
    """True if a later hedge finished first."""
    _may_blame: bool = field(init=False)

    def __post_init__(self) -> None:
        # A caller in a hurry would open breakers for everybody, and of a pool that has answered
        # nothing yet it is not known what it needs.
        self._may_blame = (
            self.limit.is_budget
            and self.usual_s is not None
            and self.limit.remaining_s() >= self.usual_s
        )

    def overtake(self) -> None:
        """Its hedge was answered earlier."""
        self.overtaken = True
        self.span.overtaken()

    def ended(self, error: BaseException | None) -> None:
        """Tell the breaker what it may learn from it.

        A bad request, a caller that left and a replica's own shedding say nothing of its health;
        nor does the caller's own deadline, nor a budget that is too short for anyone.
        """
        match error:
            case None:
                self.permit.succeeded()
            case Unavailable() | Internal() | FellSilent():
                self._failed(error.message)
            case DeadlineExceeded() if self._may_blame:
                self._failed(error.message)
            case asyncio.CancelledError() if self.overtaken:
                self._failed("Others answered earlier.")
            case _:
                self.permit.released()

    def broke_off(self, error: BaseException, permit: Permit) -> None:
        """Tell the breaker about a stream that had counted as a success when it began."""
        self.permit = permit
        # By now only the whole request's deadline can have passed, which is the caller's.
        self._may_blame = False
        self.ended(error)

    def _failed(self, why: str) -> None:
        self.endpoint.last_failure = why
        self.permit.failed()
