"""`/v1/traces`: the traces that are kept, and any recent one by its id."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Path, Query
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel
from raglan import tenancy
from raglan.deadline import Deadline
from raglan.errors import NotSupported
from raglan.rpc.pool import EndpointPool
from raglan.v1 import traces_pb2

from raglan_gateway.access.collections import refuse_limited
from raglan_gateway.traces.reporter import TraceReporter

_TRACES: Final = "Traces"
_ANSWER_S: Final = 10.0
"""For the tracer to look through its store and the mesh, and for the reader to take it all."""

TraceId = Annotated[
    str,
    Path(
        pattern=r"^[0-9a-fA-F]{32}$",
        description="32 hexadecimal digits: `trace_id` of a reply, or from its `traceparent`.",
    ),
]
Whether = Annotated[bool | None, Query(description="Only those that were, or were not.")]


class TraceSummary(BaseModel):
    """A trace without its spans."""

    trace_id: str
    route: str
    """Empty for a trace that did not begin with a request to this gateway."""
    name: str
    status: int
    """HTTP status of the reply; 0 where this gateway gave none."""
    error: bool
    degraded: bool
    hedged: bool
    retried: bool
    start_ns: int
    duration_ms: float
    reasons: list[str]
    """Reasons for keeping it."""
    span_count: int
    dropped: int
    """Spans that are not here, because the trace has too many."""
    complete: bool
    """True if every process has answered and no span is missing."""


class TraceList(BaseModel):
    """Traces, the newest first; pass `next_before` as `before` for older ones."""

    traces: list[TraceSummary]
    next_before: int | None
    in_memory: bool
    """True if traces are in memory only, because their file cannot be used."""


class SpanEvent(BaseModel):
    """Something that happened during a span."""

    name: str
    time_ns: int
    attributes: dict[str, Any]


class SpanLink(BaseModel):
    """Another span that has to do with one: of a batch, each request in it."""

    trace_id: str
    span_id: str
    attributes: dict[str, Any]


class Span(BaseModel):
    """One step."""

    span_id: str
    parent_span_id: str | None
    service: str
    name: str
    kind: Literal["internal", "server", "client", "producer", "consumer"]
    start_ns: int
    """Nanoseconds since 1970, by the clock of the process that made it."""
    end_ns: int
    status: Literal["unset", "ok", "error"]
    status_message: str | None = None
    attributes: dict[str, Any]
    events: list[SpanEvent]
    links: list[SpanLink]
    trace_id: str | None = None
    """Only of a span of another trace that links to this one."""


class Trace(TraceSummary):
    """A trace, its spans in the order in which they began."""

    missing: list[str]
    """Addresses of processes that did not answer when they were asked for their spans."""
    spans: list[Span]


def router(tracer: EndpointPool | None, reporter: TraceReporter) -> APIRouter:
    """The routes of traces, answered by the tracer; without one they are not supported."""
    routes = APIRouter(prefix="/v1/traces", tags=["traces"])

    @routes.get("", response_model=TraceList)
    async def list_traces(
        limit: Annotated[int, Query(ge=1, le=1000)] = 50,
        route: Annotated[str | None, Query(max_length=200, description="As /v1/query.")] = None,
        status: Annotated[int | None, Query(ge=100, le=599, description="HTTP status.")] = None,
        error: Whether = None,
        degraded: Whether = None,
        hedged: Whether = None,
        retried: Whether = None,
        min_duration_ms: Annotated[float | None, Query(ge=0, le=1e12)] = None,
        before: Annotated[int | None, Query(ge=1, le=2**63 - 1)] = None,
    ) -> Response:
        """The traces that are kept, newest first. Refused to limited keys."""
        tenancy.refuse_tenants(_TRACES)
        refuse_limited(_TRACES)
        request = traces_pb2.ListTracesRequest(
            limit=limit,
            route=route,
            status=status,
            error=error,
            degraded=degraded,
            hedged=hedged,
            retried=retried,
            min_duration_ms=min_duration_ms,
            before=before,
        )
        deadline = Deadline.after(_ANSWER_S)
        reply = await _needed(tracer).call("ListTraces", request, deadline=deadline)
        return Response(reply.document, media_type="application/json")

    @routes.get("/{trace_id}", response_model=Trace)
    async def get_trace(trace_id: TraceId) -> Response:
        """A trace that is kept, or any of the last two minutes. Refused to limited keys."""
        tenancy.refuse_tenants(_TRACES)
        refuse_limited(_TRACES)
        id_ = bytes.fromhex(trace_id)
        pool = _needed(tracer)
        request = await reporter.request_for(id_)
        chunks = pool.stream("GetTrace", request, deadline=Deadline.after(_ANSWER_S))
        first = await anext(chunks)
        return StreamingResponse(
            _rest(first, chunks),
            media_type="application/json",
            headers={"Content-Length": str(first.size)},
        )

    return routes


def _needed(tracer: EndpointPool | None) -> EndpointPool:
    if tracer is None:
        raise NotSupported(
            "This mesh keeps no traces: it has no tracer (RAGLAN_GATEWAY_TRACER_ADDRESS). Where "
            "OTEL_EXPORTER_OTLP_ENDPOINT is set, its collector has them."
        )
    return tracer


async def _rest(
    first: traces_pb2.TraceChunk, chunks: AsyncGenerator[traces_pb2.TraceChunk, None]
) -> AsyncIterator[bytes]:
    async with aclosing(chunks):
        yield first.document
        async for chunk in chunks:
            yield chunk.document
