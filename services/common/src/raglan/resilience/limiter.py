"""The adaptive concurrency limit before one stage, for coroutines."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import TracebackType

from raglan.deadline import Deadline
from raglan.errors import DeadlineExceeded, Overloaded
from raglan.resilience.admission import Admission, Limit, Priority, Ticket
from raglan.resilience.gradient import GradientLimit

__all__ = ["AdaptiveLimiter", "Priority", "Slot"]


class AdaptiveLimiter:
    """At most so many calls at a time as the service behind it can use; the rest wait or go.

    `clock` is monotonic, in seconds, and the one that deadlines are read from.

    Args:
        limit: what finds the limit; without it a `GradientLimit` between `smallest` and `largest`.
    """

    def __init__(
        self,
        *,
        initial: int = 20,
        smallest: int = 2,
        largest: int = 1000,
        queue: int = 100,
        limit: Limit | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._adaptive = limit or GradientLimit(initial=initial, smallest=smallest, largest=largest)
        self._admission = Admission(self._adaptive, queue)
        self.on_wait: Callable[[float], None] = _untold
        """Called with the wait of each queued call in seconds, whatever its outcome."""
        self._clock = clock

    @property
    def limit(self) -> int:
        """Calls that may run at a time."""
        return self._adaptive.limit

    @property
    def latency_s(self) -> float | None:
        """Recent mean latency in seconds; None before there are enough calls."""
        return self._adaptive.latency_s

    @property
    def running(self) -> int:
        """Calls that run."""
        return self._admission.running

    @property
    def waiting(self) -> int:
        """Calls that wait."""
        return self._admission.waiting

    def check(self, priority: Priority) -> None:
        """Raise Overloaded if a call of this class would find the queue full now."""
        self._admission.check(priority)

    def serve(self) -> None:
        """Start those who wait, after the limit has grown by something else than a call's end."""
        self._admission.serve(self._clock())

    def slot(self, priority: Priority, deadline: Deadline) -> Slot:
        """A place for one call: `async with limiter.slot(priority, deadline) as slot: ...`.

        The block's time is taken as the call's latency. Overloaded out of the block says that the
        service is full and lowers the limit, DeadlineExceeded that it takes at least so long; any
        other exception says nothing about its speed.

        Entering raises:
            Overloaded: the queue is full, or the deadline would pass, or passed, before its turn.
            DeadlineExceeded: it had passed already.
        """
        return Slot(self._admission, priority, deadline, self._clock, self.on_wait)


def _untold(seconds: float) -> None:
    pass


class Slot:
    """A place, while the block runs."""

    __slots__ = ("_admission", "_clock", "_deadline", "_on_wait", "_priority", "_says", "_ticket")

    def __init__(
        self,
        admission: Admission,
        priority: Priority,
        deadline: Deadline,
        clock: Callable[[], float],
        on_wait: Callable[[float], None],
    ) -> None:
        self._admission = admission
        self._on_wait = on_wait
        self._priority = priority
        self._deadline = deadline
        self._clock = clock
        self._says = True

    def ignore(self) -> None:
        """Ignore this call's latency: it was cancelled, or failed fast."""
        self._says = False

    def measured(self, seconds: float) -> None:
        """Take `seconds`, as until the first token, instead of the block's time. Counts at once."""
        if self._says:
            self._says = False
            now = self._clock()
            self._admission.adaptive.observe(seconds, now)
            self._admission.serve(now)

    async def __aenter__(self) -> Slot:
        now = self._clock()
        if self._deadline.at <= now:
            raise DeadlineExceeded("The deadline passed before the call.")
        self._ticket = self._admission.arrive(self._priority, self._deadline.at, now)
        if not self._ticket.running:
            try:
                await self._turn(self._ticket, self._deadline.at - now)
            finally:
                self._on_wait(self._clock() - now)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        now = self._clock()
        adaptive = self._admission.adaptive
        took_s = now - self._ticket.started_at
        if isinstance(error, Overloaded):
            adaptive.refused(now)
        elif isinstance(error, DeadlineExceeded | TimeoutError) and self._says:
            adaptive.timed_out(took_s, now)
        elif error is None and self._says:
            adaptive.observe(took_s, now)
        self._admission.leave(self._ticket, now)

    async def _turn(self, ticket: Ticket, seconds: float) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        ticket.settled = lambda: None if turn.done() else turn.set_result(None)
        try:
            async with asyncio.timeout(seconds):
                await turn
        except TimeoutError:
            self._admission.leave(ticket, self._clock())
            raise Overloaded("The deadline passed before its turn came.") from None
        except BaseException:
            self._admission.leave(ticket, self._clock())
            raise
        if ticket.refusal is not None:
            raise ticket.refusal
