"""Bodies of requests against the limits of the settings: a query and its deadline."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from raglan.deadline import Deadline
from raglan.errors import InvalidInput
from raglan.resilience.limiter import Priority
from raglan.telemetry import semconv, tracing
from raglan.v1 import generator_pb2, retriever_pb2

from raglan_gateway import caller
from raglan_gateway.access.collections import require
from raglan_gateway.api import filters, schemas
from raglan_gateway.api.preference_schemas import preferences
from raglan_gateway.api.version_schemas import milliseconds
from raglan_gateway.conversation.standalone import standalone_question
from raglan_gateway.query import Query
from raglan_gateway.settings import GatewaySettings
from raglan_gateway.strategies.strategy import SecondTry, Strategy
from raglan_gateway.understanding.cleaning import clean
from raglan_gateway.understanding.small_talk import reply_to

_MODES: Final = {
    "hybrid": retriever_pb2.SEARCH_MODE_HYBRID,
    "dense": retriever_pb2.SEARCH_MODE_DENSE,
    "lexical": retriever_pb2.SEARCH_MODE_LEXICAL,
}
_ROLES: Final = {"user": generator_pb2.ROLE_USER, "assistant": generator_pb2.ROLE_ASSISTANT}


def checked(
    body: schemas.SearchRequest, priority: str, settings: GatewaySettings
) -> tuple[Query, Deadline]:
    """Check a request against the limits that settings hold; every API's questions pass here.

    Returns:
        The query, and its deadline, which is the current one from then on.

    Raises:
        InvalidInput: a limit is exceeded; the message names it.
    """
    _check_limits(body, settings)
    collections = body.collections or [settings.default_collection]
    require(collections)  # an answer from memory passes no other place
    asked = body if isinstance(body, schemas.QueryRequest) else None
    text = clean(body.query)
    if not text:
        raise InvalidInput(
            "query holds only control characters and invisible ones. Send the question as text."
        )
    history = _history(asked.history, settings) if asked else ()
    small_talk = reply_to(text) if asked and settings.small_talk and not asked.json_schema else ""
    standalone = text if small_talk else standalone_question(text, history)
    query = Query(
        text=text,
        standalone="" if standalone == text else standalone,
        small_talk=small_talk,
        collections=tuple(dict.fromkeys(collections)),
        top_k=body.top_k,
        strategy=Strategy(body.strategy),
        query_count=body.query_count,
        second_try=SecondTry(asked.second_try) if asked else SecondTry.NONE,
        second_try_below=asked.second_try_below if asked else 0.0,
        mode=_MODES[body.mode],
        rerank=body.rerank,
        min_score=body.min_score,
        boosts=preferences(body.boosts),
        diversity=body.diversity,
        expand_tokens=settings.section_tokens if body.expand_tokens is None else body.expand_tokens,
        expand_neighbours=body.expand_tokens is not None,
        filter=filters.to_proto(body.filter) if body.filter else None,
        as_of_ms=milliseconds(body.as_of),
        tenant=caller.current().tenant,
        access=caller.current().access,
        max_tokens=(asked.max_tokens or 0) if asked else 0,
        stream=asked.stream if asked else False,
        history=history,
        sampling=_sampling(asked) if asked else None,
        json_schema=json.dumps(asked.json_schema) if asked and asked.json_schema else "",
        # The higher number goes later.
        priority=max(Priority[priority.upper()], Priority[settings.highest_priority.upper()]),
    )
    timeout_ms = _timeout_ms(body, settings)
    deadline = Deadline.after(timeout_ms / 1e3)
    deadline.adopt()
    span = tracing.current()
    span.set_attributes({semconv.DEADLINE_REMAINING_MS: timeout_ms, semconv.MODE: body.mode})
    if (content := tracing.content(query.text)) is not None:
        span.set_attribute(semconv.INPUT, content)
    return query, deadline


def _check_limits(body: schemas.SearchRequest, settings: GatewaySettings) -> None:
    """Check the numbers of a request.

    Raises:
        InvalidInput: one is above its limit.
    """
    if len(body.query) > settings.max_query_chars:
        raise InvalidInput(
            f"query has {len(body.query)} characters; the limit is {settings.max_query_chars} "
            "(RAGLAN_GATEWAY_MAX_QUERY_CHARS)."
        )
    for name, value, limit in (
        ("top_k", body.top_k, settings.max_top_k),
        ("expand_tokens", body.expand_tokens or 0, settings.max_expand_tokens),
        ("timeout_ms", _timeout_ms(body, settings), settings.max_timeout_ms),
    ):
        if value > limit:
            raise InvalidInput(
                f"{name} is {value}; the limit is {limit} (RAGLAN_GATEWAY_MAX_{name.upper()})."
            )


def _timeout_ms(body: schemas.SearchRequest, settings: GatewaySettings) -> int:
    return body.timeout_ms or settings.default_timeout_ms


def _history(
    turns: Sequence[schemas.Turn], settings: GatewaySettings
) -> tuple[generator_pb2.Turn, ...]:
    """Turns within the limits of the settings.

    Raises:
        InvalidInput: there are too many, or they are too long together.
    """
    if len(turns) > settings.max_history_turns:
        raise InvalidInput(
            f"history has {len(turns)} turns; the limit is {settings.max_history_turns} "
            "(RAGLAN_GATEWAY_MAX_HISTORY_TURNS). Send the latest ones."
        )
    chars = sum(len(turn.text) for turn in turns)
    if chars > settings.max_history_chars:
        raise InvalidInput(
            f"history has {chars} characters; the limit is {settings.max_history_chars} "
            "(RAGLAN_GATEWAY_MAX_HISTORY_CHARS). Send the latest turns."
        )
    return tuple(generator_pb2.Turn(role=_ROLES[turn.role], text=turn.text) for turn in turns)


def _sampling(body: schemas.QueryRequest) -> generator_pb2.Sampling | None:
    """Sampling as asked for; None where all of it is the model's own."""
    sampling = generator_pb2.Sampling(
        temperature=body.temperature, top_p=body.top_p, seed=body.seed, stop=body.stop
    )
    return sampling if sampling.ByteSize() else None
