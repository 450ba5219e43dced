"""The strategy stage: a model writes search texts, and the embedder makes their vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from raglan.deadline import Deadline
from raglan.errors import Cancelled, RaglanError, Unavailable
from raglan.telemetry import semconv, tracing
from raglan.v1 import embedder_pb2, generator_pb2, retriever_pb2

from raglan_gateway import messages
from raglan_gateway.query import Query
from raglan_gateway.query_state import QueryState, run_stage
from raglan_gateway.stage import StageLimiter
from raglan_gateway.strategies.strategy import KINDS, SearchText, Strategy


class Services(Protocol):
    """The services that the stage calls."""

    async def rewrite(
        self, request: generator_pb2.RewriteRequest, *, generator: str, deadline: Deadline
    ) -> generator_pb2.RewriteResponse:
        """Have the model of a generator write search texts."""
        ...

    async def embed(
        self,
        texts: Sequence[str],
        kind: embedder_pb2.InputKind.ValueType,
        *,
        deadline: Deadline,
        further: Sequence[str] = (),
    ) -> embedder_pb2.EmbedResponse:
        """Embed texts; vectors of shape (len(texts), dim)."""
        ...


async def write_search_texts(
    run: QueryState, strategy: Strategy, services: Services, limiter: StageLimiter
) -> None:
    """Add the search texts of `strategy` to `run`; without them the question goes on alone.

    Raises:
        DeadlineExceeded: the deadline of the query passed.
    """
    query = run.query
    if strategy is Strategy.NONE or (strategy is Strategy.CONDENSE and not query.history):
        return
    try:
        async with run_stage(run, limiter) as limit:
            tracing.current().set_attribute(semconv.STRATEGY, strategy.value)
            reply = await services.rewrite(
                _request(query, strategy), generator=query.rewriter, deadline=limit
            )
            run.strategy.spent(reply.usage)
            run.spent("strategy", reply.timing)
            texts = _new_texts(query, strategy, reply.texts)
            run.search_texts += await _embedded(query, strategy, texts, services, limit)
            tracing.current().set_attribute(semconv.STRATEGY_TEXTS, len(texts))
    except Cancelled:
        raise
    except RaglanError as error:
        # Whatever it is, the question itself can be searched.
        run.fall_back("strategy", error)
        return
    run.strategy.name = strategy
    run.strategy.texts += tuple(texts)
    if strategy is Strategy.CONDENSE and texts:
        run.strategy.standalone = texts[0]
        run.asked = replace(run.asked, standalone=texts[0])


def _request(query: Query, strategy: Strategy) -> generator_pb2.RewriteRequest:
    return generator_pb2.RewriteRequest(
        kind=KINDS[strategy],
        question=query.text,
        history=query.history,
        count=query.query_count,
        tenant=query.tenant,
    )


def _new_texts(query: Query, strategy: Strategy, texts: Sequence[str]) -> list[str]:
    """Return the texts that say something else than the question.

    Raises:
        Unavailable: none does; a question that stands alone may stay as it is.
    """
    known = {query.line.casefold()}
    found = []
    for text in texts[: query.query_count]:
        if text.casefold() not in known:
            known.add(text.casefold())
            found.append(text)
    if not found and strategy is not Strategy.CONDENSE:
        raise Unavailable("The model repeated the question.")
    return found


async def _embedded(
    query: Query, strategy: Strategy, texts: Sequence[str], services: Services, limit: Deadline
) -> list[SearchText]:
    if not texts:
        return []
    lexical = retriever_pb2.SEARCH_MODE_LEXICAL
    if query.mode == lexical:
        return [SearchText(text, lexical, None) for text in texts]
    is_passage = strategy is Strategy.HYDE
    kind = embedder_pb2.INPUT_KIND_PASSAGE if is_passage else embedder_pb2.INPUT_KIND_QUERY
    # The words of an invented passage would be searched as if they were the user's.
    mode = retriever_pb2.SEARCH_MODE_DENSE if is_passage else query.mode
    reply = await services.embed(texts, kind, deadline=limit, further=query.further)
    return [
        SearchText(text, mode, alone)
        for text, alone in zip(texts, messages.each_embedded(reply), strict=True)
    ]
