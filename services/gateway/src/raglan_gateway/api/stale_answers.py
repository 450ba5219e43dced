"""Fallback for retrieval: a reply that the same question got a short while ago."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from raglan.errors import RaglanError
from raglan.telemetry import context as request_context
from raglan.telemetry import tracing

from raglan_gateway import answer_id, stage_spans
from raglan_gateway.api import schemas, sse
from raglan_gateway.degradation import FALLBACK, RECOVERABLE
from raglan_gateway.metrics import Metrics
from raglan_gateway.query import Query
from raglan_gateway.query_state import QueryState
from raglan_gateway.shared.answer_cache import AnswerCache

Reply = TypeVar("Reply", schemas.SearchReply, schemas.QueryReply)
_STAGE = "retrieve"
_PROFILE = "profile"


def keep(
    answers: AnswerCache, run: QueryState, reply: schemas.SearchReply | schemas.QueryReply
) -> bytes:
    """Keep the reply of `run`, unless it is degraded, cached already, or not to be stored.

    Returns:
        The reply as JSON.
    """
    body = reply.model_dump_json().encode()
    answers.learn(run.revisions)
    if not reply.degraded and run.query.cache.stores and run.entry is None:
        answers.put(run.query, type(reply).__name__, run.revisions, body)
    return body


async def search(
    answers: AnswerCache, asked: Query, error: RaglanError, metrics: Metrics
) -> schemas.SearchReply:
    """Return the reply kept for a search that failed with `error`.

    Raises:
        RaglanError: `error`, where none is kept.
    """
    return await _kept(schemas.SearchReply, answers, asked, error, metrics)


async def query(
    answers: AnswerCache, asked: Query, error: RaglanError, metrics: Metrics
) -> schemas.QueryReply:
    """Return the reply kept for a question that failed with `error`.

    Raises:
        RaglanError: `error`, where none is kept.
    """
    reply = await _kept(schemas.QueryReply, answers, asked, error, metrics)
    return reply.model_copy(update={"id": answer_id.current()})


async def events(
    answers: AnswerCache, asked: Query, error: RaglanError, metrics: Metrics
) -> list[sse.Event]:
    """Last events of a stream that failed after `start`: a stale answer, or `error`."""
    try:
        reply = await query(answers, asked, error, metrics)
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
    shape: type[Reply], answers: AnswerCache, asked: Query, error: RaglanError, metrics: Metrics
) -> Reply:
    if error.stage != _STAGE or not isinstance(error, RECOVERABLE):
        metrics.failed(error)
        raise error
    # The profile comes from what is away; its own settings are not in the query then.
    lost: list[str] = [why for stage, why in asked.missing if stage == _PROFILE]
    others = tuple(each for each in asked.missing if each[0] != _PROFILE)
    stale = await answers.get(replace(asked, missing=others), shape.__name__)
    metrics.record_stale_lookup(found=stale is not None)
    tracing.looked_up("kept_answers", hits=int(stale is not None), misses=int(stale is None))
    if stale is None:
        metrics.failed(error)
        raise error
    reason = f"{error.message} This is an answer of {stale.age_s:.0f} s ago."
    stage_spans.fell_back(_STAGE, reason, FALLBACK[_STAGE])
    degraded = [*(_degraded(_PROFILE, why) for why in lost), _degraded(_STAGE, reason)]
    return shape.model_validate_json(stale.body).model_copy(
        update={"degraded": degraded, "trace_id": request_context.trace_id()}
    )


def _degraded(stage: str, reason: str) -> schemas.Degraded:
    return schemas.Degraded(stage=stage, reason=reason, fallback=FALLBACK[stage])
