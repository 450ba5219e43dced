"""One absolute point in time that a request may not outlast, carried from hop to hop."""

from __future__ import annotations

import time
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol

from raglan.errors import DeadlineExceeded, InvalidInput

_current: ContextVar[Deadline | None] = ContextVar("raglan_deadline", default=None)


class _HasTimeRemaining(Protocol):
    def time_remaining(self) -> float | None: ...


@dataclass(frozen=True, slots=True)
class Deadline:
    """`at` is a reading of `time.monotonic()`, in seconds."""

    at: float
    is_budget: bool = False
    """True if a time budget of ours set it, rather than the caller. A replica that misses a budget
    is slow; what misses the caller's own deadline says nothing about a replica."""

    @classmethod
    def after(cls, seconds: float, *, is_budget: bool = False) -> Deadline:
        """The deadline `seconds` from now."""
        return cls(time.monotonic() + seconds, is_budget)

    @classmethod
    def of(cls, context: _HasTimeRemaining) -> Deadline:
        """The deadline of the gRPC call being served.

        Raises:
            InvalidInput: the call has none.
        """
        remaining = context.time_remaining()
        if remaining is None:
            raise InvalidInput("The call has no deadline; set a timeout.")
        return cls.after(remaining)

    def remaining_s(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.at - time.monotonic())

    def within(self, seconds: float, *, is_budget: bool = False) -> Deadline:
        """The earlier of this deadline and `seconds` from now; `is_budget` is about the latter."""
        other = Deadline.after(seconds, is_budget=is_budget)
        return self if self.at <= other.at else other

    def check(self, doing: str) -> None:
        """Raise DeadlineExceeded when the time is up; `doing` ends the sentence "... before"."""
        if self.remaining_s() <= 0:
            raise DeadlineExceeded(f"The deadline passed before {doing}.")

    def adopt(self) -> None:
        """Be the deadline of the request being served, from here on in this context."""
        _current.set(self)


def current() -> Deadline | None:
    """The deadline of the request being served, or None outside of one."""
    return _current.get()
