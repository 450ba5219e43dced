"""`POST /v1/query` and `POST /v1/search`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Annotated, Any, Final, Literal, TypeVar

import structlog
from fastapi import APIRouter, Header, Request
from fastapi.responses import Response
from raglan import errors
from raglan.cancel_scope import CancelScope
from raglan.deadline import Deadline
from raglan.errors import Cancelled, Internal, InvalidInput, RaglanError
from raglan.resilience.limiter import Priority
from raglan.telemetry import context as request_context
from raglan.telemetry import semconv, tracing
from raglan.v1 import generator_pb2, retriever_pb2

from raglan_gateway import caller, stage_spans
from raglan_gateway.api import filters, openapi, replies, schemas, sse, stale_answers
from raglan_gateway.metrics import Metrics
from raglan_gateway.pipeline import (
    Answered,
    Cited,
    Delta,
    Pipeline,
    Restarted,
    Sources,
    Started,
    Thinking,
)
from raglan_gateway.query import Query
from raglan_gateway.query_state import QueryState
from raglan_gateway.settings import GatewaySettings
from raglan_gateway.shared.answer_cache import AnswerCache
from raglan_gateway.traces import request_outcome

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
_ROLES: Final = {"user": generator_pb2.ROLE_USER, "assistant": generator_pb2.ROLE_ASSISTANT}


def router(
    pipeline: Pipeline, answers: AnswerCache, settings: GatewaySettings, metrics: Metrics
) -> APIRouter:
    """The routes that answer."""
    routes = APIRouter(tags=["query"])

    @routes.post(
        "/v1/search",
        response_model=schemas.SearchReply,
    )
    async def search(
        body: schemas.SearchRequest, request: Request, x_raglan_priority: Class = "default"
    ) -> Any:
        """Find passages: the path of a query without generation."""
        query, deadline = _checked(body, x_raglan_priority, settings)
        try:
            run = await _while_connected(request, pipeline.search(query, deadline))
        except RaglanError as error:
            return await stale_answers.search(answers, query, error, metrics)
        metrics.answered(run)
        stage_spans.returned(tracing.current(), "", run.passages)
        return _sent(stale_answers.keep(answers, run, replies.search(run)))

    @routes.post(
        "/v1/query",
        response_model=schemas.QueryReply,
        responses={200: {"content": openapi.event_stream(openapi.QUERY_EVENTS)}},
    )
    async def query(
        body: schemas.QueryRequest, request: Request, x_raglan_priority: Class = "default"
    ) -> Any:
        """Answer with citations; `stream: true` sends server-sent events."""
        query, deadline = _checked(body, x_raglan_priority, settings)
        if body.stream:
            events = _events(pipeline, query, deadline, metrics, answers)
            begun = await _while_connected(request, _begun(events))
            return sse.response(begun, heartbeat_s=settings.heartbeat_s)
        try:
            run = await _while_connected(request, _completed(pipeline, query, deadline))
        except RaglanError as error:
            return await stale_answers.query(answers, query, error, metrics)
        metrics.answered(run)
        stage_spans.returned(tracing.current(), run.answer)
        return _sent(stale_answers.keep(answers, run, replies.query(run)))

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
    asked = body if isinstance(body, schemas.QueryRequest) else None
    query = Query(
        text=body.query.strip(),
        collections=tuple(dict.fromkeys(collections)),
        top_k=body.top_k,
        mode=_MODES[body.mode],
        rerank=body.rerank,
        min_score=body.min_score,
        filter=filters.to_proto(body.filter) if body.filter else None,
        tenant=caller.current().tenant,
        max_tokens=(asked.max_tokens or 0) if asked else 0,
        stream=asked.stream if asked else False,
        history=tuple(_turn(turn) for turn in asked.history) if asked else (),
        sampling=_sampling(asked) if asked else None,
        json_schema=json.dumps(asked.json_schema) if asked and asked.json_schema else "",
        # The higher number goes later.
        priority=max(Priority[priority.upper()], Priority[settings.highest_priority.upper()]),
    )
    deadline = Deadline.after(timeout_ms / 1e3)
    deadline.adopt()
    span = tracing.current()
    span.set_attributes({semconv.DEADLINE_REMAINING_MS: timeout_ms, semconv.MODE: body.mode})
    if (text := tracing.content(query.text)) is not None:
        span.set_attribute(semconv.INPUT, text)
    return query, deadline


def _turn(turn: schemas.Turn) -> generator_pb2.Turn:
    return generator_pb2.Turn(role=_ROLES[turn.role], text=turn.text)


def _sampling(body: schemas.QueryRequest) -> generator_pb2.Sampling | None:
    """Sampling as asked for; None where all of it is the model's own."""
    sampling = generator_pb2.Sampling(
        temperature=body.temperature, top_p=body.top_p, seed=body.seed, stop=body.stop
    )
    return sampling if sampling.ByteSize() else None


async def _completed(pipeline: Pipeline, query: Query, deadline: Deadline) -> QueryState:
    """Run a query to its end, for a caller who wants it whole."""
    async with aclosing(pipeline.answer(query, deadline)) as events:
        async for event in events:
            if isinstance(event, Answered):
                return event.run
    raise Internal("The answer ended before it was complete.")


async def _begun(events: AsyncGenerator[sse.Event, None]) -> AsyncGenerator[sse.Event, None]:
    """`events`, the first two of them made already: refused before, a request has its status."""
    first = [await anext(events)]
    async for second in events:
        first.append(second)
        break

    async def all_of_them() -> AsyncGenerator[sse.Event, None]:
        async with aclosing(events):
            for event in first:
                yield event
            async for event in events:
                yield event

    return all_of_them()


async def _events(
    pipeline: Pipeline,
    query: Query,
    deadline: Deadline,
    metrics: Metrics,
    answers: AnswerCache,
) -> AsyncGenerator[sse.Event, None]:
    """The events of one stream; its last is `done` or `error`.

    Raises:
        RaglanError: before the first event, where the request itself is at fault (no place for it,
            no such collection) and its status can still say so.
    """
    # Asked for later, it may be one of a stage: the stream goes on in another task.
    request_span = tracing.current()
    seen = 0
    answered = False
    passages: list[schemas.Passage] = []
    """Passages as the stream shows them; its last event repeats them."""
    try:
        async with aclosing(pipeline.answer(query, deadline)) as events:
            async for event in events:
                seen += 1
                if isinstance(event, Answered):
                    answered = True
                    metrics.answered(event.run)
                    stage_spans.returned(request_span, event.run.answer)
                    reply = replies.query(event.run, passages)
                    body = stale_answers.keep(answers, event.run, reply)
                    yield sse.Event("final", body.decode())
                elif event != _SIGN_OF_LIFE:
                    yield _shown(event, passages)
        yield sse.Event("done")
    except RaglanError as error:
        if _has_status(seen, error):
            metrics.failed(error)
            raise
        tracing.fail(request_span, error)
        request_outcome.note_late_error(errors.wire(error).http)
        for late in await stale_answers.events(answers, query, error, metrics):
            yield late
    except (asyncio.CancelledError, GeneratorExit) as left:
        if not answered:
            metrics.failed(left)
        tracing.fail(request_span, left)
        request_outcome.note_late_error(errors.TABLE[Cancelled].http)
        raise
    except Exception as error:
        metrics.failed(error)
        tracing.fail(request_span, error)
        request_outcome.note_late_error(errors.TABLE[Internal].http)
        log.exception("unexpected error in a stream")
        yield sse.problem(Internal("The gateway met an error of its own."))


def _has_status(seen: int, error: RaglanError) -> bool:
    """Return whether `error`, after `seen` events, is the reply's status, not an event of it.

    `_begun` holds the first event back until the second, so what is wrong with the request itself,
    such as a collection that does not exist, still is.
    """
    return seen == 0 or (seen == 1 and errors.wire(error).http < 500)


_SIGN_OF_LIFE: Final = Thinking("")


def _shown(
    event: Started | Sources | Thinking | Delta | Cited | Restarted,
    passages: list[schemas.Passage],
) -> sse.Event:
    match event:
        case Started():
            start = schemas.StreamStart(
                id=request_context.request_id(), trace_id=request_context.trace_id()
            )
            return sse.Event("start", start)
        case Sources(run):
            passages += [replies.passage(p) for p in run.passages]
            sources = schemas.StreamSources(passages=passages, degraded=replies.degraded(run))
            return sse.Event("sources", sources)
        case Thinking(text):
            return sse.Event("thinking", schemas.StreamThinking(text=text))
        case Restarted():
            return sse.Event("restart")
        case Delta(text):
            return sse.Event("delta", schemas.StreamDelta(text=text))
        case Cited(citation, passage):
            return sse.Event("citation", replies.citation(citation, passage))


def _sent(body: bytes) -> Response:
    """A reply that is JSON already: FastAPI would check and write it once more."""
    return Response(body, media_type="application/json")


async def _while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Await `work`, but cancel it, and with it the calls it makes, when the client leaves."""
    leaving = asyncio.ensure_future(sse.wait_for_disconnect(request.receive))
    try:
        async with CancelScope() as connected:
            leaving.add_done_callback(lambda _: connected.cancel())
            return await work
    finally:
        leaving.cancel()
    raise Cancelled("The client left before the answer.")
