"""Admission of calls to a service: start, queue or reject. A state machine without a clock.

- A call starts at once while fewer run than its class may use of the limit.
- Otherwise it waits: critical before default before batch, the earliest deadline first within a
  class. A full queue lets a higher class push out the newest of the lowest.
- Lower classes find limit and queue full earlier, so that there is always room for the higher ones.
- What cannot be served by its deadline is refused at once, and dropped when its turn comes: to
  start it would cost others theirs. While nothing runs everything is tried, so that an estimate
  that is wrong can be unlearnt.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Final, Protocol

from raglan.errors import Overloaded


class Limit(Protocol):
    """An adaptive concurrency limit, learnt from reported calls. Times are monotonic seconds."""

    @property
    def limit(self) -> int:
        """Calls that may run at a time now."""

    @property
    def latency_s(self) -> float | None:
        """Recent mean latency of a call in seconds; None before the first."""

    def started(self, running: int, now: float) -> None:
        """A call started at `now`; `running` with it."""

    def queued(self) -> None:
        """A call had to queue."""

    def observe(self, seconds: float, now: float) -> None:
        """A call that ended at `now` took `seconds`."""

    def timed_out(self, seconds: float, now: float) -> None:
        """A call had no answer after `seconds`."""

    def refused(self, now: float) -> None:
        """The service itself refused a call for being busy."""


class Priority(IntEnum):
    """Priority class of a call; the lower number goes first."""

    CRITICAL = 0
    DEFAULT = 1
    BATCH = 2


SHARE: Final = {Priority.CRITICAL: 1.0, Priority.DEFAULT: 0.9, Priority.BATCH: 0.5}
"""Share of limit and queue that may be in use, by all classes together, for one more of this."""

SLACK: Final = 1.5
"""The wait that is expected counts so much at admission: without it an overloaded queue grows until
everything in it is answered at the last moment, and much of that a moment too late."""

_MIN_RETRY_S: Final = 0.05
_HELD_SHARE: Final = 0.1


class _Is(StrEnum):
    WAITING = "waiting"
    RUNNING = "running"
    REFUSED = "refused"
    GONE = "gone"


@dataclass(slots=True, eq=False)
class Ticket:
    """One call, from its arrival to its end."""

    priority: Priority
    expires_at: float
    order: int
    is_: _Is = _Is.WAITING
    started_at: float = 0.0
    settled: Callable[[], None] | None = None
    """Called when it started or was refused after it waited."""
    refusal: Overloaded | None = None

    @property
    def running(self) -> bool:
        """True while the call holds a slot."""
        return self.is_ is _Is.RUNNING

    def __lt__(self, other: Ticket) -> bool:
        return (self.expires_at, self.order) < (other.expires_at, other.order)


class Admission:
    """Places and queue before one service. `now` is any monotonic clock, in seconds."""

    def __init__(self, limit: Limit, queue: int) -> None:
        self.adaptive = limit
        self.queue = queue
        self.running = 0
        self._waiting: dict[Priority, list[Ticket]] = {priority: [] for priority in Priority}
        self._order = 0
        self._held_s: float | None = None
        """Mean time a slot is held, in seconds."""

    @property
    def waiting(self) -> int:
        """Calls that wait."""
        return sum(map(len, self._waiting.values()))

    # --- Events -----------------------------------------------------------------------------------

    def arrive(self, priority: Priority, expires_at: float, now: float) -> Ticket:
        """One more call: it runs or waits.

        Raises:
            Overloaded: the queue has no room for it, or its turn would come too late.
        """
        self.serve(now)
        self._order += 1
        ticket = Ticket(priority, expires_at, self._order)
        if self.running < self._places(priority):
            self._start(ticket, now)
            return ticket
        self.adaptive.queued()
        self._check(ticket, now)
        if self.waiting >= math.ceil(SHARE[priority] * self.queue):
            self._push_out(ticket, now)
        insort(self._waiting[priority], ticket)
        return ticket

    def check(self, priority: Priority) -> None:
        """Find out early, and for little, that a call has no place, whatever its deadline.

        Raises:
            Overloaded: the queue has no room for it.
        """
        if self.running < self._places(priority):
            return
        full = self.waiting >= math.ceil(SHARE[priority] * self.queue)
        if full and not any(self._waiting[lower] for lower in Priority if lower > priority):
            self.adaptive.queued()
            raise self._full(Ticket(priority, math.inf, self._order + 1))

    def leave(self, ticket: Ticket, now: float) -> None:
        """The call ended, or its caller did not wait for it. Its place is free."""
        if ticket.is_ is _Is.WAITING:
            self._waiting[ticket.priority].remove(ticket)
        elif ticket.running:
            self.running -= 1
            held_s = now - ticket.started_at
            if self._held_s is None:
                self._held_s = held_s
            self._held_s += _HELD_SHARE * (held_s - self._held_s)
        ticket.is_ = _Is.GONE
        self.serve(now)

    def serve(self, now: float) -> None:
        """Start those who wait while there is room, as after the limit has grown."""
        for priority, queue in self._waiting.items():
            while queue and self.running < self._places(priority):
                ticket = queue.pop(0)
                needs_s = (self.adaptive.latency_s or 0.0) if self.running else 0.0
                if ticket.expires_at - now <= needs_s:
                    self._refuse(ticket, "Its turn came too late for its deadline.")
                    continue
                self._start(ticket, now)
                if ticket.settled is not None:
                    ticket.settled()

    def wait_s(self, ticket: Ticket) -> float:
        """Estimate the queueing time of `ticket` in seconds from the recent completion rate."""
        if self._held_s is None:
            return 0.0
        ahead = sum(len(self._waiting[higher]) for higher in Priority if higher < ticket.priority)
        ahead += sum(other < ticket for other in self._waiting[ticket.priority])
        return (ahead + 1) * self._held_s / self._places(ticket.priority)

    # --- Inside -----------------------------------------------------------------------------------

    def _places(self, priority: Priority) -> int:
        return math.ceil(SHARE[priority] * self.adaptive.limit)

    def _start(self, ticket: Ticket, now: float) -> None:
        ticket.is_ = _Is.RUNNING
        ticket.started_at = now
        self.running += 1
        self.adaptive.started(self.running, now)

    def _check(self, ticket: Ticket, now: float) -> None:
        wait_s = self.wait_s(ticket)
        late_by_s = now + SLACK * wait_s + (self.adaptive.latency_s or 0.0) - ticket.expires_at
        if late_by_s > 0:
            raise Overloaded(
                f"{self.waiting} calls wait already; this one would miss its deadline by "
                f"{late_by_s:.3f} s.",
                retry_after_s=max(_MIN_RETRY_S, wait_s),
            )

    def _push_out(self, ticket: Ticket, now: float) -> None:
        for priority in reversed(Priority):
            if priority > ticket.priority and self._waiting[priority]:
                victim = max(self._waiting[priority], key=lambda other: other.order)
                self._waiting[priority].remove(victim)
                self._refuse(victim, "Calls of a higher priority took its place in the queue.")
                return
        raise self._full(ticket)

    def _full(self, ticket: Ticket) -> Overloaded:
        return Overloaded(
            f"{self.waiting} calls wait already; the queue holds "
            f"{math.ceil(SHARE[ticket.priority] * self.queue)} for {ticket.priority.name.lower()}.",
            retry_after_s=max(_MIN_RETRY_S, self.wait_s(ticket)),
        )

    def _refuse(self, ticket: Ticket, why: str) -> None:
        ticket.is_ = _Is.REFUSED
        ticket.refusal = Overloaded(why, retry_after_s=max(_MIN_RETRY_S, self.wait_s(ticket)))
        if ticket.settled is not None:
            ticket.settled()
