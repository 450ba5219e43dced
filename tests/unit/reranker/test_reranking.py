"""Order, budget and refusals, with an engine that scores by word overlap in no time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from raglan import tenancy
from raglan.cache import Cache
from raglan.deadline import Deadline
from raglan.errors import Internal, InvalidInput, Overloaded, PayloadTooLarge
from raglan.scheduling import Timing
from raglan_reranker.calibration import LOG_ODDS, Calibration
from raglan_reranker.engines import Prepared, Scored
from raglan_reranker.reranking import Candidate, Limits, Pair, Ranked, Reranker

LIMITS = Limits(candidates=50, chars=1000, scored=20, tokens=100)


class Overlap:
    """A token is a word; the score, the share of the query's words in the passage.

    The word "poison" makes it fail, "strange" gives a score that is no number.
    """

    name, device, dtype, dimension = "overlap", "cpu", "f32", 0

    def __init__(self) -> None:
        self.scored: list[str] = []
        self.credit = 1.0
        self.fit = 1_000
        self.busy = False

    def fitting(self, prepared: Prepared, *, deadline: Deadline) -> int:
        return min(self.fit, len(prepared.passages))

    def prepare(self, query: str, passages: Sequence[str]) -> Prepared:
        words = [text.split() for text in passages]
        lengths = [len(each) for each in words]
        return Prepared(query.split(), words, len(query.split()), lengths, credit=self.credit)

    async def score(self, prepared: Prepared, count: int, *, deadline: Deadline) -> Scored:
        await asyncio.sleep(0)
        if self.busy:
            raise Overloaded("The work ahead would outlast the deadline.", retry_after_s=1)
        query = set(prepared.query)
        texts = [" ".join(words) for words in prepared.passages[:count]]
        self.scored += texts
        if "poison" in texts:
            raise Internal("The model failed on a batch.")
        shares = [len(query & set(words)) / len(query) for words in prepared.passages[:count]]
        shares = [np.nan if text == "strange" else n for n, text in zip(shares, texts, strict=True)]
        matches = [[len(text)] for text in texts]
        return Scored(np.array(shares), Timing(1, 2, count, 100), matches)

    async def close(self) -> None:
        return None


def reranker(
    *,
    share: float = 0.5,
    fit: int = 1_000,
    pairs: Cache[Pair] | None = None,
    identity: Sequence[str] = ("overlap", "1", "f32"),
    calibration: Calibration | None = None,
    is_absolute: bool = False,
    **limits: Any,
) -> Reranker:
    chosen = Limits(**{name: getattr(LIMITS, name) for name in Limits.__slots__} | limits)
    engine = Overlap()
    engine.fit = fit
    return Reranker(
        engine,
        limits=chosen,
        share=share,
        pairs=pairs,
        identity=identity,
        calibration=calibration,
        is_absolute=is_absolute,
    )


async def ask(reranker: Reranker, texts: Sequence[str], *, query: str = "a b c") -> list[Ranked]:
    """What is ranked of `texts`, which retrieval scored 0, -1, -2 and so on."""
    candidates = [Candidate(text, -float(rank)) for rank, text in enumerate(texts)]
    deadline = Deadline.after(5)
    return (await reranker.rerank(query, candidates, deadline=deadline)).ranked


async def order(reranker: Reranker, texts: Sequence[str]) -> list[int]:
    try:
        return [each.index for each in await ask(reranker, texts)]
    finally:
        await reranker.close()


def scored(reranker: Reranker) -> list[str]:
    """Every passage that went through the model, in order."""
    engine = reranker.engine
    assert isinstance(engine, Overlap)
    return engine.scored


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
    assert sorted(await order(reranker(fit=2), ["a", "b", "c", "d", "e"])) == [0, 1]


async def test_without_time_by_the_estimate_the_first_is_tried() -> None:
    assert await order(reranker(fit=0), ["a", "b"]) == [0]


async def test_a_call_that_scores_nothing_fails() -> None:
    subject = reranker(fit=0)
    cast(Overlap, subject.engine).busy = True
    with pytest.raises(Overloaded):
        await ask(subject, ["a", "b"])
    await subject.close()


async def test_a_first_candidate_beyond_the_token_budget_is_scored() -> None:
    assert await order(reranker(tokens=2), ["a b c d", "a"]) == [0]


@pytest.mark.parametrize(
    ("query", "candidates", "error", "message"),
    [
        ("", [Candidate("x", 0)], InvalidInput, "query is empty"),
        (" \n", [Candidate("x", 0)], InvalidInput, "query is empty or white space"),
        ("q" * 1001, [Candidate("x", 0)], PayloadTooLarge, "query holds 1001 .* limit is 1000"),
        ("q", [], InvalidInput, "candidates is empty"),
        ("q", [Candidate("x", 0)] * 51, InvalidInput, "holds 51; the limit is 50"),
        ("q", [Candidate("x", 0)] * 10_000, InvalidInput, "holds 10000; the limit is 50"),
        ("q", [Candidate("x" * 1_000_000, 0)], PayloadTooLarge, "1000000 characters; the limit"),
        ("q", [Candidate("x" * 1001, 0)], PayloadTooLarge, r"candidates\[0\].text holds 1001"),
        ("q", [Candidate("x", float("nan"))], InvalidInput, r"candidates\[0\].* is nan"),
        ("q", [Candidate("x", float("inf"))], InvalidInput, r"candidates\[0\].* is inf"),
        ("q", [Candidate("x", float("-inf"))], InvalidInput, r"candidates\[0\].* is -inf"),
    ],
)
async def test_bad_input_is_refused_with_the_limit_named(
    query: str, candidates: list[Candidate], error: type[InvalidInput], message: str
) -> None:
    subject = reranker()
    with pytest.raises(error, match=message):
        await subject.rerank(query, candidates, deadline=Deadline.after(5))
    assert scored(subject) == []
    assert await order(subject, ["and it serves on"]) == [0]


async def test_an_empty_passage_is_ranked_like_any_other() -> None:
    assert await order(reranker(share=1), ["", "a"]) == [1, 0]


async def test_candidates_far_below_the_best_are_missing() -> None:
    subject = reranker(share=1, gap=1.0)
    texts, scores = ["x", "a b", "y", "a b c"], [9.0, 8.9, 8.8, 0.0]
    candidates = [Candidate(*each) for each in zip(texts, scores, strict=True)]
    ranking = await subject.rerank("a b c", candidates, deadline=Deadline.after(5))
    assert [each.index for each in ranking.ranked] == [1, 0, 2]
    await subject.close()


@given(
    st.lists(st.tuples(st.sampled_from("abxy"), st.integers(0, 50)), min_size=1, max_size=30),
    st.floats(0, 4),
    st.integers(1, 30),
    st.integers(0, 40),
)
async def test_what_is_ranked_is_what_retrieval_had_first(
    found: list[tuple[str, int]], gap: float, count: int, tokens: int
) -> None:
    subject = reranker(gap=gap, scored=count, tokens=tokens)
    candidates = [Candidate(text, -score) for text, score in sorted(found, key=lambda f: f[1])]
    ranking = await subject.rerank("a b", candidates, deadline=Deadline.after(5))
    ranked = sorted(each.index for each in ranking.ranked)
    assert ranked == list(range(len(ranked)))
    await subject.close()


async def test_a_question_asked_again_is_answered_without_the_model() -> None:
    subject = reranker(pairs=Cache(100))
    first = await ask(subject, ["x", "a b", "a"])
    again = await ask(subject, ["x", "a b", "a"])
    assert again == first
    assert scored(subject) == ["x", "a b", "a"]
    assert (subject.pairs.hits, subject.pairs.misses) == (3, 3)
    await subject.close()


async def test_of_overlapping_candidates_only_the_new_are_scored() -> None:
    subject = reranker(pairs=Cache(100))
    await ask(subject, ["x", "a b"])
    await ask(subject, ["a b", "a", "x"])
    assert scored(subject) == ["x", "a b", "a"]
    await subject.close()


async def test_another_question_is_scored_anew() -> None:
    subject = reranker(pairs=Cache(100))
    await ask(subject, ["a"], query="a b")
    await ask(subject, ["a"], query="a c")
    assert scored(subject) == ["a", "a"]
    await subject.close()


async def test_what_another_tenant_asked_is_scored_anew() -> None:
    subject = reranker(pairs=Cache(100))
    for tenant in ("acme", "beta", "acme"):
        with tenancy.serving(tenant):
            await ask(subject, ["a"])
    assert scored(subject) == ["a", "a"]
    await subject.close()


async def test_what_another_model_scored_is_scored_anew() -> None:
    pairs: Cache[Pair] = Cache(100)
    for revision in ("1", "2"):
        subject = reranker(pairs=pairs, identity=("overlap", revision, "f32"))
        await ask(subject, ["a"])
        assert scored(subject) == ["a"]
        await subject.close()


passages = st.lists(st.sampled_from(["a", "a b", "x y z", "a b c", "b", "x"]), max_size=6)


@given(st.lists(passages, max_size=4), passages.filter(len), st.integers(0, 4))
async def test_the_order_never_depends_on_what_is_cached(
    asked_before: list[list[str]], texts: list[str], capacity: int
) -> None:
    fresh, used = (reranker(pairs=Cache(capacity), tokens=10) for _ in range(2))
    for earlier in asked_before:
        if earlier:
            await ask(used, earlier)
    assert await ask(used, texts) == await ask(fresh, texts)
    await fresh.close()
    await used.close()


async def test_what_is_known_is_ranked_even_when_there_is_no_time() -> None:
    subject = reranker(pairs=Cache(100))
    await ask(subject, ["a", "b"])
    cast(Overlap, subject.engine).fit = 0
    assert [each.index for each in await ask(subject, ["a", "b", "c"])] == [0, 1]
    await subject.close()


@pytest.mark.parametrize("bad", ["poison", "strange"])
async def test_a_failed_batch_fails_its_caller_and_leaves_nothing_behind(bad: str) -> None:
    subject = reranker(pairs=Cache(100))
    with pytest.raises(Internal):
        await ask(subject, ["a", bad])
    assert len(subject.pairs) == 0
    assert await order(subject, ["a", "a b"]) == [0, 1]


async def test_a_calibrated_score_depends_on_the_pair_alone() -> None:
    subject = reranker(calibration=LOG_ODDS)
    alone = await ask(subject, ["a b x"])
    among = await ask(subject, ["c", "a b x", "a b c", "x"])
    assert next(each for each in among if each.index == 1).calibrated == alone[0].calibrated
    await subject.close()


async def test_texts_that_the_model_cannot_read_are_not_scored() -> None:
    subject = reranker(calibration=LOG_ODDS)
    engine = cast(Overlap, subject.engine)
    engine.credit = 0.0
    candidates = [Candidate("x", 0.0), Candidate("a b c", -1.0)]
    ranking = await subject.rerank("a b c", candidates, deadline=Deadline.after(5))
    assert (ranking.ranked, ranking.unreadable) == ([], True)
    assert engine.scored == []
    await subject.close()


@pytest.mark.parametrize(("credit", "expected"), [(1.0, [1, 0]), (0.2, [0, 1])])
async def test_a_model_that_reads_little_moves_little(credit: float, expected: list[int]) -> None:
    subject = reranker(share=0.6)
    cast(Overlap, subject.engine).credit = credit
    assert await order(subject, ["x", "a b c"]) == expected
    await subject.close()


async def test_a_calibrated_model_gives_probabilities_and_another_gives_none() -> None:
    known, unknown = reranker(calibration=LOG_ODDS), reranker()
    assert [each.calibrated for each in await ask(known, ["x"])] == [0.5]
    assert [each.calibrated for each in await ask(unknown, ["x"])] == [None]
    await known.close()
    await unknown.close()


async def test_scores_that_say_something_by_themselves_are_not_levelled() -> None:
    """A call of one passage: +9 and -9 are not one score where the model gives log odds."""
    subject = reranker(calibration=Calibration(0.0, 9.0), is_absolute=True, share=1)
    good, bad = await ask(subject, ["a b c"]), await ask(subject, ["x"])
    assert good[0].score > bad[0].score
    await subject.close()
