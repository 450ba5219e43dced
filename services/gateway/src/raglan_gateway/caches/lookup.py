"""One query's keys in the caches, and what was found there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from raglan import tenancy
from raglan.cache import digest
from raglan.v1 import common_pb2, retriever_pb2

from raglan_gateway.caches import keys
from raglan_gateway.caches.entry import Entry, Layer
from raglan_gateway.caches.similar import Scope
from raglan_gateway.query import Query
from raglan_gateway.query_state import Known
from raglan_gateway.strategies.strategy import Strategy


class CacheObserver(Protocol):
    """Counts lookups; must return at once."""

    def looked_up(self, layer: Layer, saved_s: float | None) -> None:
        """Count a lookup: `saved_s` of a hit; None for a miss."""

    def joined(self) -> None:
        """Count a query that joined the run of another."""


class Uncounted:
    """No-op observer."""

    def looked_up(self, layer: Layer, saved_s: float | None) -> None:
        """Ignore a lookup."""

    def joined(self) -> None:
        """Ignore a query that joined another."""


@dataclass(slots=True)
class Lookup:
    """Keys and findings of one query."""

    models: Mapping[str, common_pb2.ServiceInfo]
    """Identities at the time of the lookup; results of the run are kept under the same."""
    places: dict[Layer, bytes] = field(default_factory=dict)
    flight: bytes = b""
    """Identical queries at the same revisions have the same; empty: the run cannot be shared."""
    known: Known = field(default_factory=Known)
    answer: Entry | None = None
    scope: Scope | None = None
    """Questions that may be similar; None where no answer of another question may be given."""

    def plan_answer(
        self,
        query: Query,
        revisions: Mapping[str, int],
        setup: str,
        *,
        keeps: Callable[[Layer], bool],
        finds_similar: bool,
    ) -> None:
        """Make the keys of a whole answer, if its models are known and it may be given again.

        Args:
            query: the question.
            revisions: of all its collections.
            setup: settings of the gateway that decide the passages.
            keeps: True for a layer that is on.
            finds_similar: True if answers to similar questions may be given.
        """
        if not self.is_known(query, *keys.generators(query)) or not is_repeatable(query):
            return
        key = keys.answer(query, revisions, self.models, setup)
        self.flight = digest(key.hex(), str(query.priority), str(query.stream))
        if not keeps(Layer.ANSWER):
            return
        self.places[Layer.ANSWER] = key
        # A follow-up is another question in another conversation, and what a model wrote for one
        # question was not written for another.
        alone = _is_dense(query) and not query.history and query.strategy is Strategy.NONE
        if finds_similar and alone:
            self.scope = scope_of(query, revisions, self.models, setup)

    def plan_stages(
        self,
        query: Query,
        revisions: Mapping[str, int] | None,
        setup: str,
        *,
        keeps: Callable[[Layer], bool],
    ) -> None:
        """Make the keys of the layers below an answer, where models and revisions are known."""
        # What a model writes is no part of the evidence, and the reply shows it.
        has_evidence = query.strategy is Strategy.NONE and self.is_known(query)
        if revisions is not None and has_evidence and keeps(Layer.EVIDENCE):
            key = keys.evidence(query, revisions, self.models, setup)
            self.places[Layer.EVIDENCE] = key
        if _is_dense(query) and keeps(Layer.EMBEDDING) and "embedder" in self.models:
            self.places[Layer.EMBEDDING] = keys.embedding(query, self.models)

    def is_known(self, query: Query, *further: str) -> bool:
        """Return whether the models are known that find the passages of `query`."""
        needed = list(further)
        if _is_dense(query):
            needed.append("embedder")
        if query.rerank:
            needed.append("reranker")
        return all(service in self.models for service in needed)


def _is_dense(query: Query) -> bool:
    return query.mode != retriever_pb2.SEARCH_MODE_LEXICAL


def scope_of(
    query: Query,
    revisions: Mapping[str, int],
    models: Mapping[str, common_pb2.ServiceInfo],
    setup: str,
) -> Scope:
    """Return what decides the answer besides the question; arguments as of `keys.answer`."""
    names = frozenset(map(tenancy.qualified, query.collections))
    return Scope(names, keys.scope(query, revisions, models, setup))


def is_repeatable(query: Query) -> bool:
    """Return whether the same answer may be given twice.

    A client that asks for sampling asks for another answer each time, unless it gives a seed: then
    it asks for the same one.
    """
    sampling = query.sampling
    if sampling is None or sampling.HasField("seed"):
        return True
    if sampling.HasField("temperature"):
        return sampling.temperature == 0
    return not sampling.HasField("top_p")
