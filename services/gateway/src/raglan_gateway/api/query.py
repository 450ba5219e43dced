"""`POST /v1/query` and `POST /v1/search`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Annotated, Any, Final, Literal, TypeVar

import structlog
from fastapi import APIRouter, Header, Request
from raglan.deadline import Deadline
from raglan.errors import Cancelled, Internal, InvalidInput, RaglanError
from raglan.resilience.limiter import Priority
from raglan.telemetry import context as request_context
from raglan.v1 import retriever_pb2

from raglan_gateway.api import filters, replies, schemas, sse
from raglan_gateway.metrics import Metrics
from raglan_gateway.pipeline import Answered, Cited, Delta, Pipeline, Query, Run, Sources, Started
from raglan_gateway.settings import GatewaySettings

log: Final = structlog.get_logger()
T = TypeVar("T")
Class = Annotated[
    Literal["critical", "default", "batch"],
    Header(description="Which requests go first when not all can be served at once."),
]
_MODES: Final = {
    "hybrid": retriever_pb2.SEARCH_MODE_HYBRID,
    "dense": retriever_pb2.SEARCH_MODE_DENSE,
    "lexical": retriever_pb2.SEARCH_MODE_LEXICAL,
}


def router(pipeline: Pipeline, settings: GatewaySettings, metrics: Metrics) -> APIRouter:
    """The routes that answer."""
    routes = APIRouter(tags=["query"])

    @routes.post(
        "/v1/search",
        response_model=schemas.SearchReply,
    )
    async def search(
        body: schemas.SearchRequest, request: Request, x_raglan_priority: Class = "default"
    ) -> schemas.SearchReply:
        """Find passages: the path of a query without generation."""
        query, deadline = _checked(body, x_raglan_priority, settings)
        run = await _while_connected(request, pipeline.search(query, deadline))
        _count(run, metrics)
        return replies.search(run)

    @routes.post(
        "/v1/query",
        response_model=schemas.QueryReply,
        responses={200: {"content": sse.OPENAPI}},
    )
    async def query(
        body: schemas.QueryRequest, request: Request, x_raglan_priority: Class = "default"
    ) -> Any:
        """Answer with citations; `stream: true` sends server-sent events."""
        query, deadline = _checked(body, x_raglan_priority, settings)
        if body.stream:
            events = _events(pipeline, query, deadline, metrics)
            return sse.response(events, heartbeat_s=settings.heartbeat_s)
        run = await _while_connected(request, _completed(pipeline, query, deadline))
        _count(run, metrics)
        return replies.query(run)

    return routes


def _checked(
    body: schemas.SearchRequest, priority: str, settings: GatewaySettings
) -> tuple[Query, Deadline]:
    """The request against the limits that settings hold."""
    if len(body.query) > settings.max_query_chars:
        raise InvalidInput(
            f"query has {len(body.query)} characters; the limit is {settings.max_query_chars} "
            "(RAGLAN_GATEWAY_MAX_QUERY_CHARS)."
        )
    if body.top_k > settings.max_top_k:
        raise InvalidInput(
            f"top_k is {body.top_k}; the limit is {settings.max_top_k} (RAGLAN_GATEWAY_MAX_TOP_K)."
        )
    timeout_ms = body.timeout_ms or settings.default_timeout_ms
    if timeout_ms > settings.max_timeout_ms:
        raise InvalidInput(
            f"timeout_ms is {timeout_ms}; the limit is {settings.max_timeout_ms} "
            "(RAGLAN_GATEWAY_MAX_TIMEOUT_MS)."
        )
    collections = body.collections or [settings.default_collection]
    query = Query(
        text=" ".join(body.query.split()),
        collections=tuple(dict.fromkeys(collections)),
        top_k=body.top_k,
        mode=_MODES[body.mode],
        rerank=body.rerank,
        filter=filters.to_proto(body.filter) if body.filter else None,
        max_tokens=(body.max_tokens or 0) if isinstance(body, schemas.QueryRequest) else 0,
        # The higher number goes later.
        priority=max(Priority[priority.upper()], Priority[settings.highest_priority.upper()]),
    )
    deadline = Deadline.after(timeout_ms / 1e3)
    deadline.adopt()
    return query, deadline


async def _completed(pipeline: Pipeline, query: Query, deadline: Deadline) -> Run:
    """Run a query to its end, for a caller who wants it whole."""
    async with aclosing(pipeline.answer(query, deadline)) as events:
        async for event in events:
            if isinstance(event, Answered):
                return event.run
    raise Internal("The answer ended before it was complete.")


async def _events(
    pipeline: Pipeline, query: Query, deadline: Deadline, metrics: Metrics
) -> AsyncGenerator[sse.Event, None]:
    """The events of one stream; its last is `done` or `error`."""
    try:
        async with aclosing(pipeline.answer(query, deadline)) as events:
            async for event in events:
                match event:
                    case Started():
                        start = schemas.StreamStart(
                            id=request_context.request_id(), trace_id=request_context.trace_id()
                        )
                        yield sse.Event("start", start)
                    case Sources(run):
                        passages = [replies.passage(p) for p in run.passages]
                        yield sse.Event(
                            "sources",
                            schemas.StreamSources(
                                passages=passages, degraded=replies.degraded(run)
                            ),
                        )
                    case Delta(text):
                        yield sse.Event("delta", schemas.StreamDelta(text=text))
                    case Cited(citation, passage):
                        yield sse.Event("citation", replies.citation(citation, passage))
                    case Answered(run):
                        _count(run, metrics)
                        yield sse.Event("final", replies.query(run))
        yield sse.Event("done")
    except RaglanError as error:
        yield sse.problem(error)
    except Exception:
        log.exception("unexpected error in a stream")
        yield sse.problem(Internal("The gateway met an error of its own."))


def _count(run: Run, metrics: Metrics) -> None:
    for stage, elapsed_ms in run.timings_ms.items():
        metrics.stages.labels(stage).observe(elapsed_ms / 1e3)
    for fallen in run.degraded:
        metrics.degraded.labels(fallen.stage, fallen.fallback).inc()


async def _while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Await `work`, but cancel it, and with it the calls it makes, when the client leaves."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnect(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise Cancelled("The client left before the answer.")
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.wait((working, leaving))


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
