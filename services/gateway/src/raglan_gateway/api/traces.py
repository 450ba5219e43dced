"""`/v1/traces`: the traces that are kept, and any recent one by its id."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from fastapi.responses import Response
from pydantic import BaseModel
from raglan.errors import NotFound

from raglan_gateway.traces.document import summary_of, trace_json
from raglan_gateway.traces.keeping import Traces
from raglan_gateway.traces.store import Wanted

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
    """Why it is kept."""
    span_count: int
    dropped: int
    """Spans that are not here, because the trace has too many."""
    complete: bool
    """Whether every process has answered, and nothing is missing."""


class TraceList(BaseModel):
    """Traces, the newest first; pass `next_before` as `before` for older ones."""

    traces: list[TraceSummary]
    next_before: int | None
    in_memory: bool
    """Whether they end with the gateway, because their file cannot be used."""


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


def router(traces: Traces) -> APIRouter:
    """The routes of traces."""
    routes = APIRouter(prefix="/v1/traces", tags=["traces"])

    @routes.get("")
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
    ) -> TraceList:
        """The traces that are kept, newest first."""
        wanted = Wanted(
            limit, route, status, error, degraded, hedged, retried, min_duration_ms, before
        )
        found = await traces.newest(wanted)
        return TraceList(
            traces=[TraceSummary(**summary_of(summary)) for _, summary in found],
            next_before=found[-1][0] if len(found) == limit else None,
            in_memory=traces.store.in_memory,
        )

    @routes.get("/{trace_id}", response_model=Trace)
    async def get_trace(trace_id: TraceId) -> Response:
        """A trace that is kept, or any of the last two minutes."""
        found = await traces.find(bytes.fromhex(trace_id))
        if found is None:
            raise NotFound(
                f"There is no trace {trace_id}. Those of errors, of degraded, retried and slow "
                "requests and a share of the rest are kept; others can be had for two minutes "
                "(RAGLAN_GATEWAY_TRACES_SHARE, RAGLAN_GATEWAY_TRACES_KEPT)."
            )
        body = await asyncio.to_thread(trace_json, found.summary, found.spans)
        return Response(body, media_type="application/json")

    return routes
