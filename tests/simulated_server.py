"""Calls through `Admission` to a server that exists in a heap: minutes of load in a second."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from raglan.errors import Overloaded
from raglan.resilience.admission import Admission, Priority, Ticket
from raglan.resilience.gradient import GradientLimit


@dataclass
class Server:
    """`workers` calls run at full speed; more share them (as the threads of a CPU do)."""

    workers: float
    work_s: Callable[[random.Random], float]
    """How long a call takes on an idle server."""


@dataclass
class Call:
    """One call, as its caller sees it."""

    priority: Priority
    arrived_at: float
    expires_at: float
    ticket: Ticket | None = None
    outcome: str = ""


@dataclass
class Simulation:
    """Open-loop arrivals before a limiter before a server. All times in seconds."""

    server: Server
    limit: GradientLimit = field(default_factory=GradientLimit)
    queue: int = 100
    deadline_s: float = 2.0
    seed: int = 1

    def __post_init__(self) -> None:
        self.admission = Admission(self.limit, self.queue)
        self.dice = random.Random(self.seed)
        self.now = 0.0
        self.calls: list[Call] = []
        self.latencies: list[tuple[float, float]] = []
        """When a call that ran ended, and how long it ran."""
        self._served = 0.0
        self._running: list[tuple[float, int, Call]] = []

    def offer(
        self, rate: float, seconds: float, priorities: dict[Priority, float] | None = None
    ) -> list[Call]:
        """Poisson arrivals at `rate` a second for `seconds`; what came of them."""
        shares = priorities or {Priority.DEFAULT: 1.0}
        until, first = self.now + seconds, len(self.calls)
        while True:
            arrival = self.now + self.dice.expovariate(rate) if rate else until
            self._run_until(min(arrival, until))
            if arrival >= until:
                return self.calls[first:]
            (priority,) = self.dice.choices(list(shares), list(shares.values()))
            self._arrive(Call(priority, self.now, self.now + self.deadline_s))

    def _arrive(self, call: Call) -> None:
        self.calls.append(call)
        try:
            ticket = self.admission.arrive(call.priority, call.expires_at, self.now)
        except Overloaded:
            call.outcome = "refused"
            return
        call.ticket = ticket
        ticket.settled = lambda: self._settled(call)
        if ticket.running:
            self._settled(call)

    def _settled(self, call: Call) -> None:
        assert call.ticket is not None
        if not call.ticket.running:
            call.outcome = "refused"
            return
        work_s = self.server.work_s(self.dice)
        heapq.heappush(self._running, (self._served + work_s, call.ticket.order, call))

    def _run_until(self, until: float) -> None:
        while self._running:
            pace = min(1.0, self.server.workers / len(self._running))
            ends_at = self.now + (self._running[0][0] - self._served) / pace
            if ends_at > until:
                self._served += (until - self.now) * pace
                break
            self._served = self._running[0][0]
            self.now = ends_at
            self._end(heapq.heappop(self._running)[2])
        self.now = until

    def _end(self, call: Call) -> None:
        assert call.ticket is not None
        took_s = self.now - call.ticket.started_at
        call.outcome = "answered" if self.now <= call.expires_at else "late"
        self.latencies.append((self.now, took_s))
        self.limit.observe(took_s, self.now)
        self.admission.leave(call.ticket, self.now)


def outcomes(calls: list[Call]) -> Counter[str]:
    """How many calls ended how."""
    return Counter(call.outcome for call in calls)
