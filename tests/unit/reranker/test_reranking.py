"""Order, budget and refusals, with an engine that scores by word overlap in no time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from raglan.deadline import Deadline
from raglan.encoders.queue import Timing
from raglan.errors import InvalidInput, PayloadTooLarge
from raglan_reranker.engines import Prepared
from raglan_reranker.latency import LatencyModel
from raglan_reranker.reranking import Candidate, Limits, Reranker

LIMITS = Limits(candidates=50, chars=1000, scored=20, tokens=100, margin_s=0.01)


class Overlap:
    """A token is a word; the score, the share of the query's words in the passage."""

    name, device, dtype, dimension = "overlap", "cpu", "f32", 0

    def prepare(self, query: str, passages: Sequence[str]) -> Prepared:
        words = [text.split() for text in passages]
        return Prepared(query.split(), words, len(query.split()), [len(each) for each in words])

    async def score(
        self, prepared: Prepared, count: int, *, deadline: Deadline
    ) -> tuple[NDArray[np.float64], Timing]:
        await asyncio.sleep(0)
        query = set(prepared.query)
        shares = [len(query & set(words)) / len(query) for words in prepared.passages[:count]]
        return np.array(shares), Timing(1, 2, count, 100)

    async def close(self) -> None:
        return None


def reranker(*, share: float = 0.5, seconds_per_token: float = 1e-6, **limits: Any) -> Reranker:
    chosen = Limits(**{name: getattr(LIMITS, name) for name in Limits.__slots__} | limits)
    latency = LatencyModel(seconds_per_token=seconds_per_token, overhead_s=0.0)
    return Reranker(Overlap(), limits=chosen, share=share, latency=latency)


async def order(reranker: Reranker, texts: Sequence[str], *, within_s: float = 5) -> list[int]:
    candidates = [Candidate(text, -float(rank)) for rank, text in enumerate(texts)]
    try:
        deadline = Deadline.after(within_s)
        return [
            r.index for r in (await reranker.rerank("a b c", candidates, deadline=deadline)).ranked
        ]
    finally:
        await reranker.close()


async def test_the_models_own_order_is_taken_at_a_share_of_one() -> None:
    assert await order(reranker(share=1), ["x", "a", "a b c", "a b"]) == [2, 3, 1, 0]


async def test_retrievals_order_is_kept_at_a_share_of_nothing() -> None:
    assert await order(reranker(share=0), ["x", "a", "a b c", "a b"]) == [0, 1, 2, 3]


async def test_ties_keep_the_order_of_retrieval() -> None:
    assert await order(reranker(share=1), ["a", "b", "c"]) == [0, 1, 2]


async def test_a_single_candidate_is_ranked() -> None:
    assert await order(reranker(), ["a"]) == [0]


async def test_candidates_past_the_token_budget_are_missing() -> None:
    assert await order(reranker(share=1, tokens=8), ["x x", "a b c", "a b c"]) == [1, 0]


async def test_candidates_past_the_count_are_missing() -> None:
    assert sorted(await order(reranker(scored=2), ["x", "a", "a b c"])) == [0, 1]


async def test_candidates_that_the_deadline_does_not_leave_time_for_are_missing() -> None:
    # 100 ms a word: the query's 3 and 2 of the passages take 0.5 s of the 0.56 that may be planned.
    slow = reranker(seconds_per_token=0.1)
    assert sorted(await order(slow, ["a", "b", "c", "d", "e"], within_s=0.85)) == [0, 1]


async def test_without_time_for_any_nothing_is_ranked() -> None:
    assert await order(reranker(seconds_per_token=1.0), ["a", "b"], within_s=0.5) == []


@pytest.mark.parametrize(
    ("query", "candidates", "error", "message"),
    [
        ("", [Candidate("x", 0)], InvalidInput, "query is empty"),
        (" \n", [Candidate("x", 0)], InvalidInput, "query is empty or white space"),
        ("q" * 1001, [Candidate("x", 0)], PayloadTooLarge, "query holds 1001 .* limit is 1000"),
        ("q", [], InvalidInput, "candidates is empty"),
        ("q", [Candidate("x", 0)] * 51, InvalidInput, "holds 51; the limit is 50"),
        ("q", [Candidate("x" * 1001, 0)], PayloadTooLarge, r"candidates\[0\].text holds 1001"),
        ("q", [Candidate("x", float("nan"))], InvalidInput, r"candidates\[0\].* is nan"),
        ("q", [Candidate("x", float("inf"))], InvalidInput, r"candidates\[0\].* is inf"),
    ],
)
async def test_bad_input_is_refused_with_the_limit_named(
    query: str, candidates: list[Candidate], error: type[InvalidInput], message: str
) -> None:
    subject = reranker()
    with pytest.raises(error, match=message):
        await subject.rerank(query, candidates, deadline=Deadline.after(5))
    await subject.close()


async def test_an_empty_passage_is_ranked_like_any_other() -> None:
    assert await order(reranker(share=1), ["", "a"]) == [1, 0]
