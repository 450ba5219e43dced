"""The index: collections, upserts and hybrid search over any store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from opentelemetry.trace import SpanKind
from raglan import readability
from raglan.errors import Conflict, InvalidInput, NotFound
from raglan.readability import Readability
from raglan.telemetry import semconv, tracing

from raglan_retriever import fusion, lexical
from raglan_retriever.chunks import DOCUMENT_ID, Chunk, duplicate_key, point_id
from raglan_retriever.collection import Collection, Model, check_name, check_new_model
from raglan_retriever.filters import All, Clause, Ids, Not, Terms
from raglan_retriever.metadata import term
from raglan_retriever.stores.store import Hit, Point, Stats, Store

Mode = Literal["hybrid", "dense", "lexical"]
Key = tuple[str, str]
"""Collection and point."""

MAX_TEXT_CHARS: Final = 32_768
MAX_DOCUMENT_IDS: Final = 1000

_OVER_FETCH: Final = 2
_DEEPER: Final = 4
_MAX_DEPTH: Final = 4_000
"""Hits a leg gives at most when copies of the same texts take the places of others."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one call may ask for."""

    max_limit: int = 1000
    max_upsert_chunks: int = 1000
    min_candidates: int = 200


@dataclass(frozen=True, slots=True)
class Fusion:
    """How the two legs of a hybrid search become one list."""

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
    """How well `model` reads `text`, in [0, 1]; None where that is not known."""

    where: Clause | None = None
    fusion: Fusion = field(default_factory=Fusion)


@dataclass(frozen=True, slots=True)
class Found:
    """A chunk that a search found, with the scores that took part."""

    chunk: Chunk
    collection: str
    dense: float | None
    lexical: float | None
    fused: float | None
    exact: bool = False
    """Whether it holds words of the query that hardly another chunk does."""
    duplicates: int = 0
    """Further chunks with the same text that were left out of the result."""


class Index:
    """Checks what comes in, and asks the store."""

    def __init__(
        self,
        store: Store,
        *,
        limits: Limits,
        language: str,
        timed: Callable[[str], AbstractContextManager[None]] = lambda leg: nullcontext(),
    ) -> None:
        """Args:
        timed: around each part of a search: dense, lexical, fetch.
        """
        self.store: Final = store
        self._timed = timed
        self.limits: Final = limits
        self._language = language
        self._learning = asyncio.Lock()

    async def create(
        self, name: str, model: Model, max_chars: int, overlap_chars: int
    ) -> Collection:
        """Make a collection, or find it made with the same settings.

        Raises:
            InvalidInput: the name or the model is not acceptable.
            Conflict: it exists with other settings.
        """
        wanted = Collection(
            name=check_name(name),
            model=check_new_model(model),
            max_chars=max_chars,
            overlap_chars=overlap_chars,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            language=self._language,
        )
        try:
            await self.store.create(wanted)
        except Conflict as taken:
            try:
                held = await self.store.collection(name)
            except NotFound:
                raise taken from None
            if not held.same_settings(wanted):
                raise Conflict(
                    f"Collection {name!r} exists with other settings: {held.model}, chunks of "
                    f"{held.max_chars} characters overlapping by {held.overlap_chars}. "
                    "Delete it first, or choose another name."
                ) from None
            return held
        return wanted

    async def stats(self, name: str) -> tuple[Collection, Stats]:
        collection = await self.store.collection(check_name(name))
        return collection, await self.store.stats(name)

    async def all_stats(self) -> list[tuple[Collection, Stats]]:
        """Every collection, by name; one that goes meanwhile is left out."""
        found = []
        for collection in await self.store.collections():
            try:
                found.append((collection, await self.store.stats(collection.name)))
            except NotFound:
                continue
        return found

    async def drop(self, name: str) -> int:
        """Remove the collection; how many chunks it held."""
        chunks = await self.store.count(check_name(name), None)
        await self.store.drop(name)
        return chunks

    async def upsert(
        self,
        name: str,
        model: Model,
        chunks: Sequence[Chunk],
        vectors: NDArray[Any],
        read: Sequence[float] = (),
    ) -> None:
        """Store `chunks`, replacing those of the same chunk_id. On return they are durable.

        Args:
            vectors: of shape (len(chunks), dimension), any float type or int8.
            read: how well the model reads each chunk, in [0, 1]; empty where that is not known.

        Raises:
            InvalidInput: too many chunks, rows that do not match, values that are not finite, or a
                chunk that is not acceptable. Nothing was stored.
            Conflict: `model` is not the collection's.
            NotFound: no such collection.
        """
        collection = await self.store.collection(check_name(name))
        collection.check_model(model)
        collection.check_analysis()
        if len(chunks) > self.limits.max_upsert_chunks:
            raise InvalidInput(
                f"The upsert brings {len(chunks)} chunks; the limit is "
                f"{self.limits.max_upsert_chunks} (RAGLAN_RETRIEVER_MAX_UPSERT_CHUNKS)."
            )
        expected = (len(chunks), collection.model.dimension)
        if vectors.shape != expected:
            raise InvalidInput(
                f"The vectors have shape {vectors.shape}; {expected} is needed, a row a chunk."
            )
        _check_readability(read, len(chunks))
        if not chunks:
            return
        analysed = await asyncio.to_thread(_analyse, collection, chunks)
        collection = await self._learn(collection, analysed)
        points = await asyncio.to_thread(_points, collection, chunks, analysed, vectors)
        with self._engine(semconv.INDEX_UPSERT, name, {semconv.BATCH_SIZE: len(points)}):
            await self.store.upsert(name, points)
        await self._learn_readability(name, read)

    async def delete(
        self, name: str, document_ids: Sequence[str], keep_chunk_ids: Sequence[str]
    ) -> int:
        """Remove the documents' chunks, except those to keep; how many there were."""
        check_name(name)
        _check_ids(document_ids)
        if not document_ids:
            return 0
        clauses: list[Clause] = [_of_documents(document_ids)]
        if keep_chunk_ids:
            clauses.append(Not(Ids(tuple(point_id(id_) for id_ in keep_chunk_ids))))
        with self._engine(semconv.INDEX_DELETE, name, {}) as span:
            deleted = await self.store.delete(name, All(tuple(clauses)))
            span.set_attribute(semconv.DB_ROWS, deleted)
        return deleted

    async def document(self, name: str, document_id: str) -> list[Chunk]:
        """The document's chunks, in order. Raises NotFound when the index holds none."""
        wanted = _of_documents([document_id])
        with self._engine(semconv.INDEX_FETCH, check_name(name), {}) as span:
            chunks = await self.store.select(name, wanted)
            span.set_attribute(semconv.DB_ROWS, len(chunks))
        if not chunks:
            raise NotFound(f"Collection {name!r} holds no chunk of document {document_id!r}.")
        return sorted(chunks, key=lambda chunk: (chunk.ordinal, chunk.chunk_id))

    async def count(self, name: str, document_ids: Sequence[str]) -> list[int]:
        """How many chunks the index holds of each document."""
        check_name(name)
        _check_ids(document_ids)
        return [await self.store.count(name, _of_documents([id_])) for id_ in document_ids]

    async def search(self, query: Query) -> list[Found]:
        """The best chunks, best first.

        Raises:
            InvalidInput: what the mode needs is missing, or the limit is out of range.
            NotFound: a collection that does not exist, by name.
            Conflict: the query's vector, or one collection's, comes from another model.
        """
        names = await self._check(query)
        depth = max(self.limits.min_candidates, _OVER_FETCH * query.limit)
        while True:
            found, is_all = await self._search(query, names, depth)
            if len(found) == query.limit or is_all or depth >= _MAX_DEPTH:
                return found
            # Copies of the same texts took the places.
            depth = min(_DEEPER * depth, _MAX_DEPTH)

    async def _search(
        self, query: Query, names: Sequence[str], depth: int
    ) -> tuple[list[Found], bool]:
        """The best chunks among the first `depth` of each leg, and whether no leg has more."""
        dense, words = await asyncio.gather(
            self._dense_leg(query, names, depth), self._lexical_leg(query, names, depth)
        )
        is_all = len(dense) < depth and len(words) < depth
        by_words = fusion.Leg(
            words,
            query.fusion.lexical_weight,
            await self._population(names, len(dense) if 0 < len(dense) < depth else None),
        )
        exact = fusion.exact_matches(by_words)
        if len(words) == depth and not exact:
            # Chunks further down may score nearly as high as the last, so not 0.
            by_words = replace(by_words, population=0)
        if query.mode == "hybrid":
            worth = await self._dense_worth(query, names)
            by_meaning = fusion.Leg(
                dense, query.fusion.dense_weight, credit=lambda key: worth[key[0]]
            )
            ranked = fusion.fuse([by_meaning, by_words], query.fusion.method)
            # A score that did not take part is not shown.
            dense = [(key, score) for key, score in dense if worth[key[0]] > 0]
        else:
            ranked = dense or words
        with self._timed("fetch"):
            found = await self._distinct(query, ranked, dict(dense), dict(words))
        return [
            replace(each, exact=(each.collection, each.chunk.point_id) in exact) for each in found
        ], is_all

    async def _population(self, names: Sequence[str], counted: int | None) -> int:
        """How many chunks the words of a query were looked for in, at most `MAX_POPULATION`.

        Args:
            counted: what the dense leg found, if that is all there is.
        """
        if counted is not None:
            return counted
        collections = [await self.store.collection(name) for name in names]
        chunks = sum(each.mean_length.chunks for each in collections)
        return min(chunks, fusion.MAX_POPULATION)

    async def _distinct(
        self,
        query: Query,
        ranked: Sequence[tuple[Key, float]],
        dense: dict[Key, float],
        words: dict[Key, float],
    ) -> list[Found]:
        """The first `query.limit` different texts of `ranked`, each with the number of its copies.

        Copies have similar scores, so they are counted up to where `query.limit` hits in a row are
        none.
        """
        kept: dict[tuple[str, str], Found] = {}
        for start in range(0, len(ranked), query.limit):
            copies = 0
            some = ranked[start : start + query.limit]
            for found in await self._fetch(query.mode, some, dense, words):
                key = duplicate_key(found.chunk)
                if (first := kept.get(key)) is not None:
                    kept[key] = replace(first, duplicates=first.duplicates + 1)
                    copies += 1
                elif len(kept) < query.limit:
                    kept[key] = found
            if len(kept) >= query.limit and not copies:
                break
        return list(kept.values())

    async def _dense_worth(self, query: Query, names: Sequence[str]) -> dict[str, float]:
        """What the dense leg is worth in each collection, in [0, 1]."""
        if query.readability is None:
            return dict.fromkeys(names, 1.0)
        read = Readability(query.readability, readability.count_words(query.text))
        collections = [await self.store.collection(name) for name in names]
        return {each.name: readability.query_credit(read, each.readability) for each in collections}

    async def _check(self, query: Query) -> tuple[str, ...]:
        """The collections to search, without duplicates."""
        if not 1 <= query.limit <= self.limits.max_limit:
            raise InvalidInput(
                f"limit is {query.limit}; it must be 1 to {self.limits.max_limit} "
                "(RAGLAN_RETRIEVER_MAX_LIMIT)."
            )
        if not query.collections:
            raise InvalidInput("The search names no collection.")
        if len(query.text) > MAX_TEXT_CHARS:
            raise InvalidInput(
                f"The text has {len(query.text)} characters; the limit is {MAX_TEXT_CHARS}."
            )
        if query.mode != "dense" and not query.text.strip():
            raise InvalidInput(f"A {query.mode} search needs a text.")
        names = tuple(dict.fromkeys(check_name(name) for name in query.collections))
        collections = [await self.store.collection(name) for name in names]
        if query.mode != "dense":
            for collection in collections:
                collection.check_analysis()
        if query.mode != "lexical":
            _check_vector(query, collections)
        return names

    async def _dense_leg(
        self, query: Query, names: Sequence[str], depth: int
    ) -> list[tuple[Key, float]]:
        if query.mode == "lexical" or query.vector is None:
            return []
        vector = query.vector.tolist()
        found = [self._hits("dense", name, vector, depth, query.where) for name in names]
        with self._timed("dense"):
            return _merge(names, await asyncio.gather(*found), depth)

    async def _lexical_leg(
        self, query: Query, names: Sequence[str], depth: int
    ) -> list[tuple[Key, float]]:
        if query.mode == "dense":
            return []

        async def one(name: str) -> list[Hit]:
            held = await self.store.collection(name)
            words = lexical.query(query.text, held.languages, held.language)
            if not words.indices:
                return []
            return await self._hits("lexical", name, words, depth, query.where)

        with self._timed("lexical"):
            return _merge(names, await asyncio.gather(*(one(name) for name in names)), depth)

    async def _hits(
        self,
        leg: str,
        name: str,
        query: list[float] | lexical.Sparse,
        depth: int,
        where: Clause | None,
    ) -> list[Hit]:
        asked = {
            semconv.MODE: leg,
            semconv.LIMIT: depth,
            semconv.FILTERED: where is not None,
        }
        with self._engine(semconv.INDEX_SEARCH, name, asked) as span:
            hits = await self.store.search(name, query, depth, where)
            span.set_attribute(semconv.DB_ROWS, len(hits))
        return hits

    async def _chunks(self, name: str, ids: Sequence[str]) -> dict[str, Chunk]:
        with self._engine(semconv.INDEX_FETCH, name, {semconv.LIMIT: len(ids)}) as span:
            chunks = await self.store.fetch(name, ids)
            span.set_attribute(semconv.DB_ROWS, len(chunks))
        return chunks

    def _engine(self, operation: str, collection: str, asked: Mapping[str, Any]) -> tracing.span:
        """The span of one call of the engine behind this index; `operation` is "index.<what>"."""
        known = {
            semconv.DB_SYSTEM: self.store.name,
            semconv.DB_OPERATION: operation.removeprefix("index."),
            semconv.COLLECTION: collection,
        }
        return tracing.span(operation, known | dict(asked), kind=SpanKind.CLIENT)

    async def _fetch(
        self,
        mode: Mode,
        ranked: Sequence[tuple[Key, float]],
        dense: dict[Key, float],
        words: dict[Key, float],
    ) -> list[Found]:
        """The chunks of `ranked`, in its order; one deleted meanwhile is left out."""
        wanted: dict[str, list[str]] = {}
        for (name, id_), _ in ranked:
            wanted.setdefault(name, []).append(id_)
        fetched = await asyncio.gather(*(self._chunks(name, ids) for name, ids in wanted.items()))
        chunks = dict(zip(wanted, fetched, strict=True))
        return [
            Found(
                chunk=chunk,
                collection=name,
                dense=dense.get((name, id_)),
                lexical=words.get((name, id_)),
                fused=score if mode == "hybrid" else None,
            )
            for (name, id_), score in ranked
            if (chunk := chunks[name].get(id_)) is not None
        ]

    async def _learn_readability(self, name: str, values: Sequence[float]) -> None:
        if not values:
            return
        async with self._learning:
            held = await self.store.collection(name)
            learned = held.mean_readability.and_(values)
            if learned.differs(held.mean_readability):
                await self.store.describe(replace(held, mean_readability=learned))

    async def _learn(
        self, collection: Collection, analysed: Sequence[lexical.Analysis]
    ) -> Collection:
        """The collection, with the languages and lengths of these texts learned."""
        lengths = [each.length for each in analysed]
        languages = dict.fromkeys(each.language for each in analysed)
        if collection.learned(lengths, languages) == collection:
            return collection
        async with self._learning:
            held = await self.store.collection(collection.name)
            learned = held.learned(lengths, languages)
            await self.store.describe(learned)
            return learned


def _analyse(collection: Collection, chunks: Sequence[Chunk]) -> list[lexical.Analysis]:
    return [
        lexical.analyse(chunk.lexical_text, chunk.language, collection.language) for chunk in chunks
    ]


def _points(
    collection: Collection,
    chunks: Sequence[Chunk],
    analysed: Sequence[lexical.Analysis],
    vectors: NDArray[Any],
) -> list[Point]:
    dense = vectors.astype(np.float32)
    if not np.isfinite(dense).all():
        row = int(np.flatnonzero(~np.isfinite(dense).all(axis=1))[0])
        raise InvalidInput(
            f"The vector of chunk {chunks[row].chunk_id!r} holds values that are not finite."
        )
    mean_length = collection.mean_length.value
    return [
        Point(chunk.point_id, chunk.payload(), row.tolist(), lexical.document(words, mean_length))
        for chunk, row, words in zip(chunks, dense, analysed, strict=True)
    ]


def _check_vector(query: Query, collections: Sequence[Collection]) -> None:
    if query.vector is None or query.model is None:
        raise InvalidInput(f"A {query.mode} search needs a vector and the model it comes from.")
    for collection in collections:
        collection.check_model(query.model)
    if query.vector.shape != (query.model.dimension,):
        raise InvalidInput(
            f"The query vector has {query.vector.size} values; its model, {query.model}, "
            f"has {query.model.dimension}."
        )
    if not np.isfinite(query.vector).all():
        raise InvalidInput("The query vector holds values that are not finite.")


def _check_readability(read: Sequence[float], count: int) -> None:
    if read and len(read) != count:
        raise InvalidInput(
            f"readability holds {len(read)} values for {count} chunks; give one a chunk, or none."
        )
    for value in read:
        if not 0 <= value <= 1:
            raise InvalidInput(f"A readability is {value:g}; it must be 0 to 1.")


def _check_ids(document_ids: Sequence[str]) -> None:
    if len(document_ids) > MAX_DOCUMENT_IDS:
        raise InvalidInput(
            f"The call names {len(document_ids)} documents; the limit is {MAX_DOCUMENT_IDS}."
        )


def _of_documents(document_ids: Sequence[str]) -> Terms:
    return Terms(tuple(term(DOCUMENT_ID, id_) for id_ in document_ids))


def _merge(names: Sequence[str], found: Sequence[list[Hit]], depth: int) -> list[tuple[Key, float]]:
    """The best of one leg over several collections, by raw score; ties by collection and point."""
    hits = [
        ((name, hit.id), hit.score) for name, some in zip(names, found, strict=True) for hit in some
    ]
    return sorted(hits, key=lambda item: (-item[1], item[0]))[:depth]
