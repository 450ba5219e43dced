"""Search texts of a model, and second tries, over services that behave as told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from raglan import tensors
from raglan.deadline import Deadline
from raglan.errors import (
    DeadlineExceeded,
    Internal,
    InvalidInput,
    NotFound,
    NotSupported,
    RaglanError,
    Unavailable,
)
from raglan.v1 import (
    common_pb2,
    embedder_pb2,
    generator_pb2,
    ingester_pb2,
    reranker_pb2,
    retriever_pb2,
)
from raglan_gateway.api.query import _begun, _events
from raglan_gateway.metrics import Metrics
from raglan_gateway.pipeline import Answered, Budgets, Event, Pipeline, Sources, Started
from raglan_gateway.query import Query
from raglan_gateway.query_state import QueryState
from raglan_gateway.shared.answer_cache import AnswerCache
from raglan_gateway.strategies import outcomes
from raglan_gateway.strategies.strategy import Outcome, SecondTry, Strategy

MODEL = common_pb2.ModelIdentity(id="m", revision="1", dimension=2)
QUESTION = "what is it?"
HISTORY = (generator_pb2.Turn(role=generator_pb2.ROLE_USER, text="Tell me of hatch."),)
PLAIN = ["a", "b", "c"]
PASSAGE = embedder_pb2.INPUT_KIND_PASSAGE


@dataclass
class Answer:
    """What the generator says to one question."""

    confidence: float = 0.9
    abstains: bool = False


@dataclass
class FakeMesh:
    """Passages by the text that is searched; the last answer is repeated."""

    texts: tuple[str, ...] = ()
    rewrite_error: RaglanError | None = None
    rewrite_s: float = 0.0
    embed_error: RaglanError | None = None
    found: dict[str, list[str]] = field(default_factory=dict)
    failing: frozenset[str] = frozenset()
    answers: list[Answer] = field(default_factory=lambda: [Answer()])
    rewritten: list[generator_pb2.RewriteRequest] = field(default_factory=list)
    rewriters: list[str] = field(default_factory=list)
    embedded: list[tuple[list[str], int]] = field(default_factory=list)
    searched: list[retriever_pb2.SearchRequest] = field(default_factory=list)
    reranked: list[reranker_pb2.RerankRequest] = field(default_factory=list)
    generated: list[generator_pb2.GenerateRequest] = field(default_factory=list)

    async def rewrite(
        self, request: generator_pb2.RewriteRequest, *, generator: str, deadline: Deadline
    ) -> generator_pb2.RewriteResponse:
        self.rewritten.append(request)
        self.rewriters.append(generator)
        try:
            async with asyncio.timeout(deadline.remaining_s()):
                await asyncio.sleep(self.rewrite_s)
        except TimeoutError:
            raise DeadlineExceeded("The generator did not answer in time.") from None
        if self.rewrite_error:
            raise self.rewrite_error
        usage = generator_pb2.Usage(prompt_tokens=50, completion_tokens=5)
        return generator_pb2.RewriteResponse(texts=self.texts, usage=usage, model="small")

    async def embed(
        self,
        texts: Sequence[str],
        kind: embedder_pb2.InputKind.ValueType,
        *,
        deadline: Deadline,
        further: Sequence[str] = (),
    ) -> embedder_pb2.EmbedResponse:
        self.embedded.append((list(texts), kind))
        if self.embed_error and QUESTION not in texts:
            raise self.embed_error
        rows = np.array([[1.0, float(n)] for n in range(len(texts))], np.float32)
        return embedder_pb2.EmbedResponse(vectors=tensors.pack(rows), model=MODEL)

    async def search(
        self, request: retriever_pb2.SearchRequest, *, deadline: Deadline
    ) -> retriever_pb2.SearchResponse:
        self.searched.append(request)
        if request.text in self.failing:
            raise Unavailable("The index is away.")
        ids = self.found.get(request.text, PLAIN)
        if request.mode == retriever_pb2.SEARCH_MODE_LEXICAL:
            ids = self.found.get("by words", ids)
        return retriever_pb2.SearchResponse(
            passages=[
                common_pb2.Passage(
                    chunk_id=id_,
                    text=f"text {id_}",
                    collection="c",
                    exact=id_ in ("a", "x"),
                    scores=common_pb2.Scores(dense=0.5, lexical=2.0, fused=1.0),
                )
                for id_ in ids[: request.limit]
            ]
        )

    async def rerank(
        self, request: reranker_pb2.RerankRequest, *, deadline: Deadline
    ) -> reranker_pb2.RerankResponse:
        self.reranked.append(request)
        return reranker_pb2.RerankResponse()

    async def generate(
        self,
        request: generator_pb2.GenerateRequest,
        *,
        first_by: Deadline,
        deadline: Deadline,
        generators: Sequence[str] = (),
    ) -> AsyncGenerator[generator_pb2.GenerateEvent, None]:
        answer = self.answers[min(len(self.generated), len(self.answers) - 1)]
        self.generated.append(request)
        text = f"answer {len(self.generated)}"
        yield generator_pb2.GenerateEvent(delta=generator_pb2.Delta(text=text))
        reasons = (generator_pb2.FINISH_REASON_STOP, generator_pb2.FINISH_REASON_ABSTAINED)
        yield generator_pb2.GenerateEvent(
            finished=generator_pb2.Finished(
                reason=reasons[answer.abstains],
                confidence=answer.confidence,
                usage=generator_pb2.Usage(prompt_tokens=100, completion_tokens=10),
            )
        )


def query(**changes: object) -> Query:
    fields = {
        "text": QUESTION,
        "collections": ("c",),
        "top_k": 5,
        "mode": retriever_pb2.SEARCH_MODE_HYBRID,
        "rerank": True,
    } | changes
    return Query(**fields)  # type: ignore[arg-type]


def pipeline(mesh: FakeMesh, metrics: Metrics | None = None) -> Pipeline:
    budgets = Budgets(
        embed_s=1, retrieve_s=1, rerank_s=1, first_token_s=1, cite_s=1, strategy_s=0.3
    )
    return Pipeline(mesh, budgets, rerank_candidates=4, observer=metrics)


async def search(mesh: FakeMesh, **changes: object) -> QueryState:
    return await pipeline(mesh).search(query(**changes), Deadline.after(5))


async def answer(mesh: FakeMesh, seconds: float = 5, **changes: object) -> list[Event]:
    async with aclosing(pipeline(mesh).answer(query(**changes), Deadline.after(seconds))) as events:
        return [event async for event in events]


def run_of(events: list[Event]) -> QueryState:
    [answered] = [event for event in events if isinstance(event, Answered)]
    return answered.run


def ids(run: QueryState) -> list[str]:
    return [passage.chunk_id for passage in run.passages]


def degraded(run: QueryState) -> list[tuple[str, str]]:
    return [(each.stage, each.fallback) for each in run.degraded]


async def test_the_texts_are_searched_beside_the_question_and_fused() -> None:
    mesh = FakeMesh(("other words",), found={"other words": ["x", "a", "y"]})
    run = await search(mesh, strategy=Strategy.REWRITE, rewriter="small")
    assert {each.text for each in mesh.searched} == {QUESTION, "other words"}
    assert ids(run) == ["a", "x", "b", "c", "y"]
    assert run.strategy.name is Strategy.REWRITE
    assert run.strategy.texts == ("other words",)
    assert mesh.rewriters == ["small"]
    assert run.degraded == []


async def test_a_passage_of_the_models_text_alone_has_neither_its_scores_nor_is_exact() -> None:
    mesh = FakeMesh(("other words",), found={"other words": ["x", "a"]})
    run = await search(mesh, strategy=Strategy.REWRITE)
    by_id = {each.chunk_id: each for each in run.passages}
    assert by_id["a"].exact
    assert by_id["a"].scores.dense == 0.5
    assert not by_id["x"].exact
    assert not by_id["x"].scores.HasField("dense")
    assert not by_id["x"].scores.HasField("lexical")


async def test_several_texts_are_searched_each_with_its_own_vector() -> None:
    mesh = FakeMesh(("one", "two", "three", "four"))
    await search(mesh, strategy=Strategy.MULTI_QUERY, query_count=3)
    assert mesh.embedded[0] == (["one", "two", "three"], embedder_pb2.INPUT_KIND_QUERY)
    vectors = {each.text: tensors.unpack(each.vector).tolist() for each in mesh.searched}
    assert vectors["two"] == [[1.0, 1.0]]
    assert vectors.keys() == {QUESTION, "one", "two", "three"}


async def test_a_hypothetical_passage_is_embedded_as_one_and_searched_by_its_vector_alone() -> None:
    mesh = FakeMesh(("It is a tool.",))
    await search(mesh, strategy=Strategy.HYDE)
    assert mesh.embedded[0] == (["It is a tool."], PASSAGE)
    modes = {each.text: each.mode for each in mesh.searched}
    assert modes["It is a tool."] == retriever_pb2.SEARCH_MODE_DENSE
    assert modes[QUESTION] == retriever_pb2.SEARCH_MODE_HYBRID


async def test_a_condensed_question_is_reranked_answered_and_shown() -> None:
    mesh = FakeMesh(("what is hatch?",))
    events = await answer(
        mesh, strategy=Strategy.CONDENSE, history=HISTORY, standalone="what is it (hatch)?"
    )
    assert events[0] == Started("what is hatch?")
    assert mesh.reranked[0].query == "what is hatch?"
    assert mesh.generated[0].standalone_question == "what is hatch?"
    assert mesh.generated[0].question == QUESTION
    assert {each.text for each in mesh.searched} == {"what is hatch?", "what is it (hatch)?"}
    assert mesh.rewritten[0].history == list(HISTORY)
    assert run_of(events).query.standalone == "what is it (hatch)?", "part of the cache's keys"


async def test_without_history_nothing_is_condensed() -> None:
    mesh = FakeMesh(("something",))
    run = await search(mesh, strategy=Strategy.CONDENSE)
    assert mesh.rewritten == []
    assert not run.strategy.is_used


async def test_a_follow_up_that_stands_alone_is_no_degradation() -> None:
    run = await search(FakeMesh((QUESTION,)), strategy=Strategy.CONDENSE, history=HISTORY)
    assert run.degraded == []
    assert run.strategy.texts == ()


@pytest.mark.parametrize(
    ("mesh", "reason"),
    [
        (FakeMesh(rewrite_error=Unavailable("away")), "away"),
        (FakeMesh(rewrite_error=Internal("broken")), "broken"),
        (FakeMesh(rewrite_error=InvalidInput("too long")), "too long"),
        (FakeMesh(rewrite_error=NotSupported("no language model")), "no language model"),
        (FakeMesh(("x",), rewrite_s=30), "in time"),
        (FakeMesh((QUESTION.upper(),)), "repeated the question"),
        (FakeMesh(()), "repeated the question"),
        (FakeMesh(("x",), embed_error=Unavailable("no vectors")), "no vectors"),
    ],
)
async def test_whatever_goes_wrong_the_question_goes_on_alone(mesh: FakeMesh, reason: str) -> None:
    events = await answer(mesh, strategy=Strategy.REWRITE)
    run = run_of(events)
    assert degraded(run) == [("strategy", "plain_query")]
    assert reason in run.degraded[0].reason
    assert [each.text for each in mesh.searched] == [QUESTION]
    assert ids(run) == PLAIN
    assert run.answer == "answer 1"


async def test_a_search_with_a_models_text_that_fails_is_left_out() -> None:
    mesh = FakeMesh(("good", "bad"), found={"good": ["x"]}, failing=frozenset({"bad"}))
    run = await search(mesh, strategy=Strategy.MULTI_QUERY)
    assert degraded(run) == [("strategy", "plain_query")]
    assert set(ids(run)) == {*PLAIN, "x"}


async def test_the_search_with_the_question_fails_as_without_a_strategy() -> None:
    mesh = FakeMesh(("good",), failing=frozenset({QUESTION}))
    with pytest.raises(Unavailable, match="The index is away"):
        await search(mesh, strategy=Strategy.REWRITE)


async def test_an_abstention_is_tried_again_and_the_better_answer_kept() -> None:
    mesh = FakeMesh(found={"by words": ["x"]}, answers=[Answer(0.1, abstains=True), Answer()])
    events = await answer(mesh, second_try=SecondTry.LEXICAL)
    run = run_of(events)
    assert (run.answer, ids(run)) == ("answer 2", ["x"])
    outcome = run.strategy
    assert (outcome.second_try, outcome.reason, outcome.helped) == ("lexical", "abstained", True)
    assert run.usage.completion_tokens == 20
    [sources] = [event for event in events if isinstance(event, Sources)]
    assert sources.run is run, "nothing of the first answer is shown"
    assert run.degraded == []


async def test_a_second_answer_that_is_no_better_leaves_the_first() -> None:
    mesh = FakeMesh(found={"by words": ["x"]}, answers=[Answer(0.4), Answer(0.3)])
    run = run_of(await answer(mesh, second_try=SecondTry.LEXICAL, second_try_below=0.5))
    assert (run.answer, ids(run)) == ("answer 1", PLAIN)
    assert (run.strategy.reason, run.strategy.helped) == ("low_confidence", False)
    assert run.usage.completion_tokens == 20


@pytest.mark.parametrize("below", [0.0, 0.5])
async def test_a_good_answer_is_tried_once(below: float) -> None:
    mesh = FakeMesh(answers=[Answer(0.6)])
    run = run_of(await answer(mesh, second_try=SecondTry.LEXICAL, second_try_below=below))
    assert len(mesh.searched) == len(mesh.generated) == 1
    assert not run.strategy.is_used


async def test_the_same_passages_are_not_answered_again() -> None:
    mesh = FakeMesh(answers=[Answer(0.1, abstains=True)])
    run = run_of(await answer(mesh, second_try=SecondTry.LEXICAL))
    assert (len(mesh.searched), len(mesh.generated)) == (2, 1)
    assert run.strategy.second_try is SecondTry.LEXICAL
    assert not run.strategy.helped


async def test_a_second_try_by_a_model_keeps_the_first_answer_where_the_model_fails() -> None:
    mesh = FakeMesh(rewrite_error=Unavailable("away"), answers=[Answer(0.1, abstains=True)])
    run = run_of(await answer(mesh, second_try=SecondTry.REWRITE))
    assert run.answer == "answer 1"
    assert degraded(run) == [("strategy", "plain_query")]


async def test_a_second_try_by_a_model_searches_its_texts() -> None:
    mesh = FakeMesh(
        ("other",), found={"other": ["x"]}, answers=[Answer(0.1, abstains=True), Answer()]
    )
    run = run_of(await answer(mesh, second_try=SecondTry.REWRITE))
    assert run.strategy.texts == ("other",)
    assert run.strategy.helped
    assert run.usage.completion_tokens == 25


@pytest.mark.parametrize(
    "error", [Unavailable("The index has gone."), NotFound("No such collection."), KeyError("x")]
)
async def test_a_second_try_that_fails_leaves_the_first_answer(error: Exception) -> None:
    class Failing(FakeMesh):
        async def search(
            self, request: retriever_pb2.SearchRequest, *, deadline: Deadline
        ) -> retriever_pb2.SearchResponse:
            if self.searched:
                raise error
            return await super().search(request, deadline=deadline)

    mesh = Failing(answers=[Answer(0.1, abstains=True)])
    run = run_of(await answer(mesh, second_try=SecondTry.LEXICAL))
    assert run.answer == "answer 1"
    assert degraded(run) == [("second_try", "first_answer")]


async def test_a_second_try_shows_a_stream_at_once_that_it_has_begun() -> None:
    """Else neither its headers nor a heartbeat would come before the second answer."""

    class Slow(FakeMesh):
        async def generate(  # type: ignore[override]
            self, request: generator_pb2.GenerateRequest, **_: object
        ) -> AsyncGenerator[generator_pb2.GenerateEvent, None]:
            await asyncio.Event().wait()
            yield

    async def no_revisions(names: Sequence[str]) -> ingester_pb2.GetRevisionsResponse:
        return ingester_pb2.GetRevisionsResponse()

    asked = query(second_try=SecondTry.LEXICAL, stream=True)
    events = _events(
        pipeline(Slow()),  # type: ignore[arg-type]
        asked,
        Deadline.after(60),
        Metrics(),
        AnswerCache(0, no_revisions),
        lambda *_: None,
    )
    async with asyncio.timeout(5), aclosing(await _begun(events)) as begun:
        assert [(await anext(begun)).name for _ in range(2)] == ["start", ""]


async def test_what_a_query_has_to_do_without_is_noted_once() -> None:
    mesh = FakeMesh(found={"by words": ["x"]}, answers=[Answer(0.1, abstains=True), Answer()])
    missing = (("history", "The database is away."),)
    run = run_of(await answer(mesh, second_try=SecondTry.LEXICAL, missing=missing))
    assert run.strategy.helped
    assert degraded(run) == [("history", "none")]
    assert degraded(await search(mesh, missing=missing)) == [("history", "none")]


async def test_without_time_for_as_long_again_there_is_no_second_try() -> None:
    class Slow(FakeMesh):
        async def rerank(
            self, request: reranker_pb2.RerankRequest, *, deadline: Deadline
        ) -> reranker_pb2.RerankResponse:
            await asyncio.sleep(0.7)
            return await super().rerank(request, deadline=deadline)

    mesh = Slow(answers=[Answer(0.1, abstains=True)])
    run = run_of(await answer(mesh, seconds=1.4, second_try=SecondTry.LEXICAL))
    assert degraded(run) == [("second_try", "first_answer")]
    assert "the first try took" in run.degraded[0].reason
    assert len(mesh.searched) == 1


async def test_a_quoted_answer_gets_no_second_try() -> None:
    class WithoutGenerator(FakeMesh):
        async def generate(  # type: ignore[override]
            self, request: generator_pb2.GenerateRequest, **_: object
        ) -> AsyncGenerator[generator_pb2.GenerateEvent, None]:
            self.generated.append(request)
            raise Unavailable("away")
            yield

    mesh = WithoutGenerator()
    run = run_of(await answer(mesh, second_try=SecondTry.LEXICAL, second_try_below=1.0))
    assert degraded(run) == [("generate", "passages")]
    assert len(mesh.searched) == 1


async def test_strategies_and_second_tries_are_counted_once() -> None:
    metrics = Metrics()
    mesh = FakeMesh(
        ("x",), found={"by words": ["x"]}, answers=[Answer(0.1, abstains=True), Answer()]
    )
    run = run_of(await answer(mesh, strategy=Strategy.REWRITE, second_try=SecondTry.LEXICAL))
    metrics.answered(run)
    value = metrics.registry.get_sample_value
    assert value("raglan_gateway_strategies_total", {"strategy": "rewrite"}) == 1
    labels = {"strategy": "lexical", "reason": "abstained", "helped": "yes"}
    assert value("raglan_gateway_second_tries_total", labels) == 1


def test_an_outcome_comes_back_from_a_cached_answer_without_its_tokens() -> None:
    outcome = Outcome(
        name=Strategy.CONDENSE,
        texts=("what is hatch?",),
        standalone="what is hatch?",
        second_try=SecondTry.LEXICAL,
        reason="abstained",
        helped=True,
    )
    cached = outcomes.to_proto(outcome)
    assert cached is not None
    assert outcomes.from_proto(cached) == outcome
    spent = replace(outcome, usage=generator_pb2.Usage(prompt_tokens=1))
    assert outcomes.to_proto(spent) == cached
    assert outcomes.to_proto(Outcome()) is None
    assert not outcomes.from_proto(outcomes.cache_pb2.CachedStrategy()).is_used
