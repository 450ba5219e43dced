"""State of a query on its way through the stages, and the block that is one stage of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType

from raglan.deadline import Deadline
from raglan.errors import DeadlineExceeded, RaglanError
from raglan.telemetry import semconv, tracing
from raglan.v1 import common_pb2, embedder_pb2, generator_pb2, retriever_pb2

from raglan_gateway import stage_spans
from raglan_gateway.caches.entry import Entry, Layer
from raglan_gateway.degradation import FALLBACK
from raglan_gateway.grounding import Claim
from raglan_gateway.query import Query
from raglan_gateway.stage import StageLimiter, StageObserver, Unobserved
from raglan_gateway.strategies.strategy import Outcome, SearchText


@dataclass(frozen=True, slots=True)
class Degradation:
    """A stage that was skipped or replaced, why, and by what."""

    stage: str
    reason: str
    fallback: str
    collection: str = ""
    """The collection that was left out, of stage `collection`."""


@dataclass(frozen=True, slots=True)
class CacheHit:
    """A result that came from a cache."""

    age_s: float
    saved_s: float
    """Time that making it had taken."""


@dataclass(frozen=True, slots=True)
class SimilarQuestion:
    """The question that a cached answer was made for, where it is not the one that was asked."""

    text: str
    similarity: float
    """Cosine of the vectors."""


@dataclass(slots=True)
class Known:
    """Results that a query need not be run for."""

    embedded: embedder_pb2.EmbedResponse | None = None
    evidence: retriever_pb2.SearchResponse | None = None
    hits: dict[Layer, CacheHit] = field(default_factory=dict)


@dataclass(slots=True)
class QueryState:
    """State of one query: the results of its stages so far."""

    query: Query
    deadline: Deadline
    observer: StageObserver = field(default_factory=Unobserved)
    started: float = field(default_factory=time.monotonic)
    timings_ms: dict[str, float] = field(default_factory=dict)
    degraded: list[Degradation] = field(default_factory=list)
    passages: list[common_pb2.Passage] = field(default_factory=list)
    revisions: dict[str, int] = field(default_factory=dict)
    """Revision of each searched collection; the passages are of it, or newer."""
    collections: list[retriever_pb2.CollectionSearch] = field(default_factory=list)
    """The search of each collection; empty where the passages come from a cache."""
    synonyms: list[retriever_pb2.Synonym] = field(default_factory=list)
    """Other forms of words of the question that were searched for as well."""
    retrieved: semconv.Documents | None = None
    """The passages as they came, for the trace."""
    answer: str = ""
    thinking: str = ""
    """Reasoning of the model, which is no part of the answer."""
    citations: list[generator_pb2.Citation] = field(default_factory=list)
    finished: generator_pb2.Finished = field(default_factory=generator_pb2.Finished)
    claims: list[Claim] = field(default_factory=list)
    embedded: embedder_pb2.EmbedResponse | None = None
    """The query's vector, where it has one."""
    events: list[generator_pb2.GenerateEvent] = field(default_factory=list)
    """The generator's events, adjacent deltas as one."""
    cached: dict[Layer, CacheHit] = field(default_factory=dict)
    """Layers of the cache that a result came from."""
    entry: Entry | None = None
    """The cached answer, where it is one."""
    similar: SimilarQuestion | None = None
    """Where the cached answer is that of another question."""
    strategy: Outcome = field(default_factory=Outcome)
    """Search texts and outcomes of the query's strategies."""
    search_texts: list[SearchText] = field(default_factory=list)
    """Texts that are searched beside the question."""
    searched: Query = field(init=False)
    """The query as it is searched."""
    asked: Query = field(init=False)
    """The query as it is reranked and answered."""
    _replaced: dict[str, RaglanError] = field(default_factory=dict)
    """Errors of the stages that fell back."""
    _stage_began: float = 0.0
    _span: tracing.span = field(init=False)
    """Span of the current stage; stages do not overlap."""

    def __post_init__(self) -> None:
        self.searched = self.asked = self.query
        for stage, reason in self.query.missing:
            self.note(Degradation(stage, reason, FALLBACK[stage]))

    @property
    def usage(self) -> generator_pb2.Usage:
        """Tokens of the answer, and of whatever else a model did for the query."""
        usage = generator_pb2.Usage()
        for each in (self.finished.usage, self.strategy.usage):
            usage.prompt_tokens += each.prompt_tokens
            usage.completion_tokens += each.completion_tokens
            usage.cached_tokens += each.cached_tokens
        return usage

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Record the block as stage `name`, also when it fails."""
        self.begin_stage(name)
        try:
            yield
        except BaseException as error:
            self.end_stage(name, error)
            raise
        self.end_stage(name, None)

    def begin_stage(self, name: str) -> None:
        """Record that the query came to stage `name`; the span of the stage is current then."""
        remaining_s = self.deadline.remaining_s()
        self.observer.stage_began(name, remaining_s)
        self._stage_began = time.monotonic()
        self._span = stage_spans.stage_span(name, remaining_s)
        self._span.__enter__()

    def end_stage(self, name: str, error: BaseException | None) -> None:
        """Record that the query left stage `name`, because of `error` if there is one."""
        self._span.__exit__(type(error) if error else None, error, None)
        elapsed_s = time.monotonic() - self._stage_began
        self.timings_ms[name] = elapsed_s * 1e3
        self.observer.stage_ended(name, elapsed_s, error or self._replaced.get(name))

    def record_admission(self) -> None:
        """Record the time until the query was admitted."""
        self.timings_ms["admit"] = (time.monotonic() - self.started) * 1e3

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

    def record_search(self, found: retriever_pb2.SearchResponse) -> None:
        """Take the passages of a search, and note the collections that it left out."""
        self.spent("retrieve", found.timing)
        self.passages = list(found.passages)
        self.revisions = dict(found.revisions)
        self.synonyms = list(found.synonyms)
        self.collections = list(found.searched)
        for each in found.searched:
            if each.error:
                reason = f"Collection {each.collection!r} is left out: {each.error}"
                fallback = FALLBACK["collection"]
                self.note(Degradation("collection", reason, fallback, each.collection))

    def note(self, degradation: Degradation) -> None:
        """One more stage was skipped or replaced."""
        self.degraded.append(degradation)
        stage_spans.fell_back(degradation.stage, degradation.reason, degradation.fallback)

    def use_evidence(self, known: Known) -> None:
        """Take the passages from the cache."""
        assert known.evidence is not None
        self.passages = list(known.evidence.passages)
        self.revisions = dict(known.evidence.revisions)
        self.synonyms = list(known.evidence.synonyms)
        self.cached.update(known.hits)

    def record_event(self, event: generator_pb2.GenerateEvent) -> None:
        """Remember an event of the generator, for who asks the same."""
        last = self.events[-1] if self.events else None
        for kind in ("delta", "thinking"):
            if event.HasField(kind) and last is not None and last.HasField(kind):
                getattr(last, kind).text += getattr(event, kind).text
                return
        copied = generator_pb2.GenerateEvent()
        copied.CopyFrom(event)
        self.events.append(copied)

    def forget_answer(self) -> None:
        """Begin the answer anew: what there is of it is void, reasoning included."""
        self.thinking = ""
        self.answer = ""
        self.citations.clear()
        self.timings_ms.pop("first_token", None)

    def close(self) -> None:
        """Record the total."""
        self.timings_ms["total"] = (time.monotonic() - self.started) * 1e3


class run_stage:  # noqa: N801 - reads as a statement: async with run_stage(...)
    """Run a block as one stage of a query: recorded, in a place, by a deadline.

    Entering returns the deadline of the stage, and raises:
        Overloaded: the stage has no place by its deadline.
        DeadlineExceeded: the stage takes longer than the query has time for.
    """

    __slots__ = ("_began", "_limiter", "_place", "_state")

    def __init__(self, state: QueryState, limiter: StageLimiter) -> None:
        self._state = state
        self._limiter = limiter

    async def __aenter__(self) -> Deadline:
        self._state.begin_stage(self._limiter.name)
        try:
            limit = self._limiter.limit(self._state.deadline)
            self._place = self._limiter.place(self._state.query.priority, limit)
            await self._place.__aenter__()
        except BaseException as error:
            self._end(error)
            raise
        self._began = time.monotonic()
        return limit

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self._limiter.observe(time.monotonic() - self._began)
        await self._place.__aexit__(kind, error, traceback)
        self._end(error)

    def _end(self, error: BaseException | None) -> None:
        if isinstance(error, RaglanError):
            error.stage = self._limiter.name
        self._state.end_stage(self._limiter.name, error)
