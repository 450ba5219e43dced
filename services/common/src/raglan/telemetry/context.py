"""The request's id and its W3C trace context: taken from what comes in, put on what goes out.

Baggage is ignored: any sender could make every hop carry it.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceState

from raglan.context_variables import restore
from raglan.telemetry import tracing
from raglan.telemetry.recording import SAMPLED, new_context

REQUEST_ID: Final = "x-request-id"
"""The header and the gRPC metadata key of the request id."""

_ACCEPTED_ID: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
# https://www.w3.org/TR/trace-context/: a later version may add fields, and "ff" is none.
_TRACEPARENT: Final = re.compile(
    r"(?:00(?=.{53}$)|(?!00|ff)[0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?"
)
_LONGEST: Final = 512
"""Characters of a header that is looked at."""

_request_id: ContextVar[str] = ContextVar("raglan_request_id", default="")


def request_id() -> str:
    """The id of the request being served, or "" outside of one."""
    return _request_id.get()


def id_from(given: str) -> str:
    """`given` where it can be a request's id, else a new one."""
    return given if _ACCEPTED_ID.fullmatch(given) else secrets.token_hex(8)


def trace_id() -> str:
    """The W3C trace id of the request being served, 32 hex digits, or "" without a trace."""
    found = tracing.context()
    return f"{found.trace_id:032x}" if found else ""


class incoming:  # noqa: N801 - reads as a statement: with incoming(...)
    """Adopt the request id and trace context of `carrier` (lower-case keys) for this block.

    A missing or unusable id is replaced by a new one; a malformed `traceparent` is ignored and a
    new trace begins, so that every request has both. Yields the request id.

    Args:
        name: of the span that the block is; it is `tracing.current()` inside, and ends with the
            block, by which time `tracing.fail` may have said how. Without a name, no span.
    """

    __slots__ = (
        "_attached",
        "_attributes",
        "_carrier",
        "_id",
        "_id_token",
        "_kind",
        "_name",
        "_span",
    )

    def __init__(
        self,
        carrier: Mapping[str, str],
        name: str = "",
        attributes: tracing.Attributes | None = None,
        *,
        kind: SpanKind = SpanKind.SERVER,
    ) -> None:
        self._carrier = carrier
        self._name = name
        self._attributes = attributes
        self._kind = kind

    def __enter__(self) -> str:
        id_ = id_from(self._carrier.get(REQUEST_ID, ""))
        parent = caller(self._carrier)
        self._span: trace.Span = (
            tracing.begin(self._name, self._attributes, parent=parent, kind=self._kind)
            if self._name
            else NonRecordingSpan(parent or new_context(None))
        )
        self._id, self._id_token = id_, _request_id.set(id_)
        self._attached = tracing.attach(self._span)
        return id_

    def __exit__(
        self,
        type_: type[BaseException] | None,
        error: BaseException | None,
        _: TracebackType | None,
    ) -> None:
        restore(self._id_token, self._id)
        tracing.detach(self._attached)
        tracing.end(self._span, error)


def caller(carrier: Mapping[str, str]) -> SpanContext | None:
    """The span that `traceparent` names, or None where there is none or it is malformed."""
    # Of white space, HTTP allows these around a value; OpenTelemetry also takes a line end.
    header = carrier.get("traceparent", "").removesuffix("\n").strip(" \t")
    if not 55 <= len(header) <= _LONGEST or not (match := _TRACEPARENT.fullmatch(header)):
        return None
    state = carrier.get("tracestate", "")
    found = SpanContext(
        int(match[1], 16),
        int(match[2], 16),
        is_remote=True,
        trace_flags=SAMPLED,
        trace_state=TraceState.from_header([state]) if 0 < len(state) <= _LONGEST else None,
    )
    return found if found.is_valid else None


def headers(span: trace.Span | None = None) -> dict[str, str]:
    """Build the HTTP headers that carry request id and trace context to the next hop.

    Args:
        span: the caller there; by default the current one.
    """
    found = (span or trace.get_current_span()).get_span_context()
    carried: dict[str, str] = {}
    if found.is_valid:
        carried["traceparent"] = f"00-{found.trace_id:032x}-{found.span_id:016x}-01"
        if found.trace_state:
            carried["tracestate"] = found.trace_state.to_header()
    if id_ := _request_id.get():
        carried[REQUEST_ID] = id_
    return carried


def outgoing(span: trace.Span | None = None) -> list[tuple[str, str]]:
    """The same as gRPC metadata."""
    return list(headers(span).items())


def carrier_of(metadata: Iterable[tuple[str, Any]]) -> dict[str, str]:
    """The text entries of gRPC metadata, in the form that `incoming` reads."""
    return {key: value for key, value in metadata if isinstance(value, str)}
