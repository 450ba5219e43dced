"""The pipeline behind its caches: answers again what it knows, and runs what it does not."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Final

from raglan import tensors
from raglan.deadline import Deadline
from raglan.errors import DeadlineExceeded
from raglan.telemetry import tracing
from raglan.v1 import cache_pb2, embedder_pb2, generator_pb2, retriever_pb2

from raglan_gateway.caches import keys
from raglan_gateway.caches.entry import Entry, Layer
from raglan_gateway.caches.flights import SharedRun
from raglan_gateway.caches.guards import Features
from raglan_gateway.caches.lookup import (
    CacheObserver,
    Lookup,
    Uncounted,
    is_repeatable,
    scope_of,
)
from raglan_gateway.caches.models import ServedModels
from raglan_gateway.caches.revisions import CurrentRevisions
from raglan_gateway.caches.similar import Asked, SimilarQuestions
from raglan_gateway.caches.store import CacheStore
from raglan_gateway.grounding import claims_of
from raglan_gateway.pipeline import Answered, Event, Pipeline, Sources, Started, absorb
from raglan_gateway.query import Query
from raglan_gateway.query_state import CacheHit, Known, QueryState, SimilarQuestion
from raglan_gateway.strategies import outcomes
from raglan_gateway.strategies.strategy import Strategy
from raglan_gateway.understanding.replying import small_talk_events

_DECIDES_PASSAGES: Final = frozenset({"embed", "retrieve", "rerank", "expand"})
"""Stages whose results are the ranked passages."""

_JOINED_SHARE = 0.5
"""A run is joined if it has this share of one's own time left, or more."""


class CachedPipeline:
    """`Pipeline` with the three caches before it, and one run for identical queries.

    Args:
        pipeline: runs what is not cached.
        store: holds values; not owned.
        revisions: the present ones; not owned.
        models: those that are served; not owned.
        similar: questions whose answers are in `store`; not owned.
        setup: settings of the gateway that decide the passages.
        observer: counts lookups.
        spend: called with the tokens of an answer that was generated for the current request.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        store: CacheStore,
        revisions: CurrentRevisions,
        models: ServedModels,
        similar: SimilarQuestions,
        *,
        setup: str,
        observer: CacheObserver | None = None,
        spend: Callable[[int], None] = lambda tokens: None,
    ) -> None:
        self.uncached = pipeline
        self._store = store
        self._revisions = revisions
        self._models = models
        self._similar = similar
        self._setup = setup
        self._observer = observer or Uncounted()
        self._spend = spend
        self._flights: dict[bytes, SharedRun[Event]] = {}

    async def search(self, query: Query, deadline: Deadline) -> QueryState:
        """As `Pipeline.search`."""
        lookup = await self._look_up(query, is_answer=False)
        if lookup.known.evidence is not None:
            return self._found(query, deadline, lookup.known)
        run = await self.uncached.search(query, deadline, lookup.known)
        if query.has_strategy:
            self._spend(run.usage.completion_tokens)
        self._keep_evidence(run, lookup)
        return run

    async def answer(self, query: Query, deadline: Deadline) -> AsyncGenerator[Event, None]:
        """As `Pipeline.answer`: a cached answer has the same events as it had when it was made."""
        if query.small_talk:
            for event in small_talk_events(query, deadline):
                yield event
            return
        lookup = await self._look_up(query, is_answer=True)
        if (
            lookup.answer is not None
            and (again := self._again(query, deadline, lookup.answer)) is not None
        ):
            for event in again:
                yield event
            return
        if not lookup.flight or not query.cache.reads or not query.cache.stores:
            async with aclosing(self._run(query, deadline, lookup)) as events:
                async for event in events:
                    yield event
            return
        async with aclosing(self._shared(query, deadline, lookup)) as events:
            async for event in events:
                yield event

    async def _shared(
        self, query: Query, deadline: Deadline, lookup: Lookup
    ) -> AsyncGenerator[Event, None]:
        seen = 0
        flight = self._flights.get(lookup.flight)
        if flight is not None and not flight.is_over and _is_long_enough(flight, deadline):
            self._observer.joined()
            tracing.current().set_attribute("raglan.cache.joined", True)
            try:
                async with aclosing(flight.follow()) as events:
                    async for event in events:
                        seen += 1
                        yield event
                return
            except DeadlineExceeded:
                # It was the other's deadline: with our own there may be time to begin again.
                if seen > 1 or deadline.remaining_s() <= 0:
                    raise
        run = self._run(query, deadline, lookup)
        flight = SharedRun(run, deadline, partial(self._landed, lookup.flight))
        self._flights[lookup.flight] = flight
        async with aclosing(flight.follow()) as events:
            async for event in events:
                if not (seen and isinstance(event, Started)):
                    yield event

    def _landed(self, key: bytes, flight: SharedRun[Event]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]

    async def _run(
        self, query: Query, deadline: Deadline, lookup: Lookup
    ) -> AsyncGenerator[Event, None]:
        reuse = partial(self._reuse, lookup) if self._reuses(query, lookup) else None
        events = self.uncached.answer(query, deadline, lookup.known, reuse)
        async with aclosing(events):
            async for event in events:
                if isinstance(event, Answered) and event.run.similar is not None:
                    self._keep_vector(event.run, lookup)
                elif isinstance(event, Answered):
                    self._spend(event.run.usage.completion_tokens)
                    self._keep_evidence(event.run, lookup)
                    self._keep_answer(event.run, lookup)
                yield event

    def _reuses(self, query: Query, lookup: Lookup) -> bool:
        return self._similar.is_on and query.cache.reads and lookup.scope is not None

    async def _reuse(self, lookup: Lookup, run: QueryState) -> list[Event]:
        """Return the events of the answer to a question that asks the same; none if there is none.

        Where an answer is gone from the cache, that of the next question is taken.
        """
        features = Features.of(run.query.line)
        if features is None or run.embedded is None or lookup.scope is None:
            return []
        vector = tensors.unpack(run.embedded.vectors)[0]
        matches = self._similar.find(lookup.scope, features, vector)
        entries = await self._store.get([(Layer.ANSWER, match.asked.answer) for match in matches])
        for match, found in zip(matches, entries, strict=True):
            if (entry := self._young(found, run.query)) is None:
                continue
            if events := self._replayed(run, entry, Layer.SEMANTIC):
                run.similar = SimilarQuestion(match.asked.text, match.similarity)
                self._count(Layer.SEMANTIC, entry)
                return events
        self._count(Layer.SEMANTIC, None)
        return []

    async def _look_up(self, query: Query, *, is_answer: bool) -> Lookup:
        """Find what is cached for a query, in one round trip to Redis at most."""
        store, models = self._store, dict(self._models.known)
        lookup = Lookup(models)
        revisions = None
        if store.keeps(Layer.EVIDENCE) or store.keeps(Layer.ANSWER):
            revisions = await self._revisions.get(query.tenant, query.collections)
        if is_answer and revisions is not None:
            similar = self._similar.is_on
            lookup.plan_answer(
                query, revisions, self._setup, keeps=store.keeps, finds_similar=similar
            )
            place = lookup.places.get(Layer.ANSWER)
            local = store.get_local((Layer.ANSWER, place)) if place and query.cache.reads else None
            if (young := self._young(local, query)) is not None:
                self._use(lookup, {Layer.ANSWER: young})
                return lookup
        lookup.plan_stages(query, revisions, self._setup, keeps=store.keeps)
        if query.cache.reads and lookup.places:
            entries = await store.get(list(lookup.places.items()))
            found = zip(lookup.places, entries, strict=True)
            self._use(lookup, {layer: self._young(entry, query) for layer, entry in found})
        return lookup

    def _young(self, entry: Entry | None, query: Query) -> Entry | None:
        oldest_s = query.cache.max_age_s
        if entry is None or oldest_s is None:
            return entry
        return entry if self._store.age_s(entry) <= oldest_s else None

    def _use(self, lookup: Lookup, found: Mapping[Layer, Entry | None]) -> None:
        """Note the lowest layer that has to run, and count what was found above it."""
        lookup.answer = found.get(Layer.ANSWER)
        if Layer.ANSWER in found:
            self._count(Layer.ANSWER, lookup.answer)
        if lookup.answer is not None:
            return
        if (entry := found.get(Layer.EVIDENCE)) is not None:
            lookup.known.evidence = entry.message(retriever_pb2.SearchResponse)
            lookup.known.hits[Layer.EVIDENCE] = self._hit(entry)
        if Layer.EVIDENCE in found:
            self._count(Layer.EVIDENCE, entry)
        if lookup.known.evidence is not None:
            return
        if (entry := found.get(Layer.EMBEDDING)) is not None:
            lookup.known.embedded = entry.message(embedder_pb2.EmbedResponse)
            lookup.known.hits[Layer.EMBEDDING] = self._hit(entry)
        if Layer.EMBEDDING in found:
            self._count(Layer.EMBEDDING, entry)

    def _count(self, layer: Layer, entry: Entry | None) -> None:
        self._observer.looked_up(layer, entry.cost_s if entry else None)
        tracing.looked_up(f"{layer}_cache", hits=int(entry is not None), misses=int(entry is None))

    def _hit(self, entry: Entry) -> CacheHit:
        return CacheHit(self._store.age_s(entry), entry.cost_s)

    def _found(self, query: Query, deadline: Deadline, known: Known) -> QueryState:
        run = QueryState(query, deadline)
        run.use_evidence(known)
        run.close()
        return run

    def _again(self, query: Query, deadline: Deadline, entry: Entry) -> list[Event] | None:
        """Return the events of a cached answer."""
        run = QueryState(query, deadline)
        events = self._replayed(run, entry, Layer.ANSWER)
        return [Started(run.asked.standalone or query.text), *events] if events else None

    def _replayed(self, run: QueryState, entry: Entry, layer: Layer) -> list[Event]:
        """Return the events of a cached answer after `Started`; none where it is damaged."""
        kept = entry.message(cache_pb2.CachedAnswer)
        if kept is None or not kept.events:
            return []
        timings_ms = dict(run.timings_ms)
        run.cached[layer] = self._hit(entry)
        run.entry = entry
        run.passages = list(kept.found.passages)
        run.revisions = dict(kept.found.revisions)
        run.strategy = outcomes.from_proto(kept.strategy)
        if run.strategy.standalone:
            run.asked = replace(run.query, standalone=run.strategy.standalone)
        run.synonyms = list(kept.found.synonyms)
        events: list[Event] = [Sources(run)]
        for event in kept.events:
            run.events.append(event)
            events.extend(absorb(run, event))
        run.timings_ms = timings_ms
        run.claims = [
            replace(claim, cosine=kept.cosines[at]) if at in kept.cosines else claim
            for at, claim in enumerate(claims_of(run.finished))
        ]
        run.close()
        events.append(Answered(run))
        return events

    def _keep_vector(self, run: QueryState, lookup: Lookup) -> None:
        query = run.query
        if query.cache.stores and run.embedded is not None and Layer.EMBEDDING not in run.cached:
            known = lookup.models.get("embedder")
            if known is not None and run.embedded.model == known.model:
                place = (Layer.EMBEDDING, keys.embedding(query, lookup.models))
                cost_s = run.timings_ms.get("embed", 0.0) / 1e3
                self._store.put(place, run.embedded.SerializeToString(), cost_s)

    def _keep_evidence(self, run: QueryState, lookup: Lookup) -> None:
        """Keep what a run found, unless a stage fell back on the way."""
        query, taken = run.query, run.timings_ms
        self._keep_vector(run, lookup)
        fell_back = {each.stage for each in run.degraded}
        if (
            not query.cache.stores
            or Layer.EVIDENCE in run.cached
            or query.strategy is not Strategy.NONE
            or run.strategy.helped
            or not lookup.is_known(query)
            or fell_back & _DECIDES_PASSAGES
            or not all(run.revisions.get(name) for name in query.collections)
        ):
            return
        place = (
            Layer.EVIDENCE,
            keys.evidence(query, run.revisions, lookup.models, self._setup),
        )
        found = _found(run)
        cost_s = sum(taken.get(stage, 0.0) for stage in _DECIDES_PASSAGES) / 1e3
        self._store.put(place, found.SerializeToString(), cost_s)

    def _keep_answer(self, run: QueryState, lookup: Lookup) -> None:
        query = run.query
        if (
            not query.cache.stores
            or run.degraded
            or not is_repeatable(query)
            or not lookup.is_known(query, *keys.generators(query))
            or run.finished.reason == generator_pb2.FINISH_REASON_CONTENT_FILTER
            or not run.events
            or not all(run.revisions.get(name) for name in query.collections)
        ):
            return
        kept = cache_pb2.CachedAnswer(
            found=_found(run),
            events=run.events,
            cosines={
                at: claim.cosine for at, claim in enumerate(run.claims) if claim.cosine is not None
            },
            strategy=outcomes.to_proto(run.strategy),
        )
        key = keys.answer(query, run.revisions, lookup.models, self._setup)
        cost_s = time.monotonic() - run.started
        self._store.put((Layer.ANSWER, key), kept.SerializeToString(), cost_s)
        self._keep_question(run, lookup, key)

    def _keep_question(self, run: QueryState, lookup: Lookup, key: bytes) -> None:
        """Let similar questions find the answer that was just kept."""
        if not self._similar.is_on or lookup.scope is None or run.embedded is None:
            return
        if run.strategy.is_used:  # the vector may be that of another text
            return
        if (features := Features.of(run.query.line)) is not None:
            scope = scope_of(run.query, run.revisions, lookup.models, self._setup)
            asked = Asked(run.query.text, features, key)
            self._similar.add(scope, asked, tensors.unpack(run.embedded.vectors)[0])


def _is_long_enough(flight: SharedRun[Event], deadline: Deadline) -> bool:
    return flight.deadline.remaining_s() >= _JOINED_SHARE * deadline.remaining_s()


def _found(run: QueryState) -> retriever_pb2.SearchResponse:
    """Return what a run found, as it is kept."""
    return retriever_pb2.SearchResponse(
        passages=run.passages, revisions=run.revisions, synonyms=run.synonyms
    )
