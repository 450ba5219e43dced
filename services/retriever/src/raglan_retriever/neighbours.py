"""Chunks beside those that a search found, of the same version of their documents."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from raglan import chunk_ids
from raglan.errors import InvalidInput, NotFound
from raglan.filtering.clauses import All, Clause, Ids
from raglan.identifiers import check_collection_name
from raglan.telemetry import semconv

from raglan_retriever.chunks import Chunk, point_id
from raglan_retriever.stores.spans import engine_span
from raglan_retriever.stores.store import Store
from raglan_retriever.validity import valid

MAX_CHUNKS: Final = 1000


@dataclass(frozen=True, slots=True)
class Neighbourhood:
    """Chunks at the positions `first` to `last`, around one that was found."""

    collection: str
    chunk_id: str
    ordinal: int
    first: int
    last: int

    def ids(self) -> Iterator[str]:
        """Yield the ids of the chunks; none where that of the chunk found does not tell them."""
        if version := chunk_ids.version_of(self.chunk_id, self.ordinal):
            for ordinal in range(self.first, self.last + 1):
                yield chunk_ids.in_version(version, ordinal)


async def read(
    store: Store,
    wanted: Sequence[Neighbourhood],
    where: Clause | None,
    as_of_ms: int | None = None,
) -> list[tuple[str, Chunk]]:
    """Return those chunks that exist and pass, each once, with their collections.

    Args:
        store: of the caller; it returns only what the caller reaches.
        wanted: at most `MAX_CHUNKS` chunks together.
        where: the filter of the search.
        as_of_ms: the time of the search; None for the present.

    Raises:
        InvalidInput: there are too many chunks.
        RaglanError: a collection cannot be read. One that does not exist has no chunks.
    """
    count = sum(each.last - each.first + 1 for each in wanted)
    if count > MAX_CHUNKS:
        raise InvalidInput(f"The call asks for {count} chunks; the limit is {MAX_CHUNKS}.")
    ids: dict[str, set[str]] = {}
    for each in wanted:
        ids.setdefault(check_collection_name(each.collection), set()).update(each.ids())
    found = await asyncio.gather(
        *(_of_collection(store, name, some, where, as_of_ms) for name, some in ids.items())
    )
    return [(name, chunk) for name, chunks in zip(ids, found, strict=True) for chunk in chunks]


async def _of_collection(
    store: Store, name: str, ids: set[str], where: Clause | None, as_of_ms: int | None
) -> list[Chunk]:
    if not ids:
        return []
    clause: Clause = Ids(tuple(map(point_id, sorted(ids))))
    with engine_span(store.name, semconv.INDEX_FETCH, name, {semconv.LIMIT: len(ids)}) as span:
        try:
            where = valid(await store.collection(name), as_of_ms, where)
            clause = clause if where is None else All((clause, where))
            found = await store.select(name, clause)
        except NotFound:
            found = []
        span.set_attribute(semconv.DB_ROWS, len(found))
    return [chunk for chunk in found if chunk.chunk_id in ids]
