"""Store `null`: every collection exists and holds the same passages; nothing can be stored.

What is left of the service around it is the mesh itself, which can so be measured and rehearsed.
Replicas share nothing and still agree, since nothing ever changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from raglan import tenancy
from raglan.errors import Conflict
from raglan.filtering.clauses import Clause

from raglan_retriever.chunks import Chunk
from raglan_retriever.collection import Collection, Model
from raglan_retriever.stores.store import (
    Hit,
    Point,
    Relabel,
    Removed,
    Search,
    Size,
    Stats,
    Versioned,
)

PASSAGES: Final = 50

_SENTENCE: Final = "Passage {number} says that stage {number} of the mesh costs {number} units. "
_SENTENCES: Final = 5
"""About 300 characters, as chunks of the default size have on average."""


class NullStore:
    """Returns its passages in one order for every query."""

    name: Final[str] = "null"
    is_remote: Final = False

    def __init__(self) -> None:
        chunks = [_chunk(number) for number in range(1, PASSAGES + 1)]
        self._chunks = {chunk.point_id: chunk for chunk in chunks}

    async def open(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to release."""

    async def collections(self) -> list[Collection]:
        """One stands for all."""
        return [_collection("default")]

    def set_aside(self) -> dict[str, str]:
        """Nothing can be damaged."""
        return {}

    async def create(self, collection: Collection) -> None:
        """Every collection exists already."""

    async def collection(self, name: str) -> Collection:
        """Return a collection of any name, for any model."""
        return _collection(name)

    async def versioned(self, names: Sequence[str]) -> list[Versioned]:
        """Always at revision 1, since nothing changes."""
        return [Versioned(_collection(name), 1) for name in names]

    async def describe(self, collection: Collection) -> None:
        """Discard the description."""

    async def drop(self, name: str) -> int:
        """Raises Conflict."""
        raise _unchangeable()

    async def upsert(self, name: str, points: Sequence[Point]) -> int:
        """Raises Conflict."""
        raise _unchangeable()

    def last_read(self, name: str) -> Versioned | None:
        """Reading costs nothing."""
        return None

    async def search(
        self, name: str, searches: Sequence[Search], where: Clause | None
    ) -> list[list[Hit]]:
        """Return the first passages, scores descending from 1; `where` is ignored."""
        chunks = await self.fetch(name, list(self._chunks))
        every = [
            Hit(id_, 1 - place / PASSAGES, chunk)
            for place, (id_, chunk) in enumerate(chunks.items())
        ]
        bare = [hit._replace(chunk=None) for hit in every]
        return [(every if each.with_chunks else bare)[: each.limit] for each in searches]

    async def fetch(self, name: str, ids: Sequence[str]) -> dict[str, Chunk]:
        """The chunks of those ids that exist; they belong to whoever asks."""
        tenant = tenancy.current()
        found = {id_: self._chunks[id_] for id_ in ids if id_ in self._chunks}
        return (
            {id_: replace(each, tenant=tenant) for id_, each in found.items()} if tenant else found
        )

    async def points(self, name: str, ids: Sequence[str]) -> list[Point]:
        """Raises Conflict."""
        raise _unchangeable()

    async def select(self, name: str, where: Clause) -> list[Chunk]:
        """Every passage."""
        return list((await self.fetch(name, list(self._chunks))).values())

    async def delete(self, name: str, where: Clause) -> Removed:
        """Raises Conflict."""
        raise _unchangeable()

    async def label(self, name: str, where: Clause, relabel: Relabel) -> Removed:
        """Raises Conflict."""
        raise _unchangeable()

    async def count(self, name: str, where: Clause | None) -> int:
        """All of them."""
        return PASSAGES

    async def count_by_document(
        self, name: str, document_ids: Sequence[str], where: Clause | None
    ) -> list[int]:
        """One chunk of each that exists."""
        held = {chunk.document_id for chunk in self._chunks.values()}
        return [int(id_ in held) for id_ in document_ids]

    async def size(self, name: str) -> Size:
        """Always the same."""
        return Size(chunks=PASSAGES, unindexed_chunks=0, disk_bytes=0)

    def backlog_s(self) -> float:
        """Nothing waits."""
        return 0.0

    async def stats(self, name: str) -> Stats:
        """A document for each passage."""
        return Stats(chunks=PASSAGES, documents=PASSAGES, disk_bytes=0, unindexed_chunks=0)


class _AnyModel(Collection):
    """A collection that vectors of every model may search."""

    __slots__ = ()

    def check_model(self, model: Model) -> None:
        """Accept every model: vectors are ignored."""


def _collection(name: str) -> Collection:
    return _AnyModel(
        name=name,
        model=Model("null", "1", 384),
        max_chars=1000,
        overlap_chars=0,
        created="1970-01-01T00:00:00+00:00",
        language="en",
    )


def _chunk(number: int) -> Chunk:
    text = (_SENTENCE.format(number=number) * _SENTENCES).strip()
    return Chunk(
        chunk_id=f"null-{number}#0",
        document_id=f"null-{number}",
        ordinal=0,
        title=f"Document {number}",
        text=text,
        start=0,
        end=len(text),
        heading_path=(),
        metadata_json="{}",
    )


def _unchangeable() -> Conflict:
    return Conflict(
        "Store null keeps nothing and holds fixed passages; choose edge or qdrant "
        "(RAGLAN_RETRIEVER_STORE)."
    )
