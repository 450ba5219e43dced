"""The request's id and its W3C trace context: taken from what comes in, put on what goes out."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Final

import structlog
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

REQUEST_ID: Final = "x-request-id"
"""The header and the gRPC metadata key of the request id."""

_ACCEPTED_ID: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_request_id: ContextVar[str] = ContextVar("raglan_request_id", default="")
_propagator: Final = TraceContextTextMapPropagator()


def request_id() -> str:
    """The id of the request being served, or "" outside of one."""
    return _request_id.get()


def trace_id() -> str:
    """The W3C trace id of the request being served, 32 hex digits, or "" without a trace."""
    span = trace.get_current_span().get_span_context()
    return f"{span.trace_id:032x}" if span.is_valid else ""


@contextmanager
def incoming(carrier: Mapping[str, str]) -> Iterator[str]:
    """Adopt the request id and trace context of `carrier` (lower-case keys) for this block.

    A missing or unusable id is replaced by a new one; a malformed `traceparent` is ignored and a
    new trace begins, so that every request has both.
    """
    given = carrier.get(REQUEST_ID, "")
    id_ = given if _ACCEPTED_ID.fullmatch(given) else secrets.token_hex(8)
    context = _propagator.extract(carrier)
    if not trace.get_current_span(context).get_span_context().is_valid:
        fresh = trace.SpanContext(
            trace_id=secrets.randbits(128) or 1,
            span_id=secrets.randbits(64) or 1,
            is_remote=False,
            trace_flags=trace.TraceFlags(trace.TraceFlags.SAMPLED),
        )
        context = trace.set_span_in_context(trace.NonRecordingSpan(fresh), context)
    otel_token = otel_context.attach(context)
    id_token = _request_id.set(id_)
    log_tokens = structlog.contextvars.bind_contextvars(request_id=id_, trace_id=trace_id())
    try:
        yield id_
    finally:
        # A stream whose reader has left is closed in another context: nothing to restore there.
        with suppress(ValueError):
            _request_id.reset(id_token)
            structlog.contextvars.reset_contextvars(**log_tokens)
            otel_context.detach(otel_token)


def outgoing() -> list[tuple[str, str]]:
    """gRPC metadata that carries this request's id and trace context to the next hop."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    if id_ := request_id():
        carrier[REQUEST_ID] = id_
    return list(carrier.items())


def carrier_of(metadata: Iterable[tuple[str, str | bytes]]) -> dict[str, str]:
    """The text entries of gRPC metadata, as `incoming` wants them."""
    return {key: value for key, value in metadata if isinstance(value, str)}
