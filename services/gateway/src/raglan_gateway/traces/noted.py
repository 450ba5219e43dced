"""What is noted of a request while it runs, for the verdict on its trace at its end."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

from opentelemetry import trace
from raglan.telemetry import semconv

from raglan_gateway.traces.verdict import Ended

_noted: ContextVar[Ended | None] = ContextVar("raglan_noted", default=None)
_EXTRA: Final = {"hedge": "hedged", "retry": "retried"}


def begin(trace_id: int) -> Ended:
    """From here on in this context, what is noted is of this request."""
    noted = Ended(trace_id, route="", status=0, elapsed_s=0.0)
    _noted.set(noted)
    return noted


def attempted(kind: str) -> None:
    """A call left for a service, for the first time, as a retry or as a hedge."""
    if (fact := _EXTRA.get(kind)) and (noted := _noted.get()):
        setattr(noted, fact, True)


def degraded() -> None:
    """A stage fell back."""
    if noted := _noted.get():
        noted.degraded = True


def failed() -> None:
    """A reply that had begun well ended in an error."""
    if noted := _noted.get():
        noted.failed = True


def goes_on() -> None:
    """The request began work that outlasts it."""
    if noted := _noted.get():
        noted.goes_on = True


def show(noted: Ended, span: trace.Span) -> None:
    """Say on the first span of the request what was noted."""
    facts = {
        semconv.DEGRADED: noted.degraded,
        semconv.HEDGED: noted.hedged,
        semconv.RETRIED: noted.retried,
    }
    span.set_attributes({name: True for name, holds in facts.items() if holds})
