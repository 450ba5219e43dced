"""The null engine behind the real server and queue: no model file."""

from __future__ import annotations

import pytest
from raglan.deadline import Deadline
from raglan.rpc import client
from raglan.v1 import common_pb2, reranker_pb2

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def order(stub, scores: list[float]) -> list[int]:
    """Indices as reranked, of candidates that retrieval scored so."""
    request = reranker_pb2.RerankRequest(
        query="Why?",
        candidates=[
            reranker_pb2.Candidate(text="always the same", retrieval_score=score)
            for score in scores
        ],
    )
    reply = await client.call(stub.Rerank, request, deadline=Deadline.after(10))
    blended = [each.score for each in reply.ranked]
    assert blended == sorted(blended, reverse=True)
    assert len(set(blended)) == len(blended)
    return [each.index for each in reply.ranked]


async def test_the_order_of_retrieval_stays_whatever_its_scores(serve):
    stub = await serve(engine="null", model="no/such-model")
    for scores in ([0.5] * 20, [1 - place / 20 for place in range(20)], [3.0], [1e9, 1, -1e9]):
        assert await order(stub, scores) == list(range(len(scores)))


async def test_it_says_what_it_is(serve):
    stub = await serve(engine="null")
    info = await client.call(stub.GetInfo, common_pb2.GetInfoRequest(), deadline=Deadline.after(5))
    assert (info.engine, info.model.id) == ("null", "null")
    assert info.limits["max_scored"] == 20
