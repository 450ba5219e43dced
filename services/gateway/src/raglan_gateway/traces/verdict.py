"""Which traces are kept: decided at the end of a request, when it is known how the request went.

Every error, every degraded, hedged, retried and slow request, every accepted job, and a share of
the rest. What a caller can bring about at will (refused requests, trace ids of its own) has a bound
of its own, so that no caller can push out what others need.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from raglan.resilience.latency import LatencyWindow
from raglan.telemetry import context as request_context

SLOW_QUANTILE: Final = 0.99
_RANDOM_BITS: Final = 56
"""The random part of a W3C trace id: its last seven bytes (trace-context level 2)."""


class Reason(StrEnum):
    """Why a trace is kept."""

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


@dataclass(slots=True)
class Ended:
    """A request that has ended, as far as keeping its trace goes."""

    trace_id: int
    route: str
    """The route's template, e.g. "/v1/query": few different ones."""

    status: int
    """HTTP status; 499 where the client left."""

    elapsed_s: float
    failed: bool = False
    """Whether a reply that began with a status of success ended in an error."""

    degraded: bool = False
    hedged: bool = False
    retried: bool = False
    goes_on: bool = False
    """Whether it began work that outlasts it: a job."""

    caller_sampled: bool | None = None
    """The sampled flag of the trace context that the caller sent; None where it sent none. 01 asks
    for the trace; 00 asks for nothing, and does not spare it the other rules."""


def caller_sampled(carrier: Mapping[str, str]) -> bool | None:
    """The sampled flag of a request's `traceparent`; None without one, or with a malformed one."""
    if request_context.caller(carrier) is None:
        return None
    return bool(int(carrier["traceparent"].strip()[53:55], 16) & 1)


class Allowance:
    """A token bucket: `rate` a second, and `burst` at once."""

    def __init__(self, rate: float, burst: int, *, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._left = float(burst)
        self._at = clock()

    def take(self, wanted: float = 1) -> bool:
        """Take `wanted`, or nothing and say so."""
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < wanted:
            return False
        self._left -= wanted
        return True


class TailSampling:
    """Judges requests. Takes no lock and never waits: one belongs to one event loop."""

    def __init__(self, share: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Args:
        share: of the traces that nothing speaks for, 0 to 1. By trace id, so that every gateway
            and every OpenTelemetry collector of the same share keeps the same.
        """
        self._threshold = round((1 - share) * (1 << _RANDOM_BITS))
        self._clock = clock
        self._routes: dict[str, LatencyWindow] = {}
        self._allowances = {reason: Allowance(*rate, clock=clock) for reason, rate in RATES.items()}
        self.refused = 0
        """Traces that would have been kept, but for the bounds."""

    def judge(self, ended: Ended) -> tuple[Reason, ...]:
        """Why the trace is kept; empty when it is not."""
        reasons = self._reasons(ended)
        return reasons if not reasons or self.allows(reasons[0]) else ()

    def in_share(self, trace_id: int) -> bool:
        """Whether the share has this trace, as OpenTelemetry's consistent sampling decides it."""
        return trace_id & ((1 << _RANDOM_BITS) - 1) >= self._threshold

    def allows(self, reason: Reason) -> bool:
        """Whether one more trace may be kept for `reason`; counts it."""
        allowed = self._allowances[reason].take()
        self.refused += not allowed
        return allowed

    def _reasons(self, ended: Ended) -> tuple[Reason, ...]:
        failed = ended.failed or ended.status >= 499
        reasons = tuple(
            reason
            for reason, holds in (
                (Reason.ERROR, failed),
                (Reason.DEGRADED, ended.degraded),
                (Reason.RETRIED, ended.retried),
                (Reason.HEDGED, ended.hedged),
                (Reason.SLOW, self._slow(ended)),
                (Reason.REFUSED, 400 <= ended.status < 499),
                (Reason.JOB, ended.goes_on),
                (Reason.WANTED, ended.caller_sampled),
            )
            if holds
        )
        if reasons or not self.in_share(ended.trace_id):
            return reasons
        # An id that its caller chose must not take the place of others.
        return (Reason.SAMPLED if ended.caller_sampled is None else Reason.WANTED,)

    def _slow(self, ended: Ended) -> bool:
        """Whether it took longer than 99 % of its route's; refusals, being fast, do not count."""
        if ended.status >= 400:
            return False
        window = self._routes.get(ended.route)
        if window is None:
            # Ten minutes, because a quiet route has few requests a minute.
            window = LatencyWindow(max_age_s=600, clock=self._clock)
            self._routes[ended.route] = window
        usual_s = window.quantile(SLOW_QUANTILE)
        window.add(ended.elapsed_s)
        return usual_s is not None and ended.elapsed_s > usual_s
