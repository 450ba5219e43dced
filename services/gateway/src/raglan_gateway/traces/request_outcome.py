"""Outcome of the current request, reported to the tracer for tail sampling."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Final

from opentelemetry import trace
from raglan.telemetry import context as request_context
from raglan.telemetry import semconv
from raglan.v1.traces_pb2 import RequestOutcome

_current: ContextVar[RequestOutcome | None] = ContextVar("raglan_request_outcome", default=None)
_EXTRA: Final = {"hedge": "hedged", "retry": "retried"}


def begin(trace_id: int, carrier: Mapping[str, str]) -> RequestOutcome:
    """Begin the outcome of a request; what is noted in this context from here on belongs to it.

    Args:
        trace_id: of the request.
        carrier: the request's headers, lower-case.
    """
    outcome = RequestOutcome(
        trace_id=trace_id.to_bytes(16, "big"), caller_sampled=_caller_sampled(carrier)
    )
    _current.set(outcome)
    return outcome


def note_attempt(kind: str) -> None:
    """Note that a call left for a service: "first", or as a "retry" or a "hedge"."""
    if (fact := _EXTRA.get(kind)) and (outcome := _current.get()):
        setattr(outcome, fact, True)


def note_degraded() -> None:
    """Note that a stage fell back."""
    if outcome := _current.get():
        outcome.degraded = True


def note_late_error(status: int) -> None:
    """Note that a reply that had begun well ended in an error with this HTTP status."""
    if outcome := _current.get():
        outcome.late_status = status


def note_job() -> None:
    """Note that the request started work that outlasts it."""
    if outcome := _current.get():
        outcome.started_job = True


def show(outcome: RequestOutcome, span: trace.Span) -> None:
    """Set what was noted as attributes of the request's root span."""
    facts = {
        semconv.DEGRADED: outcome.degraded,
        semconv.HEDGED: outcome.hedged,
        semconv.RETRIED: outcome.retried,
    }
    span.set_attributes({name: True for name, holds in facts.items() if holds})


def _caller_sampled(carrier: Mapping[str, str]) -> bool | None:
    """The sampled flag of a request's `traceparent`; None without one, or with a malformed one."""
    if request_context.caller(carrier) is None:
        return None
    return bool(int(carrier["traceparent"].strip()[53:55], 16) & 1)
