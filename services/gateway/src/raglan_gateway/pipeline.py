"""The path of a query through the mesh: embed, retrieve, rerank, generate, cite.

Each stage has a time budget and, where the mesh can do without it, a fallback; what fell back is
listed in `Run.degraded`. Nothing here knows gRPC or HTTP.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeAlias

from raglan.deadline import Deadline
from raglan.errors import DeadlineExceeded, Internal, Overloaded, RaglanError, Unavailable
from raglan.telemetry import semconv, tracing
from raglan.v1 import (
    common_pb2,
    embedder_pb2,
    generator_pb2,
    reranker_pb2,
    retriever_pb2,
)

from raglan_gateway import messages, stage_spans
from raglan_gateway.admission.load_shedder import LoadShedder
from raglan_gateway.degradation import FALLBACK
from raglan_gateway.grounding import Claim, Comparison, claims_of
from raglan_gateway.query import Query
from raglan_gateway.quoting import quote_passages
from raglan_gateway.stage import Stage, StageObserver, Unobserved

RECOVERABLE: Final = (Unavailable, Overloaded, DeadlineExceeded, Internal)
"""What a fallback can answer for. Anything else is the request's own fault and is reported."""


_SHARE: Final = 0.5
"""Of the time that is left, how much a stage with a fallback may use."""


class Stages(Protocol):
    """The services, as the pipeline calls them. Each raises `RaglanError`."""

    async def embed(
        self,
        texts: Sequence[str],
        kind: embedder_pb2.InputKind.ValueType,
        *,
        deadline: Deadline,
    ) -> embedder_pb2.EmbedResponse: ...

    async def search(
        self, request: retriever_pb2.SearchRequest, *, deadline: Deadline
    ) -> retriever_pb2.SearchResponse: ...

    async def rerank(
        self, request: reranker_pb2.RerankRequest, *, deadline: Deadline
    ) -> reranker_pb2.RerankResponse: ...

    def generate(
        self,
        request: generator_pb2.GenerateRequest,
        *,
        first_by: Deadline,
        deadline: Deadline,
    ) -> AsyncGenerator[generator_pb2.GenerateEvent, None]: ...


@dataclass(frozen=True, slots=True)
class Budgets:
    """The longest each stage may take, in seconds; see `Stage`."""

    embed_s: float
    retrieve_s: float
    rerank_s: float
    first_token_s: float
    cite_s: float


@dataclass(frozen=True, slots=True)
class Degradation:
    """A stage that was skipped or replaced, why, and by what."""

    stage: str
    reason: str
    fallback: str


@dataclass(slots=True)
class Run:
    """One query on its way, and what has come of it so far."""

    query: Query
    deadline: Deadline
    observer: StageObserver = field(default_factory=Unobserved)
    started: float = field(default_factory=time.monotonic)
    timings_ms: dict[str, float] = field(default_factory=dict)
    degraded: list[Degradation] = field(default_factory=list)
    passages: list[common_pb2.Passage] = field(default_factory=list)
    revisions: dict[str, int] = field(default_factory=dict)
    """Of the collections searched; the passages are as new, or newer."""
    retrieved: semconv.Documents | None = None
    """The passages as they came, for the trace."""
    answer: str = ""
    citations: list[generator_pb2.Citation] = field(default_factory=list)
    finished: generator_pb2.Finished = field(default_factory=generator_pb2.Finished)
    claims: list[Claim] = field(default_factory=list)
    _replaced: dict[str, RaglanError] = field(default_factory=dict)
    """Why stages fell back."""

    @asynccontextmanager
    async def through(self, stage: Stage) -> AsyncIterator[Deadline]:
        """Go through `stage`; yields until when.

        Raises:
            Overloaded: it is full.
            DeadlineExceeded: it takes longer than the query has time for.
        """
        with self.stage(stage.name):
            try:
                limit = stage.limit(self.deadline)
                async with stage.entered(self.query.priority, limit):
                    began = time.monotonic()
                    yield limit
                    stage.took(time.monotonic() - began)
            except RaglanError as error:
                error.stage = stage.name
                raise

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Record how long the block took."""
        begun = time.monotonic()
        yield
        self.timings_ms[name] = (time.monotonic() - begun) * 1e3

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Record how long the block took, also when it fails."""
        begun, remaining_s = time.monotonic(), self.deadline.remaining_s()
        self.observer.stage_began(name, remaining_s)
        error: BaseException | None = None
        try:
            with stage_spans.stage_span(name, remaining_s):
                yield
        except BaseException as raised:
            error = raised
            raise
        finally:
            elapsed_s = time.monotonic() - begun
            self.timings_ms[name] = elapsed_s * 1e3
            self.observer.stage_ended(name, elapsed_s, error or self._replaced.get(name))

    def spent(self, stage: str, timing: common_pb2.Timing) -> None:
        """Record how the service that did `stage` split its time."""
        self.timings_ms[f"{stage}_queue"] = timing.queue_ns / 1e6
        self.timings_ms[f"{stage}_compute"] = timing.compute_ns / 1e6
        stage_spans.spent(timing)

    def fall_back(self, stage: str, error: RaglanError) -> None:
        """Note that `stage` was replaced; a request whose own time is up fails instead."""
        if self.deadline.remaining_s() <= 0:
            raise DeadlineExceeded(f"The deadline passed in stage {stage}.")
        self._replaced[stage] = error
        self.note(Degradation(stage, error.message, FALLBACK[stage]))

    def note(self, degradation: Degradation) -> None:
        """One more stage was skipped or replaced."""
        self.degraded.append(degradation)
        stage_spans.fell_back(degradation.stage, degradation.reason, degradation.fallback)

    def forget_answer(self) -> None:
        """Begin the answer anew: what there is of it is void."""
        self.answer = ""
        self.citations.clear()
        self.timings_ms.pop("first_token", None)

    def close(self) -> None:
        """Record the total."""
        self.timings_ms["total"] = (time.monotonic() - self.started) * 1e3


@dataclass(frozen=True, slots=True)
class Started:
    """The request was accepted."""


@dataclass(frozen=True, slots=True)
class Sources:
    """The passages that the answer will rest on are known: `run.passages`."""

    run: Run


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

    run: Run


Event: TypeAlias = Started | Sources | Thinking | Delta | Cited | Restarted | Answered


class Pipeline:
    """Runs queries. Between them it holds only how its stages do."""

    def __init__(
        self,
        stages: Stages,
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
        self._embedding = Stage("embed", longest_s=budgets.embed_s, share=_SHARE)
        self._retrieval = Stage("retrieve", longest_s=budgets.retrieve_s, shortest_s=2.0)
        self._reranking = Stage("rerank", longest_s=budgets.rerank_s, share=_SHARE)
        self._generation = Stage("generate", longest_s=budgets.first_token_s, shortest_s=2.0)
        self._citing = Stage("cite", longest_s=budgets.cite_s, share=_SHARE)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """In the order in which a query passes them."""
        return (
            self._embedding,
            self._retrieval,
            self._reranking,
            self._generation,
            self._citing,
        )

    async def search(self, query: Query, deadline: Deadline) -> Run:
        """Find and rank passages.

        Raises:
            Overloaded: there is no place for it.
            RaglanError: the request is wrong, the retriever failed, or the deadline passed.
        """
        run = Run(query, deadline, self._observer)
        async with AsyncExitStack() as stack:
            with run.timed("admit"):
                await self.load_shedder.enter(stack, query.priority, deadline)
            await self._find(run)
        run.close()
        return run

    async def answer(self, query: Query, deadline: Deadline) -> AsyncGenerator[Event, None]:
        """Answer, as events: `Started`, `Sources`, then `Delta` and `Cited` mixed, `Answered`.

        `Thinking` may come between them, and `Restarted`, which makes earlier ones void.

        Raises:
            RaglanError: as `search`; or the generator failed after its first piece of text.
        """
        run = Run(query, deadline, self._observer)
        async with AsyncExitStack() as stack:
            with run.timed("admit"):
                await self.load_shedder.enter(stack, query.priority, deadline)
                # What its reader takes to be told counts too, here and below.
                yield Started()
            await self._find(run)
        with run.stage("generate"):
            yield Sources(run)
            async with aclosing(self._generate(run)) as events:
                async for event in events:
                    yield event
        await self._cite(run)
        run.close()
        yield Answered(run)

    async def _find(self, run: Run) -> None:
        vector = await self._embed(run)
        await self._retrieve(run, vector)
        await self._rerank(run)

    async def _embed(self, run: Run) -> embedder_pb2.EmbedResponse | None:
        """The query's vector; None means lexical only."""
        if run.query.mode == retriever_pb2.SEARCH_MODE_LEXICAL:
            return None
        try:
            async with run.through(self._embedding) as limit:
                reply = await self._services.embed(
                    [run.query.line], embedder_pb2.INPUT_KIND_QUERY, deadline=limit
                )
                run.spent("embed", reply.timing)
        except RECOVERABLE as error:
            run.fall_back("embed", error)
            return None
        return reply

    async def _retrieve(self, run: Run, embedded: embedder_pb2.EmbedResponse | None) -> None:
        async with run.through(self._retrieval) as limit:
            request = messages.search(run.query, embedded, self._rerank_candidates)
            found = await self._services.search(request, deadline=limit)
            run.spent("retrieve", found.timing)
            run.passages = list(found.passages)
            run.revisions = dict(found.revisions)
            run.retrieved = stage_spans.retrieved(run.passages)

    async def _rerank(self, run: Run) -> None:
        """Put the reranked passages first, best first; those past its budget keep their order."""
        unscored = "The request asked for no reranking."
        if run.query.rerank and run.passages:
            try:
                async with run.through(self._reranking) as limit:
                    reply = await self._services.rerank(
                        messages.rerank(run.query, run.passages[: self._rerank_candidates]),
                        deadline=limit,
                    )
                    run.spent("rerank", reply.timing)
                    unscored = _why_unscored(reply)
                    run.passages = messages.reordered(run.passages, reply)
                    stage_spans.reranked(run.retrieved, run.passages)
            except RECOVERABLE as error:
                run.fall_back("rerank", error)
                unscored = "The reranker did not answer."
        self._keep_relevant(run, unscored)
        del run.passages[run.query.top_k :]
        for rank, passage in enumerate(run.passages, start=1):
            passage.rank = rank

    def _keep_relevant(self, run: Run, unscored: str) -> None:
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

    async def _generate(self, run: Run) -> AsyncGenerator[Event, None]:
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
                for event in _absorb(run, reply):
                    yield event

    async def _generated(self, run: Run) -> AsyncGenerator[Event, None]:
        """What the generator writes. Its stage is as fast as its first token."""
        first_by = self._generation.limit(run.deadline)
        request = generator_pb2.GenerateRequest(
            question=run.query.text,
            passages=run.passages,
            max_tokens=run.query.max_tokens,
            first_token_ms=max(1, int(first_by.remaining_s() * 1e3)),
            lane=common_pb2.LANE_INTERACTIVE,
        )
        replies = self._services.generate(request, first_by=first_by, deadline=run.deadline)
        async with aclosing(replies):
            # The place is for the time until the first token, by which the limit is found. How many
            # answers are written at a time is the generator's to decide.
            async with self._generation.entered(run.query.priority, first_by):
                began = time.monotonic()
                first = await anext(replies, None)
                first_s = time.monotonic() - began
            if first is None:
                return
            try:
                for event in _absorb(run, first):
                    yield event
                async for reply in replies:
                    for event in _absorb(run, reply):
                        yield event
            finally:
                # An abstention may come without the model; it says nothing of what answers take.
                if run.finished.reason != generator_pb2.FINISH_REASON_ABSTAINED:
                    self._generation.took(first_s)

    async def _cite(self, run: Run) -> None:
        """Find out which sentences of the answer their citations support."""
        run.claims = claims_of(run.finished)
        comparison = Comparison.of(run.answer, run.claims, run.citations)
        if not comparison.texts:
            return
        try:
            async with run.through(self._citing) as limit:
                reply = await self._services.embed(
                    comparison.texts, embedder_pb2.INPUT_KIND_PASSAGE, deadline=limit
                )
        except RECOVERABLE as error:
            # The answer is out: what words say of it has to do, even if the time is up.
            run.note(Degradation("cite", error.message, FALLBACK["cite"]))
            return
        run.claims = comparison.applied(run.claims, reply)


def _why_unscored(reply: reranker_pb2.RerankResponse) -> str:
    """Why no passage has an absolute score; empty where some have one."""
    if reply.unreadable:
        return "The reranking model does not read the language of these texts."
    if not any(ranked.HasField("calibrated") for ranked in reply.ranked):
        return "The reranker gave no scores."
    return ""


def _absorb(run: Run, reply: generator_pb2.GenerateEvent) -> Iterator[Event]:
    """Fold one reply of the generator into `run`; what the caller should see of it."""
    match reply.WhichOneof("event"):
        case "delta":
            if "first_token" not in run.timings_ms:
                run.timings_ms["first_token"] = (time.monotonic() - run.started) * 1e3
            run.answer += reply.delta.text
            yield Delta(reply.delta.text)
        case "thinking":
            yield Thinking(reply.thinking.text)
        case "restart":
            run.forget_answer()
            yield Restarted()
        case "citation":
            run.citations.append(reply.citation)
            yield Cited(reply.citation, run.passages[reply.citation.passage_index])
        case "finished":
            run.finished = reply.finished
            run.spent("generate", reply.finished.timing)
            stage_spans.generated(reply.finished)
