"""The path of a query through the mesh: embed, retrieve, rerank, expand, generate, cite.

Each stage has a time budget and, where the mesh can do without it, a fallback; what fell back is
listed in `QueryState.degraded`. Nothing here knows gRPC or HTTP.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import Final, TypeAlias

from raglan.deadline import Deadline
from raglan.telemetry import tracing
from raglan.v1 import (
    common_pb2,
    embedder_pb2,
    generator_pb2,
    retriever_pb2,
)

from raglan_gateway import messages, preferences, stage_spans
from raglan_gateway.admission.load_shedder import LoadShedder
from raglan_gateway.collection_budget import BudgetedSearch
from raglan_gateway.degradation import FALLBACK, RECOVERABLE
from raglan_gateway.expansion import expanding
from raglan_gateway.grounding import Comparison, claims_of
from raglan_gateway.query import Query
from raglan_gateway.query_state import Degradation, Known, QueryState, run_stage
from raglan_gateway.quoting import quote_passages
from raglan_gateway.service_clients import ServiceClients
from raglan_gateway.stage import StageLimiter, StageObserver, Unobserved
from raglan_gateway.strategies import search_texts, searching, second_try
from raglan_gateway.strategies.strategy import SecondTry, Strategy

_SHARE: Final = 0.5
"""Of the time that is left, how much a stage with a fallback may use."""


@dataclass(frozen=True, slots=True)
class Budgets:
    """The longest each stage may take, in seconds; see `StageLimiter`."""

    embed_s: float
    retrieve_s: float
    rerank_s: float
    first_token_s: float
    cite_s: float
    strategy_s: float = 3.0
    collection_s: float = 2.0
    """Of a search of several collections, the longest that one may take."""
    expand_s: float = 0.5


@dataclass(frozen=True, slots=True)
class Started:
    """The request was accepted."""

    standalone_question: str = ""


@dataclass(frozen=True, slots=True)
class Searched:
    """Passages were found; those of the answer may be others, because it may get a second try."""


@dataclass(frozen=True, slots=True)
class Sources:
    """The passages that the answer will rest on are known: `run.passages`."""

    run: QueryState


@dataclass(frozen=True, slots=True)
class Delta:
    """More text of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Thinking:
    """More of the model's reasoning, which is no part of the answer; it may be empty."""

    text: str


@dataclass(frozen=True, slots=True)
class Restarted:
    """The text and the citations so far were reasoning; the answer begins anew."""


@dataclass(frozen=True, slots=True)
class Cited:
    """A citation; its marker has just passed in the text."""

    citation: generator_pb2.Citation
    passage: common_pb2.Passage


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer is complete."""

    run: QueryState


Event: TypeAlias = Started | Searched | Sources | Thinking | Delta | Cited | Restarted | Answered

Reuse: TypeAlias = Callable[[QueryState], Awaitable[Sequence[Event]]]
"""Finds an answer by the vector of the query; its events after `Started`, or none."""


class Pipeline:
    """Runs queries. Between them it holds only how its stages do."""

    def __init__(
        self,
        stages: ServiceClients,
        budgets: Budgets,
        *,
        rerank_candidates: int,
        observer: StageObserver | None = None,
    ) -> None:
        self.load_shedder = LoadShedder()
        """Before the stages that find passages."""
        self._services = stages
        self._observer = observer or Unobserved()
        self._rerank_candidates = rerank_candidates
        self._index = BudgetedSearch(stages, budgets.collection_s)
        self._embedding = StageLimiter("embed", longest_s=budgets.embed_s, share=_SHARE)
        self._retrieval = StageLimiter("retrieve", longest_s=budgets.retrieve_s, shortest_s=2.0)
        self._reranking = StageLimiter("rerank", longest_s=budgets.rerank_s, share=_SHARE)
        self._expansion = StageLimiter("expand", longest_s=budgets.expand_s, share=_SHARE)
        self._generation = StageLimiter("generate", longest_s=budgets.first_token_s, shortest_s=2.0)
        self._citing = StageLimiter("cite", longest_s=budgets.cite_s, share=_SHARE)
        self._strategies = StageLimiter("strategy", longest_s=budgets.strategy_s, share=_SHARE)

    @property
    def stages(self) -> tuple[StageLimiter, ...]:
        """In the order in which a query passes them."""
        return (
            self._strategies,
            self._embedding,
            self._retrieval,
            self._reranking,
            self._expansion,
            self._generation,
            self._citing,
        )

    async def search(
        self, query: Query, deadline: Deadline, known: Known | None = None
    ) -> QueryState:
        """Find and rank passages.

        Args:
            query: the question.
            deadline: of all of it.
            known: results that are there already.

        Raises:
            Overloaded: there is no place for it.
            RaglanError: the request is wrong, the retriever failed, or the deadline passed.
        """
        run = QueryState(query, deadline, self._observer)
        async with AsyncExitStack() as stack:
            await self.load_shedder.enter(stack, query.priority, deadline)
            run.record_admission()
            await self._write_search_texts(run, query.strategy)
            await self._find(run, known or Known())
        run.close()
        return run

    async def answer(
        self,
        query: Query,
        deadline: Deadline,
        known: Known | None = None,
        reuse: Reuse | None = None,
    ) -> AsyncGenerator[Event, None]:
        """Answer, as events: `Started`, `Sources`, then `Delta` and `Cited` mixed, `Answered`.

        `Searched` is before `Sources` where the answer is held back for a second try. `Thinking`
        may come between them, and `Restarted`, which makes earlier ones void.

        Raises:
            RaglanError: as `search`; or the generator failed after its first piece of text.
        """
        run = QueryState(query, deadline, self._observer)
        async with AsyncExitStack() as stack:
            await self.load_shedder.enter(stack, query.priority, deadline)
            run.record_admission()
            await self._write_search_texts(run, query.strategy)
            # The time that its reader needs counts too, here and below.
            yield Started(run.asked.standalone or query.text)
            reused = await self._find(run, known or Known(), reuse)
        for event in reused:
            yield event
        if reused:
            return
        if query.second_try is SecondTry.NONE:
            async with aclosing(self._answered(run)) as events:
                async for event in events:
                    yield event
        else:
            yield Searched()
            run, held = await second_try.answer_twice(run, self._answered, self._find_again)
            for event in held:
                yield event
        await self._cite(run)
        run.close()
        yield Answered(run)

    async def _answered(self, run: QueryState) -> AsyncGenerator[Event, None]:
        """Yield the passages and the answer."""
        with run.stage("generate"):
            yield Sources(run)
            async with aclosing(self._generate(run)) as events:
                async for event in events:
                    yield event

    async def _find_again(self, second: QueryState) -> None:
        async with AsyncExitStack() as stack:
            await self.load_shedder.enter(stack, second.query.priority, second.deadline)
            await self._write_search_texts(second, second.query.second_try.strategy)
            await self._find(second, Known(embedded=second.embedded))

    async def _write_search_texts(self, run: QueryState, strategy: Strategy) -> None:
        await search_texts.write_search_texts(run, strategy, self._services, self._strategies)

    async def _find(
        self, run: QueryState, known: Known, reuse: Reuse | None = None
    ) -> Sequence[Event]:
        """Find the passages, or else the events of an answer that needs none."""
        if known.evidence is not None:
            run.use_evidence(known)
            return ()
        if known.embedded is not None:
            run.cached.update(known.hits)
        run.embedded = known.embedded or await self._embed(run)
        if reuse and run.embedded and (reused := await reuse(run)):
            return reused
        await self._retrieve(run, run.embedded)
        await self._rerank(run)
        await expanding.expand(run, self._services, self._expansion)
        return ()

    async def _embed(self, run: QueryState) -> embedder_pb2.EmbedResponse | None:
        """The query's vector; None means lexical only."""
        if run.searched.mode == retriever_pb2.SEARCH_MODE_LEXICAL:
            return None
        try:
            async with run_stage(run, self._embedding) as limit:
                reply = await self._services.embed(
                    [run.query.line],
                    embedder_pb2.INPUT_KIND_QUERY,
                    deadline=limit,
                    further=run.query.further,
                )
                run.spent("embed", reply.timing)
        except RECOVERABLE as error:
            run.fall_back("embed", error)
            return None
        return reply

    async def _retrieve(self, run: QueryState, embedded: embedder_pb2.EmbedResponse | None) -> None:
        async with run_stage(run, self._retrieval) as limit:
            candidates = self._rerank_candidates
            run.record_search(await searching.search(run, embedded, candidates, self._index, limit))
            run.retrieved = stage_spans.retrieved(run.passages)

    async def _rerank(self, run: QueryState) -> None:
        """Put the reranked passages first, best first; those past its budget keep their order."""
        unscored = "The request asked for no reranking."
        if run.query.rerank and run.passages:
            try:
                async with run_stage(run, self._reranking) as limit:
                    reply = await self._services.rerank(
                        messages.rerank(run.asked, run.passages[: self._rerank_candidates]),
                        deadline=limit,
                    )
                    run.spent("rerank", reply.timing)
                    unscored = messages.why_unscored(reply)
                    run.passages = messages.reordered(run.passages, reply)
                    stage_spans.reranked(run.retrieved, run.passages)
            except RECOVERABLE as error:
                run.fall_back("rerank", error)
                unscored = "The reranker did not answer."
        self._keep_relevant(run, unscored)
        query = run.query
        if query.has_preferences:
            run.passages = await asyncio.to_thread(
                preferences.ordered, run.passages, query.boosts, query.diversity, query.top_k
            )
        del run.passages[query.top_k :]
        for rank, passage in enumerate(run.passages, start=1):
            passage.rank = rank

    def _keep_relevant(self, run: QueryState, unscored: str) -> None:
        """Leave out passages below `min_score`; note it where none was scored."""
        least = run.query.min_score
        if least is None or not run.passages:
            return
        if unscored:
            reason = f"{unscored} min_score needs scores and was not applied."
            run.note(Degradation("rerank", reason, FALLBACK["rerank"]))
            return
        run.passages = [
            passage
            for passage in run.passages
            if passage.scores.HasField("rerank") and passage.scores.rerank >= least
        ]

    async def _generate(self, run: QueryState) -> AsyncGenerator[Event, None]:
        begun = False
        try:
            async with aclosing(self._generated(run)) as events:
                async for event in events:
                    if isinstance(event, Delta | Cited | Restarted):
                        begun = not isinstance(event, Restarted)
                    yield event
        except RECOVERABLE as error:
            if begun and run.query.stream:
                raise
            run.fall_back("generate", error)
            tracing.fail(tracing.current(), error)
            run.forget_answer()
            for reply in quote_passages(run.passages):
                for event in absorb(run, reply):
                    yield event

    async def _generated(self, run: QueryState) -> AsyncGenerator[Event, None]:
        """Yield the generator's events. The stage is measured by its first token."""
        first_by = self._generation.limit(run.deadline)
        request = generator_pb2.GenerateRequest(
            question=run.query.text,
            history=run.query.history,
            standalone_question=run.asked.standalone,
            instructions=run.query.instructions,
            passages=run.passages,
            max_tokens=run.query.max_tokens,
            first_token_ms=max(1, int(first_by.remaining_s() * 1e3)),
            lane=common_pb2.LANE_INTERACTIVE,
            tenant=run.query.tenant,
            json_schema=run.query.json_schema,
            sampling=run.query.sampling,
        )
        replies = self._services.generate(
            request, first_by=first_by, deadline=run.deadline, generators=run.query.generators
        )
        async with aclosing(replies):
            # The place is for the time until the first token, by which the limit is found. How many
            # answers are written at a time is the generator's to decide.
            async with self._generation.place(run.query.priority, first_by):
                began = time.monotonic()
                first = await anext(replies, None)
                first_s = time.monotonic() - began
            if first is None:
                return
            try:
                run.record_event(first)
                for event in absorb(run, first):
                    yield event
                async for reply in replies:
                    run.record_event(reply)
                    for event in absorb(run, reply):
                        yield event
            finally:
                # An abstention may come without the model; it says nothing of what answers take.
                if run.finished.reason != generator_pb2.FINISH_REASON_ABSTAINED:
                    self._generation.observe(first_s)

    async def _cite(self, run: QueryState) -> None:
        """Find out which sentences of the answer their citations support."""
        run.claims = claims_of(run.finished)
        comparison = Comparison.of(run.answer, run.claims, run.citations)
        if not comparison.texts:
            return
        try:
            async with run_stage(run, self._citing) as limit:
                reply = await self._services.embed(
                    comparison.texts, embedder_pb2.INPUT_KIND_PASSAGE, deadline=limit
                )
        except RECOVERABLE as error:
            # The answer is out: what words say of it has to do, even if the time is up.
            run.note(Degradation("cite", error.message, FALLBACK["cite"]))
            return
        run.claims = comparison.applied(run.claims, reply)


def absorb(run: QueryState, reply: generator_pb2.GenerateEvent) -> Iterator[Event]:
    """Fold one reply of the generator into `run`; what the caller should see of it."""
    match reply.WhichOneof("event"):
        case "delta":
            if "first_token" not in run.timings_ms:
                run.timings_ms["first_token"] = (time.monotonic() - run.started) * 1e3
            run.answer += reply.delta.text
            yield Delta(reply.delta.text)
        case "thinking":
            run.thinking += reply.thinking.text
            yield Thinking(reply.thinking.text)
        case "restart":
            reasoning = run.thinking + run.answer
            run.forget_answer()
            run.thinking = reasoning
            yield Restarted()
        case "citation":
            run.citations.append(reply.citation)
            yield Cited(reply.citation, run.passages[reply.citation.passage_index])
        case "finished":
            run.finished = reply.finished
            run.spent("generate", reply.finished.timing)
            stage_spans.generated(reply.finished)
