"""`POST /v1/query` and `POST /v1/search`, and the answering that other APIs share with them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Final, Literal, TypeVar

import structlog
from fastapi import APIRouter, Header, Request
from fastapi.responses import Response
from raglan import errors
from raglan.cancel_scope import CancelScope
from raglan.deadline import Deadline
from raglan.errors import Cancelled, Internal, RaglanError
from raglan.telemetry import context as request_context
from raglan.telemetry import tracing
from raglan.v1 import common_pb2, retriever_pb2

from raglan_gateway import answer_id, caller, reply_headers, stage_spans
from raglan_gateway.api import openapi, replies, schemas, sse, stale_answers
from raglan_gateway.api.checked import checked
from raglan_gateway.caches import control
from raglan_gateway.caches.cached_pipeline import CachedPipeline
from raglan_gateway.caches.entry import Layer
from raglan_gateway.collection_profiles import CollectionProfiles
from raglan_gateway.conversation.sessions import SessionQuery, Sessions
from raglan_gateway.metrics import Metrics
from raglan_gateway.pipeline import (
    Answered,
    Cited,
    Delta,
    Restarted,
    Searched,
    Sources,
    Started,
    Thinking,
)
from raglan_gateway.profiles import Body, Profile, Profiles
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


class Answering:
    """Questions of every API, from a checked body to the reply of `/v1/query`, or its events."""

    def __init__(
        self,
        pipeline: CachedPipeline,
        answers: AnswerCache,
        settings: GatewaySettings,
        metrics: Metrics,
        sessions: Sessions,
        profiles: Profiles,
        defaults: CollectionProfiles,
    ) -> None:
        self._pipeline = pipeline
        self._answers = answers
        self._settings = settings
        self._metrics = metrics
        self._sessions = sessions
        self._profiles = profiles
        self._defaults = defaults

    async def search(self, body: schemas.SearchRequest, request: Request, priority: str) -> bytes:
        """Find passages; returns a `schemas.SearchReply` as JSON."""
        body, profile, missing = await self._with_profile(body)
        query, deadline = checked(body, priority, self._settings)
        query = replace(
            query,
            rewriter=profile.writes_with,
            missing=missing,
            further=await self._further(query),
        )
        query = _with_control(query, request)
        try:
            run = await _while_connected(request, self._pipeline.search(query, deadline))
        except RaglanError as error:
            stale = await stale_answers.search(self._answers, query, error, self._metrics)
            return stale.model_dump_json().encode()
        self._metrics.answered(run)
        stage_spans.returned(tracing.current(), "", run.passages)
        _show_age(request, run)
        return stale_answers.keep(self._answers, run, replies.search(run))

    async def answer(self, body: schemas.QueryRequest, request: Request, priority: str) -> bytes:
        """Answer with citations; returns a `schemas.QueryReply` as JSON."""
        asked, query, deadline = await self._checked(body, request, priority)
        try:
            run = await _while_connected(request, _completed(self._pipeline, query, deadline))
        except RaglanError as error:
            stale = await stale_answers.query(self._answers, query, error, self._metrics)
            reply = stale.model_dump_json().encode()
            self._sessions.keep(asked, query.cache, stale.answer, reply, stale.passages)
            return reply
        self._metrics.answered(run)
        stage_spans.returned(tracing.current(), run.answer)
        _show_age(request, run)
        if run.entry is not None and run.similar is None:
            reply = replies.again(run)
        else:
            reply = stale_answers.keep(self._answers, run, replies.query(run))
        self._sessions.keep(asked, query.cache, run.answer, reply, run.passages)
        return reply

    async def _checked(
        self, body: schemas.QueryRequest, request: Request, priority: str
    ) -> tuple[SessionQuery, Query, Deadline]:
        """Check a question, with the settings of its profile and the history of its session."""
        body, profile, missing = await self._with_profile(body)
        asked = await self._sessions.begin(body)
        query, deadline = checked(asked.body, priority, self._settings)
        if query.small_talk:  # no search will tell
            await self._defaults.require(query.tenant, query.collections)
        query = replace(
            query,
            further=await self._further(query),
            instructions=profile.prompt,
            generators=tuple(profile.generator),
            rewriter=profile.writes_with,
            missing=missing + ((("history", asked.lost),) if asked.lost else ()),
        )
        return asked, _with_control(query, request), deadline

    async def _with_profile(self, body: Body) -> tuple[Body, Profile, tuple[tuple[str, str], ...]]:
        """Return the body with the settings of its profile, or of its collections'; and these.

        The last value is `Query.missing`.
        """
        default = self._settings.default_collection
        own: dict[str, str] = {}
        unknown = ""
        if body.profile is None:
            tenant = caller.current().tenant
            own, unknown = await self._defaults.get(tenant, body.collections or [default])
        missing = (("profile", unknown),) if unknown else ()
        return *self._profiles.apply(body, default, own), missing

    async def _further(self, query: Query) -> tuple[str, ...]:
        if query.small_talk or query.mode == retriever_pb2.SEARCH_MODE_LEXICAL:
            return ()
        return await self._defaults.outputs(query.tenant, query.collections)

    async def stream(
        self, body: schemas.QueryRequest, request: Request, priority: str
    ) -> AsyncGenerator[sse.Event, None]:
        """Begin an answer; returns its events, those of `/v1/query`. Close them."""
        asked, query, deadline = await self._checked(body, request, priority)
        keep = partial(self._sessions.keep, asked, query.cache)
        events = _events(self._pipeline, query, deadline, self._metrics, self._answers, keep)
        return await _while_connected(request, _begun(events))


def router(answering: Answering, settings: GatewaySettings) -> APIRouter:
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
        return _sent(await answering.search(body, request, x_raglan_priority))

    @routes.post(
        "/v1/query",
        response_model=schemas.QueryReply,
        responses={200: {"content": openapi.event_stream(openapi.QUERY_EVENTS)}},
    )
    async def query(
        body: schemas.QueryRequest, request: Request, x_raglan_priority: Class = "default"
    ) -> Any:
        """Answer with citations; `stream: true` sends server-sent events."""
        if body.stream:
            begun = await answering.stream(body, request, x_raglan_priority)
            return sse.response(begun, heartbeat_s=settings.heartbeat_s)
        return _sent(await answering.answer(body, request, x_raglan_priority))

    return routes


async def _completed(pipeline: CachedPipeline, query: Query, deadline: Deadline) -> QueryState:
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
    pipeline: CachedPipeline,
    query: Query,
    deadline: Deadline,
    metrics: Metrics,
    answers: AnswerCache,
    keep: Callable[[str, bytes, Sequence[common_pb2.Passage]], None],
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
                    keep(event.run.answer, body, event.run.passages)
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
    event: Started | Searched | Sources | Thinking | Delta | Cited | Restarted,
    passages: list[schemas.Passage],
) -> sse.Event:
    match event:
        case Started(standalone_question):
            start = schemas.StreamStart(
                id=answer_id.current(),
                standalone_question=standalone_question,
                trace_id=request_context.trace_id(),
            )
            return sse.Event("start", start)
        case Searched():
            return sse.HEARTBEAT
        case Sources(run):
            passages += [replies.passage(p) for p in run.passages]
            sources = schemas.StreamSources(
                passages=passages,
                degraded=replies.degraded(run),
                collections=replies.collections(run),
            )
            return sse.Event("sources", sources)
        case Thinking(text):
            return sse.Event("thinking", schemas.StreamThinking(text=text))
        case Restarted():
            return sse.Event("restart")
        case Delta(text):
            return sse.Event("delta", schemas.StreamDelta(text=text))
        case Cited(citation, passage):
            return sse.Event("citation", replies.citation(citation, passage))


def _with_control(query: Query, request: Request) -> Query:
    """Return `query` with what the request allows the caches."""
    return replace(query, cache=control.parse(request.headers.get("cache-control", "")))


def _show_age(request: Request, run: QueryState) -> None:
    """Say in the header `Age` (RFC 9111, 5.1) how old a cached reply is."""
    # A new answer over cached passages is no cached reply.
    layer = Layer.EVIDENCE if not run.answer else Layer.SEMANTIC if run.similar else Layer.ANSWER
    if (hit := run.cached.get(layer)) is not None:
        reply_headers.add(request.scope, "age", str(int(hit.age_s)))


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
