"""The lowest rung: no retriever answers, but the same question was answered a short while ago."""

from __future__ import annotations

from typing import TypeVar

from raglan.errors import RaglanError
from raglan.telemetry import context as request_context
from raglan.telemetry import tracing

from raglan_gateway import stage_spans
from raglan_gateway.api import schemas, sse
from raglan_gateway.ladder import FALLBACK
from raglan_gateway.metrics import Metrics
from raglan_gateway.pipeline import RECOVERABLE
from raglan_gateway.shared.answer_cache import AnswerCache, Place

Reply = TypeVar("Reply", schemas.SearchReply, schemas.QueryReply)
_STAGE = "retrieve"


async def search(
    answers: AnswerCache, place: Place, error: RaglanError, metrics: Metrics
) -> schemas.SearchReply:
    """The reply kept for a search that failed with `error`; raises `error` where there is none."""
    return await _kept(schemas.SearchReply, answers, place, error, metrics)


async def query(
    answers: AnswerCache, place: Place, error: RaglanError, metrics: Metrics
) -> schemas.QueryReply:
    """The same for a question."""
    reply = await _kept(schemas.QueryReply, answers, place, error, metrics)
    return reply.model_copy(update={"id": request_context.request_id()})


async def events(
    answers: AnswerCache, place: Place, error: RaglanError, metrics: Metrics
) -> list[sse.Event]:
    """What ends a stream that failed with `error` after `start`: a kept answer, or the error."""
    try:
        reply = await query(answers, place, error, metrics)
    except RaglanError as none:
        return [sse.problem(none)]
    sources = schemas.StreamSources(passages=reply.passages, degraded=reply.degraded)
    return [
        sse.Event("sources", sources),
        sse.Event("delta", schemas.StreamDelta(text=reply.answer)),
        *(sse.Event("citation", citation) for citation in reply.citations),
        sse.Event("final", reply),
        sse.Event("done"),
    ]


async def _kept(
    shape: type[Reply], answers: AnswerCache, place: Place, error: RaglanError, metrics: Metrics
) -> Reply:
    if error.stage != _STAGE or not isinstance(error, RECOVERABLE):
        metrics.failed(error)
        raise error
    kept = await answers.get(place)
    metrics.given_again(found=kept is not None)
    tracing.looked_up("kept_answers", hits=int(kept is not None), misses=int(kept is None))
    if kept is None:
        metrics.failed(error)
        raise error
    reason = f"{error.message} This is an answer of {kept.age_s:.0f} s ago."
    stage_spans.fell_back(_STAGE, reason, FALLBACK[_STAGE])
    degraded = schemas.Degraded(stage=_STAGE, reason=reason, fallback=FALLBACK[_STAGE])
    return shape.model_validate_json(kept.body).model_copy(
        update={"degraded": [degraded], "trace_id": request_context.trace_id()}
    )
