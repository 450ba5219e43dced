"""Search of a question and of the texts that a model wrote for it, fused into one list."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final, Protocol

from raglan import fusion
from raglan.deadline import Deadline
from raglan.errors import RaglanError
from raglan.v1 import common_pb2, embedder_pb2, retriever_pb2

from raglan_gateway import messages
from raglan_gateway.degradation import FALLBACK
from raglan_gateway.query_state import Degradation, QueryState
from raglan_gateway.strategies.strategy import SearchText

METHOD: Final[fusion.Method] = "rrf"
"""By ranks: scores of searches for different texts have no common scale."""


class Services(Protocol):
    """The service that is searched with."""

    async def search(
        self, request: retriever_pb2.SearchRequest, *, deadline: Deadline
    ) -> retriever_pb2.SearchResponse:
        """Search the index."""
        ...


async def search(
    run: QueryState,
    embedded: embedder_pb2.EmbedResponse | None,
    candidates: int,
    services: Services,
    limit: Deadline,
) -> retriever_pb2.SearchResponse:
    """Search with the question of `run` and, at the same time, with its search texts.

    Returns:
        The reply to the question, its passages fused with those of the other searches.

    Raises:
        RaglanError: the search with the question failed; where another one fails, it is left out.
    """
    request = messages.search(run.searched, embedded, candidates)
    if not run.search_texts:
        return await services.search(request, deadline=limit)
    others = [
        asyncio.create_task(_found(run, each, candidates, services, limit))
        for each in run.search_texts
    ]
    try:
        found = await services.search(request, deadline=limit)
        outcomes = await asyncio.gather(*others)
    finally:
        for other in others:
            other.cancel()
    for outcome in outcomes:
        if isinstance(outcome, RaglanError):
            run.note(Degradation("strategy", outcome.message, FALLBACK["strategy"]))
            break
    replies = [outcome for outcome in outcomes if not isinstance(outcome, RaglanError)]
    _note_left_out(found, replies)
    lists = [list(each.passages) for each in replies]
    merged = list(fused(list(found.passages), lists, request.limit))
    del found.passages[:]
    found.passages.extend(merged)
    return found


async def _found(
    run: QueryState, other: SearchText, candidates: int, services: Services, limit: Deadline
) -> retriever_pb2.SearchResponse | RaglanError:
    query = replace(run.query, standalone=other.text, mode=other.mode)
    try:
        return await services.search(
            messages.search(query, other.embedded, candidates), deadline=limit
        )
    except RaglanError as error:
        return error


def _note_left_out(
    found: retriever_pb2.SearchResponse, others: Sequence[retriever_pb2.SearchResponse]
) -> None:
    """Count a collection as left out that any of the searches left out."""
    for other in others:
        for mine, theirs in zip(found.searched, other.searched, strict=False):
            if theirs.error and not mine.error:
                mine.error = theirs.error
                found.revisions.pop(mine.collection, None)


def fused(
    own: Sequence[common_pb2.Passage],
    others: Sequence[Sequence[common_pb2.Passage]],
    limit: int,
) -> Iterator[common_pb2.Passage]:
    """Yield the best passages of all lists, each once.

    A passage that the question itself did not find has no score but the fused one: its others say
    how near it is to a text that a model wrote, and an identifier in that may be invented.

    Args:
        own: found by the question, best first.
        others: found by other texts, each best first.
        limit: most passages.
    """
    passages: dict[tuple[str, str], common_pb2.Passage] = {}
    legs = []
    for is_own, some in ((True, own), *((False, other) for other in others)):
        hits: list[tuple[tuple[str, str], float]] = []
        for passage in some:
            key = _key(passage)
            if key not in passages:
                if not is_own:
                    passage.exact = False
                    passage.scores.ClearField("dense")
                    passage.scores.ClearField("lexical")
                passages[key] = passage
            hits.append((key, -float(len(hits))))
        # The question counts as much as all other texts together: those may all be wrong.
        legs.append(fusion.Leg(hits, weight=len(others) if is_own else 1))
    for key, score in fusion.fuse(legs, METHOD)[:limit]:
        passages[key].scores.fused = score
        yield passages[key]


def _key(passage: common_pb2.Passage) -> tuple[str, str]:
    """Copies of a text below the same heading are the same, as in one search."""
    heading = passage.heading_path[-1] if passage.heading_path else ""
    return " ".join(passage.text.casefold().split()), heading.casefold()
