"""Searching: two legs over one or several collections, fused into one list of distinct texts.

Each collection is searched on its own, all at the same time, within a budget if the query has one:
a collection that is late or fails is left out, and the others answer. Hits are merged by the scores
of each leg before the legs are fused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

from raglan import fusion
from raglan.telemetry import semconv, tracing

from raglan_retriever import model_legs
from raglan_retriever.attempts import Attempts, Searched
from raglan_retriever.chunks import Chunk, duplicate_key
from raglan_retriever.legs import Legs, Part, Synonyms, joined
from raglan_retriever.merging import Key, meant, merge, population
from raglan_retriever.model_legs import DENSE
from raglan_retriever.query import Limits, Query
from raglan_retriever.stores.spans import engine_span
from raglan_retriever.stores.store import Store

_OVER_FETCH: Final = 2
_DEEPER: Final = 4
_MAX_DEPTH: Final = 4_000
"""Hits a leg gives at most when copies of the same texts take the places of others."""

_AHEAD: Final = 2
"""Chunks read beside the search by other forms, in multiples of the limit: it moves hits."""


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
class _Ranking:
    """Hits of all collections, with their scores by leg."""

    order: Sequence[tuple[Key, float]]
    """Best first."""
    is_all: bool
    """Whether no leg has more."""
    dense: dict[Key, float]
    lexical: dict[Key, float]
    exact: frozenset[Key]
    is_fused: bool

    def hits(
        self, some: Sequence[tuple[Key, float]], chunks: Mapping[Key, Chunk]
    ) -> Iterator[SearchHit]:
        """Yield those of `some` whose chunk is known."""
        for key, score in some:
            if (chunk := chunks.get(key)) is not None:
                yield SearchHit(
                    chunk=chunk,
                    collection=key[0],
                    dense=self.dense.get(key),
                    lexical=self.lexical.get(key),
                    fused=score if self.is_fused else None,
                    exact=key in self.exact,
                )


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
            timed: Entered around each part of a search: search, expand, fetch.
            expand_abbreviations: Search also by the other form of abbreviations that the collection
                defines.
        """
        self._legs = Legs(store, expands=expand_abbreviations)
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
        names = query.checked(self.limits)
        attempts = Attempts(names, query.collection_budget_s)
        depth = max(self.limits.min_candidates, _OVER_FETCH * query.limit)
        while True:
            with self._timed("search"):
                parts = await attempts.run(names, partial(self._part, query, depth))
            ranking = _rank(query, list(parts.values()), depth)
            chunks: dict[Key, Chunk] = {}
            if any(part.other for part in parts.values()):
                with self._timed("expand"):
                    parts, chunks = await self._expand(query, depth, parts, ranking, attempts)
                ranking = _rank(query, list(parts.values()), depth)
            with self._timed("fetch"):
                found = await self._distinct(query, ranking, chunks, attempts)
            if len(found) == query.limit or ranking.is_all or depth >= _MAX_DEPTH:
                break
            if attempts.are_late:
                break
            # Copies of the same texts took the places.
            depth = min(_DEEPER * depth, _MAX_DEPTH)
        left = attempts.errors
        revisions = {name: part.revision for name, part in parts.items() if name not in left}
        hits = Counter(each.collection for each in found)
        synonyms = joined(part.synonyms for name, part in parts.items() if name not in left)
        return Results(found, revisions, attempts.outcome(hits), synonyms)

    async def _part(self, query: Query, depth: int, name: str) -> Part:
        """Search one collection."""
        several = len(query.collections) > 1  # else the call's own span is that of the collection
        span = tracing.span("search_collection", {semconv.COLLECTION: name})
        with span if several else nullcontext():
            return await self._legs.search(query, depth, name)

    async def _expand(
        self,
        query: Query,
        depth: int,
        parts: Mapping[str, Part],
        ranking: _Ranking,
        attempts: Attempts,
    ) -> tuple[dict[str, Part], dict[Key, Chunk]]:
        """Search by the other form of abbreviations where a collection defines one.

        Returns:
            All parts, and chunks that the result is likely to show.
        """
        ahead: dict[str, list[str]] = {name: [] for name, part in parts.items() if part.other}
        for (name, id_), _ in ranking.order[: _AHEAD * query.limit]:
            if name in ahead:
                ahead[name].append(id_)
        expanded = await attempts.run(
            ahead, lambda name: self._legs.expand(query, depth, parts[name], ahead[name])
        )
        every = {**parts, **{name: part for name, (part, _) in expanded.items()}}
        chunks = {(name, id_): c for name, (_, some) in expanded.items() for id_, c in some.items()}
        return {name: every[name] for name in every if name not in attempts.errors}, chunks

    async def _distinct(
        self,
        query: Query,
        ranking: _Ranking,
        chunks: Mapping[Key, Chunk],
        attempts: Attempts,
    ) -> list[SearchHit]:
        """Return the first `query.limit` different texts in order with their number of copies.

        Copies have similar scores, so they are counted up to where `query.limit` hits in a row are
        none.

        Args:
            query: the query.
            ranking: what was found.
            chunks: those that are read already.
            attempts: outcome by collection.
        """
        kept: dict[tuple[str, str], SearchHit] = {}
        for start in range(0, len(ranking.order), query.limit):
            copies = 0
            some = ranking.order[start : start + query.limit]
            missing = [key for key, _ in some if key not in chunks]
            held = {**chunks, **await self._fetch(missing, attempts)}
            for found in ranking.hits(some, held):
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

    async def _chunks(self, name: str, ids: Sequence[str]) -> dict[str, Chunk]:
        with engine_span(
            self.store.name, semconv.INDEX_FETCH, name, {semconv.LIMIT: len(ids)}
        ) as span:
            chunks = await self.store.fetch(name, ids)
            span.set_attribute(semconv.DB_ROWS, len(chunks))
        return chunks

    async def _fetch(self, keys: Sequence[Key], attempts: Attempts) -> dict[Key, Chunk]:
        """Read chunks; one deleted meanwhile is left out."""
        wanted: dict[str, list[str]] = {}
        for name, id_ in keys:
            wanted.setdefault(name, []).append(id_)
        read = await attempts.run(wanted, lambda name: self._chunks(name, wanted[name]))
        return {(name, id_): chunk for name, some in read.items() for id_, chunk in some.items()}


def _rank(query: Query, parts: Sequence[Part], depth: int) -> _Ranking:
    """Order the best `depth` hits of each leg of all collections."""
    collections = [each.collection for each in parts]
    names = [each.name for each in collections]
    by_model = model_legs.merged(names, [each.by_model for each in parts], depth)
    dense = by_model.get(DENSE, [])
    words = merge(names, [each.lexical for each in parts], depth)
    identified = meant([each.holders for each in parts]).intersection(key for key, _ in words)
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
    return _Ranking(
        ranked,
        is_all=all(len(hits) < depth for hits in (words, *by_model.values())),
        dense=dict(dense),
        lexical=dict(words),
        exact=exact,
        is_fused=query.mode == "hybrid" or len(by_model) > 1,
    )


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
