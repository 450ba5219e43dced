"""What a query gets when stages fail, over stages that behave as told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field

import numpy as np
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import StatusCode
from raglan import tensors
from raglan.deadline import Deadline
from raglan.errors import (
    Conflict,
    DeadlineExceeded,
    Internal,
    InvalidInput,
    NotFound,
    Overloaded,
    RaglanError,
    Unavailable,
)
from raglan.telemetry import context as request_context
from raglan.telemetry import tracing, variables
from raglan.telemetry.recent_spans import RecentSpans
from raglan.v1 import common_pb2, embedder_pb2, generator_pb2, reranker_pb2, retriever_pb2
from raglan.v1.traces_pb2 import RequestOutcome
from raglan_gateway.grounding import groundedness
from raglan_gateway.pipeline import (
    Answered,
    Budgets,
    Cited,
    Delta,
    Event,
    Pipeline,
    Restarted,
    Sources,
    Started,
    Thinking,
)
from raglan_gateway.query import Query
from raglan_gateway.query_state import QueryState
from raglan_gateway.traces import request_outcome

MODEL = common_pb2.ModelIdentity(id="m", revision="1", dimension=1)


@dataclass
class FakeMesh:
    """Five passages "p0".."p4"; each stage fails with the error it is given."""

    embed_error: RaglanError | None = None
    search_error: RaglanError | None = None
    rerank_error: RaglanError | None = None
    generate_error: RaglanError | None = None
    tokens_before_error: int = 0
    thinks: tuple[str, ...] = ()
    restarts: bool = False
    reason: generator_pb2.FinishReason.ValueType = generator_pb2.FINISH_REASON_STOP
    ranked: tuple[int, ...] = (3, 1)
    relevance: tuple[float | None, ...] = (0.9, 0.2, 0.1, 0.05)
    unreadable: bool = False
    readability: float | None = None
    left_out: str = ""
    """Collection that the index cannot search."""
    title: str = ""
    matches: tuple[int, ...] = ()
    searched: list[retriever_pb2.SearchRequest] = field(default_factory=list)
    offered: int = 0
    closed: bool = False
    claims: tuple[generator_pb2.Claim, ...] = ()
    check_error: RaglanError | None = None
    compared: list[str] = field(default_factory=list)

    async def embed(
        self,
        texts: Sequence[str],
        kind: embedder_pb2.InputKind.ValueType,
        *,
        deadline: Deadline,
        further: Sequence[str] = (),
    ) -> embedder_pb2.EmbedResponse:
        """Of a query, nothing much; of passages, the same direction for all but the last."""
        if kind == embedder_pb2.INPUT_KIND_PASSAGE:
            self.compared = list(texts)
            if self.check_error:
                raise self.check_error
        elif self.embed_error:
            raise self.embed_error
        rows = np.array([[1.0, 0.0]] * (len(texts) - 1) + [[0.0, 1.0]], np.float32)
        readability = [] if self.readability is None else [self.readability] * len(texts)
        return embedder_pb2.EmbedResponse(
            vectors=tensors.pack(rows), model=MODEL, readability=readability
        )

    async def search(
        self, request: retriever_pb2.SearchRequest, *, deadline: Deadline
    ) -> retriever_pb2.SearchResponse:
        self.searched.append(request)
        if self.search_error:
            raise self.search_error
        return retriever_pb2.SearchResponse(
            passages=[
                common_pb2.Passage(
                    chunk_id=f"p{i}", title=self.title, text=f"passage {i}", start=i * 100
                )
                for i in range(5)
            ],
            searched=[
                retriever_pb2.CollectionSearch(
                    collection=name, error="it is damaged." if name == self.left_out else ""
                )
                for name in request.collections
            ],
        )

    async def rerank(
        self, request: reranker_pb2.RerankRequest, *, deadline: Deadline
    ) -> reranker_pb2.RerankResponse:
        if self.rerank_error:
            raise self.rerank_error
        self.offered = len(request.candidates)
        return reranker_pb2.RerankResponse(
            ranked=[
                reranker_pb2.Ranked(
                    index=i, score=9.0 - n, calibrated=self.relevance[n], matches=self.matches
                )
                for n, i in enumerate(() if self.unreadable else self.ranked)
            ],
            unreadable=self.unreadable,
        )

    async def generate(
        self,
        request: generator_pb2.GenerateRequest,
        *,
        first_by: Deadline,
        deadline: Deadline,
        generators: Sequence[str] = (),
    ) -> AsyncGenerator[generator_pb2.GenerateEvent, None]:
        try:
            for text in self.thinks:
                yield generator_pb2.GenerateEvent(thinking=generator_pb2.Delta(text=text))
            if self.restarts:
                yield generator_pb2.GenerateEvent(delta=generator_pb2.Delta(text="Hm."))
                yield generator_pb2.GenerateEvent(restart=generator_pb2.Restart())
            for number in range(3):
                if self.generate_error and number == self.tokens_before_error:
                    raise self.generate_error
                yield generator_pb2.GenerateEvent(delta=generator_pb2.Delta(text=f"t{number} "))
            quote = generator_pb2.Citation(
                marker=1, passage_index=1, quote="passage", start=0, end=7
            )
            yield generator_pb2.GenerateEvent(citation=quote)
            yield generator_pb2.GenerateEvent(
                finished=generator_pb2.Finished(
                    model="fake",
                    confidence=0.5,
                    claims=self.claims,
                    groundedness=0.25,
                    reason=self.reason,
                )
            )
        finally:
            self.closed = True


def pipeline(mesh: FakeMesh) -> Pipeline:
    budgets = Budgets(embed_s=1, retrieve_s=1, rerank_s=1, first_token_s=1, cite_s=1)
    return Pipeline(mesh, budgets, rerank_candidates=4)


def query(**changes: object) -> Query:
    fields = {
        "text": "what?",
        "collections": ("default",),
        "top_k": 3,
        "mode": retriever_pb2.SEARCH_MODE_HYBRID,
        "rerank": True,
    } | changes
    return Query(**fields)  # type: ignore[arg-type]


def run_of(events: list[Event]) -> QueryState:
    [answered] = [event for event in events if isinstance(event, Answered)]
    return answered.run


async def search(mesh: FakeMesh, **changes: object) -> QueryState:
    return await pipeline(mesh).search(query(**changes), Deadline.after(5))


async def answer(mesh: FakeMesh, **changes: object) -> list[Event]:
    asked = query(**changes)
    async with aclosing(pipeline(mesh).answer(asked, Deadline.after(5))) as events:
        return [event async for event in events]


def ids(run: QueryState) -> list[str]:
    return [passage.chunk_id for passage in run.passages]


async def test_reranked_passages_lead_and_the_rest_keep_their_order() -> None:
    run = await search(FakeMesh(), top_k=5)
    assert ids(run) == ["p3", "p1", "p0", "p2", "p4"]
    assert [p.rank for p in run.passages] == [1, 2, 3, 4, 5]
    assert run.passages[0].scores.rerank == 0.9
    assert not run.passages[2].scores.HasField("rerank")


async def test_min_score_leaves_out_less_relevant_passages_and_those_not_scored() -> None:
    run = await search(FakeMesh(), top_k=5, min_score=0.5)
    assert ids(run) == ["p3"]
    assert run.passages[0].rank == 1
    assert run.degraded == []


@pytest.mark.parametrize(
    ("mesh", "changes", "reason"),
    [
        (FakeMesh(), {"rerank": False}, "The request asked for no reranking."),
        (FakeMesh(unreadable=True), {}, "does not read the language"),
        (FakeMesh(relevance=(None, None)), {}, "The reranker gave no scores."),
        (FakeMesh(rerank_error=Unavailable("away")), {}, "The reranker did not answer."),
    ],
)
async def test_min_score_without_scores_is_not_applied_and_said_so(
    mesh: FakeMesh, changes: dict[str, object], reason: str
) -> None:
    run = await search(mesh, top_k=5, min_score=0.5, **changes)
    assert len(run.passages) == 5
    assert reason in run.degraded[-1].reason
    assert "min_score" in run.degraded[-1].reason


async def test_unread_texts_keep_their_order_undegraded() -> None:
    """Texts that the reranker cannot read keep their order without complaint."""
    run = await search(FakeMesh(unreadable=True), top_k=5)
    assert ids(run) == ["p0", "p1", "p2", "p3", "p4"]
    assert not run.passages[0].scores.HasField("rerank")
    assert run.degraded == []


@pytest.mark.parametrize("readability", [None, 0.25])
async def test_the_retriever_is_told_how_well_the_query_was_read(
    readability: float | None,
) -> None:
    mesh = FakeMesh(readability=readability)
    await search(mesh)
    (request,) = mesh.searched
    assert (request.readability if request.HasField("readability") else None) == readability


async def test_a_collection_that_is_left_out_is_named() -> None:
    run = await search(FakeMesh(left_out="b"), collections=("a", "b"))
    (note,) = run.degraded
    assert (note.stage, note.collection, note.fallback) == ("collection", "b", "left_out")
    assert note.reason == "Collection 'b' is left out: it is damaged."
    assert [each.collection for each in run.collections] == ["a", "b"]
    assert run.passages


@pytest.mark.parametrize(
    ("collections", "left_s", "budget_ms"),
    [
        (("a",), 5, (0, 0)),
        (("a", "b"), 5, (400, 500)),
        (("a", "b"), 0.2, (1, 100)),
    ],
)
async def test_several_collections_get_a_budget_within_the_time_left(
    collections: tuple[str, ...], left_s: float, budget_ms: tuple[int, int]
) -> None:
    mesh = FakeMesh()
    await pipeline(mesh).search(query(collections=collections), Deadline.after(left_s))
    least, most = budget_ms
    assert least <= mesh.searched[0].collection_budget_ms <= most


async def test_match_offsets_exclude_the_title() -> None:
    """Matches count from the text though the reranker reads the title first."""
    run = await search(FakeMesh(title="Title", matches=(0, 6, 14)))
    assert [list(passage.matches) for passage in run.passages[:3]] == [[0, 8], [0, 8], []]


async def test_the_reranker_sees_more_candidates_than_the_caller_asked_for() -> None:
    mesh = FakeMesh()
    run = await search(mesh, top_k=1)
    assert mesh.offered == 4
    assert ids(run) == ["p3"]


@pytest.mark.parametrize("error", [Unavailable("x"), Overloaded("x"), DeadlineExceeded("x")])
async def test_without_an_embedder_the_search_is_lexical_and_says_so(error: RaglanError) -> None:
    mesh = FakeMesh(embed_error=error)
    run = await search(mesh)
    assert mesh.searched[0].mode == retriever_pb2.SEARCH_MODE_LEXICAL
    assert not mesh.searched[0].HasField("vector")
    assert [(d.stage, d.fallback) for d in run.degraded] == [("embed", "lexical")]


async def test_without_a_reranker_the_fused_order_stands_and_says_so() -> None:
    run = await search(FakeMesh(rerank_error=Unavailable("gone")))
    assert ids(run) == ["p0", "p1", "p2"]
    assert [(d.stage, d.reason, d.fallback) for d in run.degraded] == [
        ("rerank", "gone", "fused_order")
    ]


@pytest.mark.parametrize("error", [InvalidInput("bad"), NotFound("no"), Conflict("other model")])
async def test_what_is_the_requests_own_fault_is_never_papered_over(error: RaglanError) -> None:
    with pytest.raises(type(error)):
        await search(FakeMesh(embed_error=error))
    with pytest.raises(type(error)):
        await search(FakeMesh(rerank_error=error))


async def test_without_a_retriever_the_query_fails() -> None:
    with pytest.raises(Unavailable):
        await search(FakeMesh(search_error=Unavailable("gone")))


async def test_a_request_whose_time_is_up_fails_instead_of_falling_back() -> None:
    mesh = FakeMesh(embed_error=DeadlineExceeded("x"))
    with pytest.raises(DeadlineExceeded):
        await pipeline(mesh).search(query(), Deadline.after(-1))


async def test_an_answer_comes_as_sources_text_citations_and_the_whole() -> None:
    events = await answer(FakeMesh())
    assert [type(event) for event in events] == [
        Started, Sources, Delta, Delta, Delta, Cited, Answered,
    ]  # fmt: skip
    cited, answered = events[-2], events[-1]
    assert isinstance(cited, Cited)
    assert isinstance(answered, Answered)
    assert cited.passage.chunk_id == "p1"
    assert answered.run.answer == "t0 t1 t2 "
    assert {"embed", "retrieve", "rerank", "generate", "first_token", "total"} <= set(
        answered.run.timings_ms
    )


def claim(start: int, end: int, support: float, *markers: int) -> generator_pb2.Claim:
    return generator_pb2.Claim(start=start, end=end, support=support, markers=markers)


async def checked(mesh: FakeMesh) -> QueryState:
    last = (await answer(mesh))[-1]
    assert isinstance(last, Answered)
    return last.run


async def test_a_claim_that_says_it_in_other_words_is_compared_by_meaning() -> None:
    mesh = FakeMesh(claims=(claim(0, 2, 0.1, 1), claim(3, 5, 0.9, 1), claim(6, 8, 0.0)))
    run = await checked(mesh)
    assert sorted(mesh.compared) == ["passage", "t0"], "neither the supported nor the uncited one"
    assert [c.supported for c in run.claims] == [False, True, False]
    assert run.claims[0].cosine == 0.0
    assert "cite" in run.timings_ms


async def test_a_near_quote_in_other_words_supports_its_claim() -> None:
    mesh = FakeMesh(claims=(claim(0, 2, 0.1, 1), claim(3, 5, 0.1, 1)))
    run = await checked(mesh)
    assert mesh.compared == ["t0", "passage", "t1"]
    assert [c.supported for c in run.claims] == [True, False]


async def test_without_vectors_words_decide_and_it_says_so() -> None:
    mesh = FakeMesh(claims=(claim(0, 2, 0.1, 1),), check_error=Unavailable("gone"))
    run = await checked(mesh)
    assert [(c.supported, c.cosine) for c in run.claims] == [(False, None)]
    assert [(d.stage, d.fallback) for d in run.degraded] == [("cite", "lexical")]


async def test_an_answer_of_quotes_costs_no_comparison() -> None:
    mesh = FakeMesh()
    run = await checked(mesh)
    assert mesh.compared == []
    assert groundedness(run.claims, run.finished.groundedness) == 0.25


async def test_without_a_generator_the_passages_are_quoted() -> None:
    events = await answer(FakeMesh(generate_error=Unavailable("gone")))
    run = events[-1].run  # type: ignore[union-attr]
    assert [(d.stage, d.fallback) for d in run.degraded] == [("generate", "passages")]
    assert run.answer == "passage 3 [1]\n\npassage 1 [2]\n\npassage 0 [3]"
    assert [(c.quote, c.start, c.end) for c in run.citations] == [
        ("passage 3", 300, 309),
        ("passage 1", 100, 109),
        ("passage 0", 0, 9),
    ]


async def test_a_generator_that_dies_after_text_is_reported_never_replaced() -> None:
    mesh = FakeMesh(generate_error=Unavailable("gone"), tokens_before_error=2)
    texts = []
    with pytest.raises(Unavailable):
        asked = query(stream=True)
        async with aclosing(pipeline(mesh).answer(asked, Deadline.after(5))) as events:
            async for event in events:
                if isinstance(event, Delta):
                    texts.append(event.text)
    assert texts == ["t0 ", "t1 "]


async def test_an_answer_nobody_has_read_yet_is_replaced_when_its_generator_dies() -> None:
    mesh = FakeMesh(generate_error=Unavailable("gone"), tokens_before_error=2)
    run = (await answer(mesh))[-1].run  # type: ignore[union-attr]
    assert [each.fallback for each in run.degraded] == ["passages"]
    assert run.answer.startswith("passage 3 [1]")
    assert [each.marker for each in run.citations] == [1, 2, 3]


async def test_reasoning_goes_by_itself_and_is_no_part_of_the_answer() -> None:
    events = await answer(FakeMesh(thinks=("Hm. ", "", "Well.")))
    assert [event.text for event in events if isinstance(event, Thinking)] == ["Hm. ", "", "Well."]
    assert run_of(events).answer == "t0 t1 t2 "


async def test_a_generator_that_dies_while_it_reasons_is_replaced() -> None:
    mesh = FakeMesh(thinks=("Hm.",), generate_error=Unavailable("gone"), restarts=True)
    run = run_of(await answer(mesh, stream=True))
    assert [d.stage for d in run.degraded] == ["generate"]
    assert run.answer.startswith("passage 3")


async def test_what_a_restart_makes_void_is_no_part_of_the_answer() -> None:
    events = await answer(FakeMesh(restarts=True))
    assert [type(event) for event in events[2:5]] == [Delta, Restarted, Delta]
    assert run_of(events).answer == "t0 t1 t2 "


@pytest.mark.parametrize(
    ("reason", "budget_s"),
    [(generator_pb2.FINISH_REASON_ABSTAINED, 10.0), (generator_pb2.FINISH_REASON_STOP, 2.0)],
)
async def test_only_answers_teach_the_stage_how_long_one_takes(
    reason: int, budget_s: float
) -> None:
    mesh = FakeMesh(reason=generator_pb2.FinishReason.Name(reason))
    budgets = Budgets(embed_s=1, retrieve_s=1, rerank_s=1, first_token_s=10, cite_s=1)
    asked = Pipeline(mesh, budgets, rerank_candidates=4)
    for _ in range(40):
        async with aclosing(asked.answer(query(), Deadline.after(5))) as events:
            async for _ in events:
                pass
    [generation] = [stage for stage in asked.stages if stage.name == "generate"]
    assert generation.budget_s == budget_s


async def test_a_conflict_is_not_compared_by_meaning() -> None:
    claim = generator_pb2.Claim(start=0, end=3, markers=[1], support=0.9, conflict="number")
    mesh = FakeMesh(claims=(claim,))
    run = run_of(await answer(mesh))
    assert mesh.compared == []
    assert (run.claims[0].supported, groundedness(run.claims, 1.0)) == (False, 0)


async def test_leaving_an_answer_closes_the_generators_stream() -> None:
    mesh = FakeMesh()
    async with aclosing(pipeline(mesh).answer(query(), Deadline.after(5))) as events:
        async for event in events:
            if isinstance(event, Delta):
                break
    assert mesh.closed


async def test_an_answer_that_is_being_written_keeps_nobody_waiting() -> None:
    many = pipeline(FakeMesh())
    generate = next(stage for stage in many.stages if stage.name == "generate")
    async with AsyncExitStack() as begun:
        for _ in range(2 * generate.limiter.limit):
            events = many.answer(query(), Deadline.after(5))
            await begun.enter_async_context(aclosing(events))
            async for event in events:
                if isinstance(event, Delta):
                    break
            assert event == Delta("t0 "), "it fell back"
            assert generate.limiter.running == 0


@pytest.fixture
def recent() -> Iterator[RecentSpans]:
    recent = RecentSpans()
    installed = tracing.install("gateway", recent=recent)
    yield recent
    installed.close()


async def traced(
    recent: RecentSpans, mesh: FakeMesh, **asked: object
) -> tuple[dict[str, ReadableSpan], RequestOutcome]:
    """Name -> span of one answer, "request" for the first of them, and what was noted."""
    with request_context.incoming({}, "request"):
        trace_id = tracing.current().get_span_context().trace_id
        ended = request_outcome.begin(trace_id, {})
        with contextlib.suppress(RaglanError):
            await answer(mesh, **asked)
    return {span.name: span for span in recent.of(trace_id)[0]}, ended


async def test_each_stage_is_a_span_with_what_it_found(recent: RecentSpans) -> None:
    spans, ended = await traced(recent, FakeMesh())
    assert list(spans) == ["embed", "retrieve", "rerank", "generate", "request"]
    assert all(span.status.status_code is StatusCode.OK for span in spans.values())
    reranked = spans["rerank"].attributes or {}
    assert reranked["reranker.output_documents.0.document.id"] == "p3"
    assert reranked["reranker.output_documents.0.document.score"] == 0.9
    assert reranked["reranker.input_documents.3.document.id"] == "p3"
    assert not ended.degraded


async def test_stages_are_siblings_where_another_task_reads_the_rest(recent: RecentSpans) -> None:
    """As in a stream: the first events are awaited before the headers are sent."""
    mesh = FakeMesh(claims=(claim(0, 2, 0.1, 1),))
    answered = pipeline(mesh).answer(query(stream=True), Deadline.after(5))

    async def read_the_rest() -> None:
        async for _ in answered:
            pass

    with request_context.incoming({}, "request"):
        trace_id = tracing.current().get_span_context().trace_id
        async with aclosing(answered):
            async for event in answered:
                if isinstance(event, Sources):
                    break
            await asyncio.create_task(read_the_rest())
    spans = {span.name: span for span in recent.of(trace_id)[0]}
    request = spans.pop("request").get_span_context()
    assert "cite" in spans
    assert all(span.parent and span.parent.span_id == request.span_id for span in spans.values())


async def test_a_stage_that_fell_back_failed_and_the_request_says_by_what(
    recent: RecentSpans,
) -> None:
    mesh = FakeMesh(rerank_error=Unavailable("gone"), generate_error=Internal("broken"))
    spans, ended = await traced(recent, mesh)
    statuses = {name: span.status.status_code for name, span in spans.items()}
    assert statuses["rerank"] is statuses["generate"] is StatusCode.ERROR
    assert statuses["request"] is StatusCode.OK
    (event,) = spans["request"].events
    assert dict(event.attributes or {})["raglan.degraded.fallback"] == "fused_order"
    assert ended.degraded


async def test_no_span_holds_what_was_asked_found_or_answered(recent: RecentSpans) -> None:
    spans, _ = await traced(recent, FakeMesh(), text="a very secret question")
    shown = " ".join(str(dict(span.attributes or {})) for span in spans.values())
    for secret in ("secret", "passage 1", "t0"):
        assert secret not in shown


async def test_content_is_on_the_spans_where_one_setting_wants_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(variables.CONTENT, "true")
    recent = RecentSpans()
    installed = tracing.install("gateway", recent=recent)
    try:
        spans, _ = await traced(recent, FakeMesh())
    finally:
        installed.close()
    found = spans["retrieve"].attributes or {}
    assert found["retrieval.documents.1.document.content"] == "passage 1"
