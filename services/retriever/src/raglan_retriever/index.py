"""The index: collections, and chunks in and out, over any store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from raglan.chunking_strategy import STRUCTURE, check_strategy
from raglan.errors import Conflict, InvalidInput, NotFound, NotSupported, StorageFull
from raglan.filtering.clauses import All, Clause, Ids, Not, Terms
from raglan.filtering.clauses import Any as AnyOf
from raglan.identifiers import check_collection_name, shortened
from raglan.telemetry import semconv

from raglan_retriever import abbreviations, lexical, neighbours
from raglan_retriever.chunk_vectors import NO_CHUNK_VECTORS, ChunkVectors
from raglan_retriever.chunks import (
    ACCESS,
    DOCUMENT_ID,
    Chunk,
    labels,
    of_documents,
    point_id,
    relabelled,
)
from raglan_retriever.collection import (
    NO_FURTHER_VECTORS,
    Collection,
    FurtherVectors,
    Model,
    Retention,
    check_new_model,
)
from raglan_retriever.described import read_described
from raglan_retriever.neighbours import Neighbourhood
from raglan_retriever.query import Limits, Query
from raglan_retriever.searching import Results, Searcher
from raglan_retriever.stores.plans import RECALLS
from raglan_retriever.stores.spans import engine_span
from raglan_retriever.stores.store import Point, Removed, Stats, Store, Versioned
from raglan_retriever.stores.tenants import TenantStore
from raglan_retriever.validity import PRESENT, VERSION, KeptVersions, Version, number_term, valid

MAX_DOCUMENT_IDS: Final = 1000
MAX_PROFILE_CHARS: Final = 64


class Index:
    """Validates calls and passes them to the store."""

    def __init__(
        self,
        store: Store,
        *,
        limits: Limits,
        language: str,
        expand_abbreviations: bool = True,
        timed: Callable[[str], AbstractContextManager[None]] = lambda leg: nullcontext(),
        on_foreign: Callable[[int], None] = lambda chunks: None,
    ) -> None:
        """Index over `store`.

        Args:
            store: Holds the chunks.
            limits: Limits of a call.
            language: ISO 639-1 code for new collections.
            expand_abbreviations: see `Searcher`.
            timed: Entered around each part of a search: search, expand, fetch.
            on_foreign: Called with the number of chunks of another tenant that were dropped.
        """
        self.all_tenants: Final = store
        """The store itself, whose collections have qualified names."""
        self.store: Final = TenantStore(store, on_foreign)
        self.limits: Final = limits
        self._searcher = Searcher(
            self.store, limits, timed, expand_abbreviations=expand_abbreviations
        )
        self._language = language
        self._learning = asyncio.Lock()

    async def create(
        self,
        name: str,
        model: Model,
        max_chars: int,
        overlap_chars: int,
        strategy: str = STRUCTURE,
        further: FurtherVectors = NO_FURTHER_VECTORS,
        *,
        contextual: bool = False,
        versions: Retention | None = None,
    ) -> Collection:
        """Create a collection, or return the existing one with the same settings.

        Raises:
            InvalidInput: the name, the model, the strategy or the further vectors are not
                acceptable.
            Conflict: it exists with other settings.
        """
        wanted = Collection(
            name=check_collection_name(name),
            model=check_new_model(model),
            max_chars=max_chars,
            overlap_chars=overlap_chars,
            created=datetime.now(UTC).isoformat(timespec="microseconds"),
            language=self._language,
            strategy=check_strategy(strategy),
            further_vectors=further.check(),
            contextual=contextual,
            versions=versions,
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
                    f"{held.max_chars} characters overlapping by {held.overlap_chars}, cut by "
                    f"{held.strategy}{', contextual' if held.contextual else ''}, "
                    f"with {held.further_vectors} and {held.versions or 'no'} earlier versions. "
                    "Delete it first, or choose another name."
                ) from None
            return held
        return wanted

    async def stats(self, name: str) -> tuple[Collection, Stats]:
        """Return the description and the statistics of a collection."""
        collection = await self.store.collection(check_collection_name(name))
        return collection, await self.store.stats(name)

    async def all_stats(self, *, all_tenants: bool = False) -> list[tuple[Collection, Stats]]:
        """Return every collection by name, without damaged ones and those dropped meanwhile.

        Args:
            all_tenants: Return those of all tenants, by their qualified names.
        """
        store: Store = self.all_tenants if all_tenants else self.store
        found = []
        for collection in await store.collections():
            with suppress(NotFound, Conflict, StorageFull):
                found.append((collection, await store.stats(collection.name)))
        return found

    async def drop(self, name: str) -> Removed:
        """Remove the collection; 0 chunks for a damaged one."""
        try:
            chunks = await self.store.count(check_collection_name(name), None)
        except Conflict:
            chunks = 0
        return Removed(chunks, await self.store.drop(name))

    async def upsert(
        self,
        name: str,
        model: Model,
        chunks: Sequence[Chunk],
        vectors: NDArray[Any],
        read: Sequence[float] = (),
        further: ChunkVectors = NO_CHUNK_VECTORS,
    ) -> int:
        """Store `chunks`, replacing those of the same chunk_id. On return they are durable.

        Args:
            name: Name of the collection.
            model: Made the vectors.
            chunks: At most `limits.max_upsert_chunks`.
            vectors: Of shape (len(chunks), dimension), any float type or int8.
            read: how well the model reads each chunk, in [0, 1]; empty where that is not known.
            further: those of the chunks that the collection has besides.

        Returns:
            The collection's revision after it.

        Raises:
            InvalidInput: too many chunks, rows that do not match, values that are not finite, or a
                chunk that is not acceptable. Nothing was stored.
            Conflict: `model` is not the collection's.
            NotFound: no such collection.
        """
        collection = await self.store.collection(check_collection_name(name))
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
        further.check(collection, len(chunks))
        if not chunks:
            (unchanged,) = await self.store.versioned([name])
            return unchanged.revision
        analysed = await asyncio.to_thread(_analyse, collection, chunks)
        collection = await self._learn(collection, analysed)
        points = await asyncio.to_thread(_points, collection, chunks, analysed, vectors)
        points = further.added_to(points)
        with engine_span(
            self.store.name, semconv.INDEX_UPSERT, name, {semconv.BATCH_SIZE: len(points)}
        ):
            revision = await self.store.upsert(name, points)
        await self._learn_readability(name, read)
        return revision

    async def delete(
        self, name: str, document_ids: Sequence[str], keep_chunk_ids: Sequence[str]
    ) -> Removed:
        """Remove the documents' chunks, except those to keep."""
        check_collection_name(name)
        _check_ids(document_ids)
        if not document_ids:
            (unchanged,) = await self.store.versioned([name])
            return Removed(0, unchanged.revision)
        clauses: list[Clause] = [of_documents(document_ids)]
        if keep_chunk_ids:
            clauses.append(Not(Ids(tuple(point_id(id_) for id_ in keep_chunk_ids))))
            if (await self.store.collection(name)).versions is not None:
                clauses.append(PRESENT)
        with engine_span(self.store.name, semconv.INDEX_DELETE, name, {}) as span:
            removed = await self.store.delete(name, All(tuple(clauses)))
            span.set_attribute(semconv.DB_ROWS, removed.chunks)
        return removed

    async def label(self, name: str, documents: Mapping[str, tuple[str, Sequence[str]]]) -> Removed:
        """Replace the metadata and the access tags of documents on all their chunks.

        Args:
            name: Name of the collection.
            documents: Metadata, as a JSON object, and tags, by id of the document.

        Returns:
            The number of chunks, and the collection's revision after it.

        Raises:
            InvalidInput: too many documents, or labels that are not acceptable. Nothing changed.
        """
        check_collection_name(name)
        _check_ids(list(documents))
        if not documents:
            (unchanged,) = await self.store.versioned([name])
            return Removed(0, unchanged.revision)
        for id_, (metadata_json, access) in documents.items():
            labels(metadata_json, access, document_id=id_)

        def relabel(fields: Mapping[str, Any]) -> dict[str, Any]:
            metadata_json, access = documents[fields[DOCUMENT_ID]]
            return relabelled(fields, metadata_json=metadata_json, access=access)

        with engine_span(self.store.name, semconv.INDEX_LABEL, name, {}) as span:
            changed = await self.store.label(name, of_documents(list(documents)), relabel)
            span.set_attribute(semconv.DB_ROWS, changed.chunks)
        return changed

    async def keep_versions(self, name: str, documents: Mapping[str, KeptVersions]) -> Removed:
        """Remove the chunks of versions that are not kept, and make those replaced earlier ones.

        Returns:
            The number of chunks that were removed, and the collection's revision after it.

        Raises:
            InvalidInput: too many documents.
        """
        check_collection_name(name)
        _check_ids(list(documents))
        if not documents:
            (unchanged,) = await self.store.versioned([name])
            return Removed(0, unchanged.revision)

        def relabel(fields: Mapping[str, Any]) -> dict[str, Any]:
            kept = documents[fields[DOCUMENT_ID]]
            held = Version.from_payload(fields[VERSION])
            if held is None or held.number not in kept.earlier:
                return {}
            version = held.replaced(kept.earlier[held.number], tuple(fields[ACCESS] or ()))
            if version == held and [*version.access(kept.access)] == fields[ACCESS]:
                return {}
            return relabelled(fields, access=kept.access, version=version)

        others = [All((of_documents([id_]), Not(kept.terms()))) for id_, kept in documents.items()]
        with engine_span(self.store.name, semconv.INDEX_LABEL, name, {}):
            removed = await self.store.delete(name, AnyOf(tuple(others)))
            changed = await self.store.label(name, of_documents(list(documents)), relabel)
        return Removed(removed.chunks, changed.revision)

    async def document(self, name: str, document_id: str, version: int = 0) -> list[Chunk]:
        """Return the chunks of a document's version, in order; 0 is the present one.

        Raises:
            NotFound: The index holds none.
        """
        held = await self.store.collection(check_collection_name(name))
        wanted: Clause = of_documents([document_id])
        if version:
            wanted = All((wanted, Terms((number_term(version),))))
        else:
            wanted = valid(held, None, wanted)
        with engine_span(self.store.name, semconv.INDEX_FETCH, name, {}) as span:
            chunks = await self.store.select(name, wanted)
            span.set_attribute(semconv.DB_ROWS, len(chunks))
        if not chunks:
            raise NotFound(
                f"Collection {name!r} holds no chunk of document {shortened(document_id)}."
            )
        return sorted(chunks, key=lambda chunk: (chunk.ordinal, chunk.chunk_id))

    async def count(self, name: str, document_ids: Sequence[str]) -> list[int]:
        """Return the number of chunks that the index holds of each document's present version."""
        check_collection_name(name)
        _check_ids(document_ids)
        if not document_ids:
            return []
        _, counts = await read_described(
            self.store,
            name,
            lambda held: self.store.count_by_document(name, document_ids, valid(held, None, None)),
        )
        return counts

    async def search(self, query: Query) -> Results:
        """See `Searcher.search`."""
        return await self._searcher.search(query)

    async def neighbours(
        self, wanted: Sequence[Neighbourhood], where: Clause | None, as_of_ms: int | None = None
    ) -> list[tuple[str, Chunk]]:
        """See `neighbours.read`."""
        return await neighbours.read(self.store, wanted, where, as_of_ms)

    async def set_profile(self, name: str, profile: str) -> None:
        """Keep the name of the settings that callers search the collection with.

        Raises:
            InvalidInput: it is too long.
            NotFound: no such collection.
        """
        if len(profile) > MAX_PROFILE_CHARS:
            raise InvalidInput(
                f"The profile's name has {len(profile)} characters; the limit is "
                f"{MAX_PROFILE_CHARS}."
            )
        check_collection_name(name)
        async with self._learning:
            held = await self.store.collection(name)
            if held.profile != profile:
                await self.store.describe(replace(held, profile=profile))

    async def set_recall(self, name: str, recall: float | None) -> None:
        """Choose the recall@10 that the collection's vector index is built and searched for.

        Args:
            name: of the collection.
            recall: 0.8 to 0.999; None for that of the settings.

        Raises:
            InvalidInput: it is out of range.
            NotSupported: the store's indexes are not planned here.
            NotFound: no such collection.
        """
        low, high = RECALLS
        if recall is not None and not low <= recall <= high:
            raise InvalidInput(f"The recall aimed at is {recall}; it must be {low} to {high}.")
        if self.store.name != "edge":
            raise NotSupported(
                f"Store {self.store.name!r} has vector indexes with parameters of its own; a "
                "recall can be aimed at in the edge store (RAGLAN_RETRIEVER_STORE)."
            )
        check_collection_name(name)
        async with self._learning:
            held = await self.store.collection(name)
            if held.recall != recall:
                await self.store.describe(replace(held, recall=recall))

    async def versioned(self, names: Sequence[str]) -> list[Versioned]:
        """Return the description and the present revision of each collection that exists."""
        checked = [check_collection_name(name) for name in names]
        try:
            found = await self.store.versioned(checked)
        except (NotFound, Conflict):
            if len(checked) == 1:
                return []
            found = []
            for name in checked:
                with suppress(NotFound, Conflict):
                    found += await self.store.versioned([name])
        return found

    async def _learn_readability(self, name: str, values: Sequence[float]) -> None:
        if not values:
            return
        async with self._learning:
            held = await self.store.collection(name)
            learned = held.mean_readability.including(values)
            if learned.differs(held.mean_readability):
                await self.store.describe(replace(held, mean_readability=learned))

    async def _learn(
        self, collection: Collection, analysed: Sequence[lexical.Analysis]
    ) -> Collection:
        """Store the languages and lengths of these texts with the collection."""
        lengths = [each.length for each in analysed]
        languages = dict.fromkeys(each.language for each in analysed)
        if collection.with_texts(lengths, languages) == collection:
            return collection
        async with self._learning:
            held = await self.store.collection(collection.name)
            learned = held.with_texts(lengths, languages)
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
            f"The vector of chunk {shortened(chunks[row].chunk_id)} holds values that are not "
            "finite."
        )
    mean_length = collection.mean_length.value
    return [
        Point(
            chunk.point_id,
            chunk.payload(),
            row.tolist(),
            abbreviations.marked(lexical.document(words, mean_length), chunk.text, words.language),
        )
        for chunk, row, words in zip(chunks, dense, analysed, strict=True)
    ]


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
