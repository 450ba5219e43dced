"""Traces, as objects of the REST API."""

from __future__ import annotations

from typing import Any, Literal

from raglan.client.model import Model


class TraceSummary(Model):
    """A trace without its spans."""

    trace_id: str
    route: str
    name: str
    status: int
    error: bool
    degraded: bool
    hedged: bool
    retried: bool
    start_ns: int
    duration_ms: float
    reasons: list[str]
    span_count: int
    dropped: int
    complete: bool


class TraceList(Model):
    """Traces, the newest first; pass `next_before` as `before` for older ones."""

    traces: list[TraceSummary]
    next_before: int | None
    in_memory: bool


class SpanEvent(Model):
    """Something that happened during a span."""

    name: str
    time_ns: int
    attributes: dict[str, Any]


class SpanLink(Model):
    """Another span that has to do with one."""

    trace_id: str
    span_id: str
    attributes: dict[str, Any]


class Span(Model):
    """One step of a request; times in nanoseconds since 1970."""

    span_id: str
    parent_span_id: str | None
    service: str
    name: str
    kind: Literal["internal", "server", "client", "producer", "consumer"]
    start_ns: int
    end_ns: int
    status: Literal["unset", "ok", "error"]
    status_message: str | None = None
    attributes: dict[str, Any]
    events: list[SpanEvent]
    links: list[SpanLink]
    trace_id: str | None = None


class Trace(TraceSummary):
    """A trace, its spans in the order in which they began."""

    missing: list[str]
    spans: list[Span]
