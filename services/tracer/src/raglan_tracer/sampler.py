"""Tail sampling: which traces are kept, decided by how their requests ended.

Every error, every degraded, hedged, retried and slow request, every accepted job, and a share of
the rest. What a caller can bring about at will (refused requests, trace ids of its own) has a bound
of its own, so that no caller can push out what others need.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import StrEnum
from typing import Final

from raglan.resilience.latency import LatencyWindow
from raglan.v1.traces_pb2 import RequestOutcome

SLOW_QUANTILE: Final = 0.99
_RANDOM_BITS: Final = 56
"""The random part of a W3C trace id: its last seven bytes (trace-context level 2)."""


class Reason(StrEnum):
    """Reason for keeping a trace."""

    ERROR = "error"
    """It failed, or its client left before the end."""
    REFUSED = "refused"
    """It was not taken on: its caller's mistake, or too many at a time (429)."""
    DEGRADED = "degraded"
    HEDGED = "hedged"
    RETRIED = "retried"
    SLOW = "slow"
    """It took longer than 99 % of its route's requests lately."""
    JOB = "job"
    """It began work that goes on, whose end nobody knows yet."""
    WANTED = "wanted"
    """Its caller records the trace: its id came from there, flagged as sampled."""
    SAMPLED = "sampled"
    """One of the share of all."""
    LOOKED_AT = "looked_at"
    """Somebody asked for it while it could still be had."""
    RECEIVED = "received"
    """It came by OTLP, with an error or as one of the share."""


RATES: Final[dict[Reason, tuple[float, int]]] = {
    Reason.ERROR: (100, 2_000),
    Reason.DEGRADED: (50, 2_000),
    Reason.RETRIED: (25, 1_000),
    Reason.HEDGED: (25, 1_000),
    Reason.SLOW: (25, 1_000),
    Reason.REFUSED: (10, 200),
    Reason.JOB: (2, 100),
    Reason.WANTED: (5, 50),
    Reason.SAMPLED: (500, 2_000),
    Reason.LOOKED_AT: (2, 50),
    Reason.RECEIVED: (10, 200),
}
"""Traces a second, and how many at once, by the first reason. A mesh that fails or is degraded as a
whole keeps so many and no more: collecting them all would be load when it has too much of it. The
share is bounded by how it is set."""


class TokenBucket:
    """A token bucket: `rate` a second, and `burst` at once."""

    def __init__(self, rate: float, burst: int, *, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._left = float(burst)
        self._at = clock()

    def try_acquire(self, amount: float = 1) -> bool:
        """Take `amount` if it is there; return whether it was."""
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < amount:
            return False
        self._left -= amount
        return True


class TailSampler:
    """Decides by how a request ended. Belongs to one event loop: takes no lock, never waits."""

    def __init__(self, share: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Sample a share of the traces that no other rule keeps.

        Args:
            share: 0 to 1. By trace id, so that every tracer and every OpenTelemetry collector of
                the same share keeps the same.
            clock: monotonic, in seconds.
        """
        self._threshold = round((1 - share) * (1 << _RANDOM_BITS))
        self._clock = clock
        self._routes: dict[str, LatencyWindow] = {}
        self._buckets = {reason: TokenBucket(*rate, clock=clock) for reason, rate in RATES.items()}
        self.refused = 0
        """Traces that would have been kept, but for the bounds."""

    def decide(self, outcome: RequestOutcome) -> tuple[Reason, ...]:
        """Return the reasons for keeping a trace; empty to drop it."""
        reasons = self._reasons(outcome)
        return reasons if not reasons or self.allows(reasons[0]) else ()

    def in_share(self, trace_id: bytes) -> bool:
        """Return whether the share has this trace, by OpenTelemetry's consistent sampling."""
        return int.from_bytes(trace_id[-_RANDOM_BITS // 8 :], "big") >= self._threshold

    def allows(self, reason: Reason) -> bool:
        """Return whether one more trace may be kept for `reason`, and count it."""
        allowed = self._buckets[reason].try_acquire()
        self.refused += not allowed
        return allowed

    def _reasons(self, outcome: RequestOutcome) -> tuple[Reason, ...]:
        status = outcome.late_status or outcome.status
        reasons = tuple(
            reason
            for reason, holds in (
                (Reason.ERROR, status >= 499),
                (Reason.DEGRADED, outcome.degraded),
                (Reason.RETRIED, outcome.retried),
                (Reason.HEDGED, outcome.hedged),
                (Reason.SLOW, self._slow(outcome)),
                (Reason.REFUSED, 400 <= status < 499),
                (Reason.JOB, outcome.started_job),
                (Reason.WANTED, outcome.caller_sampled),
            )
            if holds
        )
        if reasons or not self.in_share(outcome.trace_id):
            return reasons
        # An id that its caller chose must not take the place of others.
        return (Reason.WANTED if outcome.HasField("caller_sampled") else Reason.SAMPLED,)

    def _slow(self, outcome: RequestOutcome) -> bool:
        """Return whether it took longer than 99 % of its route's; fast refusals do not count."""
        if outcome.status >= 400:
            return False
        window = self._routes.get(outcome.route)
        if window is None:
            # Ten minutes, because a quiet route has few requests a minute.
            window = LatencyWindow(max_age_s=600, clock=self._clock)
            self._routes[outcome.route] = window
        usual_s = window.quantile(SLOW_QUANTILE)
        window.add(outcome.elapsed_s)
        return usual_s is not None and outcome.elapsed_s > usual_s
