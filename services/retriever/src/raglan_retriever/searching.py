"""Searching: two legs over one or several collections, fused into one list of distinct texts.

Each collection is searched on its own, all at the same time, within a budget if the query has one:
a collection that is late or fails is left out, and the others answer. Hits are merged by the scores
of each leg before the legs are fused.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from raglan import fusion
from raglan.errors import InvalidInput
from raglan.filtering.clauses import Clause
from raglan.identifiers import check_collection_name
from raglan.telemetry import semconv, tracing

from raglan_retriever import lexical, model_legs
from raglan_retriever.attempts import Attempts, Searched
from raglan_retriever.chunks import Chunk, duplicate_key
from raglan_retriever.collection import Collection, Model
from raglan_retriever.merging import FEW, Holders, Key, meant, merge, population
from raglan_retriever.model_legs import DENSE, NO_QUERY_VECTORS, QueryVectors
from raglan_retriever.stores.spans import engine_span
from raglan_retriever.stores.store import Hit, SearchVector, Store
from raglan_retriever.validity import valid
from raglan_retriever.word_search import Synonyms, WordSearch, joined

Mode = Literal["hybrid", "dense", "lexical"]
MAX_TEXT_CHARS: Final = 32_768
_OVER_FETCH: Final = 2
_DEEPER: Final = 4
_MAX_DEPTH: Final = 4_000
"""Hits a leg gives at most when copies of the same texts take the places of others."""

_NOTABLE: Final = 0.25
"""Least share of a query's terms that its identifiers are if they alone decide what it means: a
claim of a dozen words that names a gene is about more than the gene."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one call."""

    max_limit: int = 1000
    max_upsert_chunks: int = 1000
    min_candidates: int = 200
    max_collections: int = 16


@dataclass(frozen=True, slots=True)
class Fusion:
    """Parameters of the fusion of the two legs of a hybrid search."""

    method: fusion.Method = "dbsf"
    dense_weight: float = 1
    lexical_weight: float = 1


@dataclass(frozen=True, slots=True)
class Query:
    """One search."""

    collections: tuple[str, ...]
    mode: Mode
    limit: int
    text: str = ""
    """Needed unless `mode` is dense."""

    vector: NDArray[np.float32] | None = None
    """Of shape (dimension,). Needed unless `mode` is lexical."""

    model: Model | None = None
    """Made `vector`."""

    readability: float | None = None
    """Readability of `text` for `model`, in [0, 1]; None where that is not known."""

    further: QueryVectors = NO_QUERY_VECTORS
    """Vectors by `model` besides `vector`, for collections that have such of their chunks."""

    where: Clause | None = None
    as_of_ms: int | None = None
    """Milliseconds since 1970: the time whose versions are searched; None for the present ones."""
    fusion: Fusion = field(default_factory=Fusion)
    collection_budget_s: float | None = None
    """Seconds that each collection may take before it is left out; None: all have to answer."""

    def within(self, remaining_s: float) -> Query:
        """Return the query with a budget of at most half of the time that the call has left."""
        budget_s = self.collection_budget_s
        if budget_s is None or budget_s <= remaining_s / 2:
            return self
        return replace(self, collection_budget_s=remaining_s / 2)


@dataclass(frozen=True, slots=True)
class SearchHit:
    """A chunk that a search found, with the scores that took part."""

    chunk: Chunk
    collection: str
    dense: float | None
    lexical: float | None
    fused: float | None
    exact: bool = False
    """True if it holds words or an identifier of the query that hardly another chunk does."""
    duplicates: int = 0
    """Further chunks with the same text that were left out of the result."""


@dataclass(frozen=True, slots=True)
class Results:
    """Result of a search."""

    found: list[SearchHit]
    """Best first."""
    revisions: dict[str, int]
    """By collection, as of before the search: the chunks found are as new, or newer."""
    searched: list[Searched]
    """One for each collection of the query, in its order."""
    synonyms: Synonyms = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Part:
    """Hits of the legs in one collection."""

    collection: Collection
    revision: int
    by_model: dict[str, list[Hit]]
    """By leg of `model_legs`."""
    lexical: list[Hit]
    holders: Holders
    synonyms: Synonyms


@dataclass(frozen=True, slots=True)
class _Scores:
    """Scores of the hits, by leg."""

    dense: dict[Key, float]
    lexical: dict[Key, float]
    fused: dict[Key, float]
    """Empty where there is one leg only."""
    exact: frozenset[Key]


class Searcher:
    """Answers queries over the collections of a store."""

    def __init__(
        self,
        store: Store,
        limits: Limits,
        timed: Callable[[str], AbstractContextManager[None]],
        *,
        expand_abbreviations: bool = True,
    ) -> None:
        """Search the collections of `store`.

        Args:
            store: Holds the chunks.
            limits: Limits of a call.
            timed: Entered around each part of a search: a leg, or fetch.
            expand_abbreviations: Search also by the other form of abbreviations that the collection
                defines.
        """
        self._words = WordSearch(self._hits, self._chunks, expands=expand_abbreviations)
        self.store: Final = store
        self.limits: Final = limits
        self._timed = timed

    async def search(self, query: Query) -> Results:
        """Find the best chunks.

        With a budget, a collection that is late or cannot be searched is left out, unless there is
        none besides it.

        Raises:
            InvalidInput: what the mode needs is missing, or the limit is out of range.
            NotFound: a collection that does not exist, by name.
            Conflict: the query's vector, or one collection's, comes from another model.
        """
        names = self._check(query)
        attempts = Attempts(names, query.collection_budget_s)
        depth = max(self.limits.min_candidates, _OVER_FETCH * query.limit)
        while True:
            parts = await attempts.run(names, partial(self._part, query, depth))
            found, is_all = await self._fused(query, list(parts.values()), depth, attempts)
            if len(found) == query.limit or is_all or depth >= _MAX_DEPTH or attempts.are_late:
                break
            # Copies of the same texts took the places.
            depth = min(_DEEPER * depth, _MAX_DEPTH)
        left = attempts.errors
        revisions = {name: part.revision for name, part in parts.items() if name not in left}
        hits = Counter(each.collection for each in found)
        synonyms = joined(part.synonyms for name, part in parts.items() if name not in left)
        return Results(found, revisions, attempts.outcome(hits), synonyms)

    async def _part(self, query: Query, depth: int, name: str) -> _Part:
        """Search one collection."""
        ((collection, revision),) = await self.store.versioned((name,))
        if query.mode != "dense":
            collection.check_analysis()
        if query.mode != "lexical" and query.model is not None:
            collection.check_model(query.model)
        query = replace(query, where=valid(collection, query.as_of_ms, query.where))
        several = len(query.collections) > 1  # else the call's own span is that of the collection
        span = tracing.span("search_collection", {semconv.COLLECTION: name})
        with span if several else nullcontext():
            by_model, (words, holders, synonyms) = await asyncio.gather(
                self._model_legs(query, collection, depth),
                self._lexical_leg(query, collection, depth),
            )
        return _Part(collection, revision, by_model, words, holders, synonyms)

    async def _fused(
        self, query: Query, parts: Sequence[_Part], depth: int, attempts: Attempts
    ) -> tuple[list[SearchHit], bool]:
        """Return the best of the first `depth` hits of each leg, and whether no leg has more."""
        collections = [each.collection for each in parts]
        names = [each.name for each in collections]
        by_model = model_legs.merged(names, [each.by_model for each in parts], depth)
        dense = by_model.get(DENSE, [])
        words = merge(names, [each.lexical for each in parts], depth)
        identified = meant([each.holders for each in parts]).intersection(key for key, _ in words)
        is_all = all(len(hits) < depth for hits in (words, *by_model.values()))
        by_words = fusion.Leg(
            words,
            query.fusion.lexical_weight,
            population(collections, len(dense) if 0 < len(dense) < depth else None),
        )
        exact = fusion.exact_matches(by_words)
        if len(words) == depth and not exact:
            # Chunks further down may score nearly as high as the last, so not 0.
            by_words = replace(by_words, population=0)
        exact |= identified
        if query.mode == "hybrid":
            worth = model_legs.worth(query.readability, query.text, collections)
            credit = None if set(worth.values()) == {1.0} else lambda key: worth[key[0]]
            by_meaning = model_legs.weighted(by_model, query.fusion.dense_weight, credit)
            ranked = fusion.fuse([*by_meaning, by_words], query.fusion.method)
            # A score that did not take part is not shown.
            if not all(worth.values()):
                dense = [(key, score) for key, score in dense if worth[key[0]] > 0]
        elif len(by_model) > 1:
            ranked = fusion.fuse(model_legs.weighted(by_model, 1), query.fusion.method)
        else:
            ranked = dense or words
        if exact:
            ranked = sorted(ranked, key=lambda item: item[0] not in exact)
        with self._timed("fetch"):
            fused = dict(ranked) if query.mode == "hybrid" or len(by_model) > 1 else {}
            scores = _Scores(dict(dense), dict(words), fused, exact)
            found = await self._distinct(query, ranked, scores, attempts)
        return found, is_all

    async def _distinct(
        self,
        query: Query,
        ranked: Sequence[tuple[Key, float]],
        scores: _Scores,
        attempts: Attempts,
    ) -> list[SearchHit]:
        """Return the first `query.limit` different texts of `ranked` with their number of copies.

        Copies have similar scores, so they are counted up to where `query.limit` hits in a row are
        none.
        """
        kept: dict[tuple[str, str], SearchHit] = {}
        for start in range(0, len(ranked), query.limit):
            copies = 0
            some = ranked[start : start + query.limit]
            for found in await self._fetch(some, scores, attempts):
                key = duplicate_key(found.chunk)
                if (first := kept.get(key)) is not None:
                    shown = _preferred(first, found, kept.values())
                    kept[key] = replace(shown, duplicates=first.duplicates + 1)
                    copies += 1
                elif len(kept) < query.limit:
                    kept[key] = found
            if len(kept) >= query.limit and not copies:
                break
        return list(kept.values())

    def _check(self, query: Query) -> tuple[str, ...]:
        """Validate the query and return the collections to search, without duplicates."""
        if not 1 <= query.limit <= self.limits.max_limit:
            raise InvalidInput(
                f"limit is {query.limit}; it must be 1 to {self.limits.max_limit} "
                "(RAGLAN_RETRIEVER_MAX_LIMIT)."
            )
        names = tuple(dict.fromkeys(check_collection_name(name) for name in query.collections))
        if not names:
            raise InvalidInput("The search names no collection.")
        if len(names) > self.limits.max_collections:
            raise InvalidInput(
                f"The search names {len(names)} collections; the limit is "
                f"{self.limits.max_collections} (RAGLAN_RETRIEVER_MAX_SEARCHED_COLLECTIONS)."
            )
        if len(query.text) > MAX_TEXT_CHARS:
            raise InvalidInput(
                f"The text has {len(query.text)} characters; the limit is {MAX_TEXT_CHARS}."
            )
        if query.mode != "dense" and not query.text.strip():
            raise InvalidInput(f"A {query.mode} search needs a text.")
        if query.mode != "lexical":
            if query.vector is None or query.model is None:
                raise InvalidInput(
                    f"A {query.mode} search needs a vector and the model it comes from."
                )
            model_legs.check(query.vector, query.further, query.model)
        return names

    async def _model_legs(self, query: Query, held: Collection, depth: int) -> dict[str, list[Hit]]:
        if query.mode == "lexical" or query.vector is None:
            return {}

        async def hits(leg: str, vector: SearchVector) -> list[Hit]:
            with self._timed(leg):
                return await self._hits(leg, held.name, vector, depth, query.where)

        vectors = model_legs.vectors_for(held, query.vector, query.further)
        found = await asyncio.gather(*(hits(*each) for each in vectors.items()))
        return dict(zip(vectors, found, strict=True))

    async def _lexical_leg(
        self, query: Query, held: Collection, depth: int
    ) -> tuple[list[Hit], Holders, Synonyms]:
        """Return hits by the words of the query, the holders of its identifiers, and synonyms."""
        if query.mode == "dense":
            return [], {}, {}
        with self._timed("lexical"):
            holders = await self._holders(query, held)
            # Where a name is known as a whole, its parts would only find other names.
            words = lexical.query(query.text, held.languages, held.language, holders.keys())
            if not words.indices:
                return [], {}, {}
            if len(holders) < _NOTABLE * len(words.indices):
                holders = {}
            hits, synonyms = await self._words.hits(query.text, held, words, depth, query.where)
            return hits, holders, synonyms

    async def _holders(self, query: Query, held: Collection) -> Holders:
        """Return the first chunks of a collection that hold a whole identifier of the query."""
        asked = lexical.identified(query.text, held.languages, held.language)
        found = await asyncio.gather(
            *(
                self._hits("lexical", held.name, words, FEW + 1, query.where)
                for words in asked.values()
            )
        )
        return {
            identifier: [(held.name, hit.id) for hit in hits]
            for identifier, hits in zip(asked, found, strict=True)
            if hits
        }

    async def _hits(
        self,
        leg: str,
        name: str,
        query: SearchVector,
        depth: int,
        where: Clause | None,
    ) -> list[Hit]:
        asked = {
            semconv.MODE: leg,
            semconv.LIMIT: depth,
            semconv.FILTERED: where is not None,
        }
        with engine_span(self.store.name, semconv.INDEX_SEARCH, name, asked) as span:
            hits = await self.store.search(name, query, depth, where)
            span.set_attribute(semconv.DB_ROWS, len(hits))
        return hits

    async def _chunks(self, name: str, ids: Sequence[str]) -> dict[str, Chunk]:
        with engine_span(
            self.store.name, semconv.INDEX_FETCH, name, {semconv.LIMIT: len(ids)}
        ) as span:
            chunks = await self.store.fetch(name, ids)
            span.set_attribute(semconv.DB_ROWS, len(chunks))
        return chunks

    async def _fetch(
        self,
        ranked: Sequence[tuple[Key, float]],
        scores: _Scores,
        attempts: Attempts,
    ) -> list[SearchHit]:
        """Return the chunks of `ranked`, in its order; one deleted meanwhile is left out."""
        wanted: dict[str, list[str]] = {}
        for (name, id_), _ in ranked:
            wanted.setdefault(name, []).append(id_)
        chunks = await attempts.run(wanted, lambda name: self._chunks(name, wanted[name]))
        return [
            SearchHit(
                chunk=chunk,
                collection=name,
                dense=scores.dense.get(key),
                lexical=scores.lexical.get(key),
                fused=scores.fused.get(key),
                exact=key in scores.exact,
            )
            for key, _ in ranked
            if (chunk := chunks.get(name := key[0], {}).get(key[1])) is not None
        ]


def _preferred(first: SearchHit, copy: SearchHit, result: Iterable[SearchHit]) -> SearchHit:
    """Select the copy to show: that of the document which ranks lower, or not at all.

    Args:
        first: The copy shown so far.
        copy: Another one.
        result: What is shown so far, best first, `first` included.
    """
    shown = [_document(each) for each in result if each is not first]

    def best_place(found: SearchHit) -> int:
        document = _document(found)
        return shown.index(document) if document in shown else len(shown)

    return max(first, copy, key=best_place)


def _document(found: SearchHit) -> tuple[str, str]:
    return found.collection, found.chunk.document_id
