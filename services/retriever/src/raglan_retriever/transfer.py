"""Backup of the index: descriptions and chunks as they are stored, out of one store into another.

What is handed out depends neither on the store nor on its files, so that a backup of the edge store
can be restored to a Qdrant cluster, and by a later version of either.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from raglan.errors import InvalidInput
from raglan.identifiers import check_collection_name
from raglan.terms import ANALYSIS

from raglan_retriever.chunk_vectors import NO_CHUNK_VECTORS, ChunkVectors
from raglan_retriever.chunks import Chunk, point_id
from raglan_retriever.collection import Collection, MeanLength, Model
from raglan_retriever.index import Index
from raglan_retriever.lexical import Sparse
from raglan_retriever.stores.store import Point

MAX_CHUNK_IDS: Final = 1000


@dataclass(frozen=True, slots=True)
class IndexedChunks:
    """Chunks with their vectors."""

    model: Model
    chunks: Sequence[Chunk]
    vectors: NDArray[Any]
    """float32 of shape (chunks, dimension)."""
    lexical: Sequence[Sparse]
    analysis: int
    """Version of `raglan.terms` that made `lexical`."""
    further: ChunkVectors = NO_CHUNK_VECTORS


class Transfer:
    """Reads and writes the chunks of an index as they are stored."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._store = index.store

    async def description(self, name: str) -> Collection:
        """Return the description of a collection."""
        return await self._store.collection(check_collection_name(name))

    async def create(self, collection: Collection) -> Collection:
        """Create a collection as it was described by `description`.

        What an earlier analysis of text has learned is forgotten: `add` analyses anew.

        Raises:
            Conflict: it exists.
        """
        check_collection_name(collection.name)
        if collection.analysis != ANALYSIS:
            collection = replace(
                collection, analysis=ANALYSIS, mean_length=MeanLength(), languages=()
            )
        await self._store.create(collection)
        return collection

    async def chunks(self, name: str, chunk_ids: Sequence[str]) -> IndexedChunks:
        """Return the chunks of those ids that exist, in the order of `chunk_ids`."""
        if not 1 <= len(chunk_ids) <= MAX_CHUNK_IDS:
            raise InvalidInput(
                f"The call names {len(chunk_ids)} chunks; name 1 to {MAX_CHUNK_IDS}."
            )
        collection = await self.description(name)
        points = await self._store.points(name, [point_id(id_) for id_ in chunk_ids])
        dense = np.array([point.dense for point in points], dtype=np.float32)
        return IndexedChunks(
            collection.model,
            [Chunk.from_payload(point.payload) for point in points],
            dense.reshape(len(points), collection.model.dimension),
            [point.lexical for point in points],
            collection.analysis,
            ChunkVectors.of(points, collection.further_vectors),
        )

    async def add(self, name: str, held: IndexedChunks) -> int:
        """Store chunks that `chunks` returned, and return the collection's revision after it.

        Raises:
            InvalidInput, Conflict, NotFound: as for `Index.upsert`. Nothing was stored.
        """
        collection = await self.description(name)
        if held.analysis != collection.analysis:
            return await self._index.upsert(
                name, held.model, held.chunks, held.vectors, further=held.further
            )
        collection.check_model(held.model)
        expected = (len(held.chunks), collection.model.dimension)
        if held.vectors.shape != expected or len(held.lexical) != len(held.chunks):
            raise InvalidInput(
                f"{len(held.lexical)} lexical vectors and dense ones of shape "
                f"{held.vectors.shape} were sent; {expected} are needed, a row a chunk."
            )
        held.further.check(collection, len(held.chunks))
        return await self._store.upsert(name, await asyncio.to_thread(_points, held))


def _points(held: IndexedChunks) -> list[Point]:
    points = [
        Point(chunk.point_id, chunk.payload(), row.tolist(), words)
        for chunk, row, words in zip(held.chunks, held.vectors, held.lexical, strict=True)
    ]
    return held.further.added_to(points)
