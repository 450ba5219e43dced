"""The stage that joins passages with their neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from raglan.deadline import Deadline
from raglan.errors import Internal, RaglanError
from raglan.v1 import common_pb2, retriever_pb2

from raglan_gateway import stage_spans
from raglan_gateway.expansion.joining import joined
from raglan_gateway.expansion.planning import Wanted, choose, plan
from raglan_gateway.query import Query
from raglan_gateway.query_state import QueryState, run_stage
from raglan_gateway.stage import StageLimiter


class Services(Protocol):
    """The service that holds the neighbours."""

    async def neighbours(
        self, request: retriever_pb2.GetNeighboursRequest, *, deadline: Deadline
    ) -> retriever_pb2.GetNeighboursResponse:
        """Read chunks beside passages."""
        ...


async def expand(run: QueryState, services: Services, limiter: StageLimiter) -> None:
    """Join the passages of `run` with their neighbours; they stay as they are where that fails.

    Raises:
        DeadlineExceeded: the time of the query is up.
    """
    query = run.query
    if not query.expand_tokens:
        return
    wanted = plan(run.passages, neighbours=query.expand_neighbours)
    if not wanted:
        return
    try:
        async with run_stage(run, limiter) as limit:
            reply = await services.neighbours(_request(query, run.passages, wanted), deadline=limit)
            run.spent("expand", reply.timing)
            try:
                expanded = _expanded(query, run.passages, reply.chunks, wanted)
            except ValueError as error:
                raise Internal(f"A passage cannot be joined with others: {error}") from None
            stage_spans.expanded(run.passages, expanded)
            run.passages = expanded
    except RaglanError as error:
        run.fall_back("expand", error)


def _request(
    query: Query, passages: Sequence[common_pb2.Passage], wanted: Sequence[Wanted]
) -> retriever_pb2.GetNeighboursRequest:
    collections = list(dict.fromkeys(passages[each.rank].collection for each in wanted))
    request = retriever_pb2.GetNeighboursRequest(collections=collections, filter=query.filter)
    if query.as_of_ms is not None:
        request.as_of.FromMilliseconds(query.as_of_ms)
    for each in wanted:
        passage = passages[each.rank]
        request.around.add(
            collection=collections.index(passage.collection),
            chunk_id=passage.chunk_id,
            ordinal=passage.ordinal,
            wanted=common_pb2.ChunkRange(first=each.first, last=each.last),
        )
    return request


def _expanded(
    query: Query,
    passages: Sequence[common_pb2.Passage],
    found: Sequence[common_pb2.Passage],
    wanted: Sequence[Wanted],
) -> list[common_pb2.Passage]:
    """Return the passages joined with what was found, best first."""
    texts = choose(
        passages,
        found,
        wanted,
        tokens=query.expand_tokens,
        neighbours=query.expand_neighbours,
    )
    made = []
    for rank, pieces in enumerate(texts, start=1):
        best = passages[min(piece for piece in pieces if isinstance(piece, int))]
        chunks = [passages[piece] if isinstance(piece, int) else piece for piece in pieces]
        made.append(joined(chunks, best) if len(chunks) > 1 else best)
        made[-1].rank = rank
    return made
