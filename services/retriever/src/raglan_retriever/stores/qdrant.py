"""A Qdrant server or cluster: the same collections, shared by any number of retrievers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

from qdrant_client import AsyncQdrantClient, models
from raglan.errors import Conflict, NotFound
from raglan.filtering.clauses import All, Clause

from raglan_retriever.chunks import DOCUMENT_ID, LABELLED, STORED, Chunk, of_documents
from raglan_retriever.collection import Collection, NewerFormat
from raglan_retriever.stores.qdrant_layout import Layout, payload_indexes
from raglan_retriever.stores.qdrant_revisions import Revisions
from raglan_retriever.stores.qdrant_wire import (
    condition,
    errors,
    hit,
    point_struct,
    request,
    seconds_left,
    stored_point,
)
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

_OURS: Final = "raglan"
"""The key of a collection's metadata that holds our description. What lacks it is not ours."""

_UNFINISHED: Final = "raglan_unfinished"

_PAGE: Final = 500
_UPSERT_AT_ONCE: Final = 40
"""The client writes JSON on the event loop: 5 ms for 40 points of 384 dimensions."""
_LABELLED_AT_ONCE: Final = 100
"""Documents."""

_MAX_DOCUMENTS: Final = 10_000_000


class _Known(NamedTuple):
    """What was read last of a collection."""

    versioned: Versioned
    is_settled: bool
    """Whether it was the same the time before."""


class QdrantStore:
    """Descriptions and revisions are stored in Qdrant itself; what was read last is a guess."""

    name: Final[str] = "qdrant"
    is_remote: Final = True

    def __init__(self, client: AsyncQdrantClient, layout: Layout = Layout()) -> None:  # noqa: B008
        """Collections of the server behind `client`.

        Args:
            client: closed by `close`.
            layout: settings of new collections.
        """
        self._client = client
        self._layout = layout
        self._revisions = Revisions(client, layout)
        self._known: dict[str, _Known] = {}
        self._newer: dict[str, str] = {}
        """Collections of a newer format when they were last listed, each with the reason."""

    async def open(self) -> None:
        with errors():
            await self._client.get_collections()

    async def close(self) -> None:
        await self._client.close()

    async def collections(self) -> list[Collection]:
        with errors():
            listed = await self._client.get_collections()
        found, newer = [], {}
        names = sorted(description.name for description in listed.collections)
        self._known = {name: self._known[name] for name in names if name in self._known}
        for name in names:
            try:
                found.append(await self.collection(name))
            except NotFound:
                continue
            except NewerFormat as error:
                newer[name] = error.message
        self._newer = newer
        return found

    def set_aside(self) -> dict[str, str]:
        return dict(self._newer)  # the server sees to damage

    async def create(self, collection: Collection) -> None:
        with errors(collection.name):
            await self._remove_unfinished(collection.name)
            await self._client.create_collection(
                collection.name,
                metadata={_UNFINISHED: True},
                **self._layout.collection(collection),
            )
            for field, schema in payload_indexes(collection).items():
                await self._client.create_payload_index(collection.name, field, schema, wait=True)
        await self._revisions.advance(collection.name)
        # Last, so that what a crash leaves half made is known by the lack of it.
        await self.describe(collection)

    async def collection(self, name: str) -> Collection:
        with errors(name):
            info = await self._client.get_collection(name)
        held = (info.config.metadata or {}).get(_OURS)
        if held is None:
            raise NotFound(f"There is no collection {name!r}.")
        return Collection.from_json(held)

    async def versioned(self, names: Sequence[str]) -> list[Versioned]:
        collections, revisions = await asyncio.gather(
            asyncio.gather(*map(self.collection, names)), self._revisions.read(names)
        )
        found = [
            # 0 where an earlier version of Raglan wrote it last.
            Versioned(collection, revision or await self._revisions.advance(collection.name))
            for collection, revision in zip(collections, revisions, strict=True)
        ]
        for each in found:
            self._note(each)
        return found

    def last_read(self, name: str) -> Versioned | None:
        known = self._known.get(name)
        return known.versioned if known is not None and known.is_settled else None

    async def describe(self, collection: Collection) -> None:
        with errors(collection.name):
            await self._client.update_collection(
                collection.name, metadata={_OURS: collection.to_json()}
            )

    async def drop(self, name: str) -> int:
        with suppress(NewerFormat):
            await self.collection(name)
        with errors(name):
            await self._client.delete_collection(name)
        self._known.pop(name, None)
        return await self._revisions.advance(name)

    async def upsert(self, name: str, points: Sequence[Point]) -> int:
        try:
            with errors(name):
                has_tokens = bool(points) and points[0].tokens is not None
                size = 1 if has_tokens else _UPSERT_AT_ONCE
                for start in range(0, len(points), size):
                    some = [point_struct(point) for point in points[start : start + size]]
                    await self._client.upsert(name, some, wait=True)
        finally:
            revision = await self._advance(name)
        return revision

    async def search(
        self, name: str, searches: Sequence[Search], where: Clause | None
    ) -> list[list[Hit]]:
        clause = None if where is None else condition(where)
        params = self._layout.search_params()
        requests = [request(each, clause, params) for each in searches]
        with errors(name):
            found = await self._client.query_batch_points(name, requests, timeout=seconds_left())
        return [
            [hit(point, each) for point in response.points]
            for each, response in zip(searches, found, strict=True)
        ]

    async def fetch(self, name: str, ids: Sequence[str]) -> dict[str, Chunk]:
        with errors(name):
            records = await self._client.retrieve(
                name, list(ids), with_payload=list(STORED), timeout=seconds_left()
            )
        return {str(record.id): Chunk.from_payload(record.payload or {}) for record in records}

    async def points(self, name: str, ids: Sequence[str]) -> list[Point]:
        with errors(name):
            records = await self._client.retrieve(
                name, list(ids), with_payload=True, with_vectors=True, timeout=seconds_left()
            )
        found = {str(record.id): stored_point(record) for record in records}
        return [found[id_] for id_ in ids if id_ in found]

    async def select(self, name: str, where: Clause) -> list[Chunk]:
        records = self._scroll(name, where, list(STORED))
        return [Chunk.from_payload(record.payload or {}) async for record in records]

    async def delete(self, name: str, where: Clause) -> Removed:
        ids = [record.id async for record in self._scroll(name, where, False)]
        if not ids:
            (unchanged,) = await self.versioned([name])
            return Removed(0, unchanged.revision)
        try:
            with errors(name):
                await self._client.delete(name, models.PointIdsList(points=ids), wait=True)
        finally:
            revision = await self._advance(name)
        return Removed(len(ids), revision)

    async def label(self, name: str, where: Clause, relabel: Relabel) -> Removed:
        found: dict[str, list[Any]] = {}
        async for record in self._scroll(name, where, list(LABELLED)):
            fields = {field: (record.payload or {}).get(field) for field in LABELLED}
            found.setdefault(json.dumps(fields), []).append(record.id)
        if not found:
            (unchanged,) = await self.versioned([name])
            return Removed(0, unchanged.revision)
        operations = [
            models.SetPayloadOperation(set_payload=models.SetPayload(payload=fresh, points=ids))
            for key, ids in found.items()
            if (fresh := relabel(json.loads(key)))
        ]
        try:
            with errors(name):
                for start in range(0, len(operations), _LABELLED_AT_ONCE):
                    some = operations[start : start + _LABELLED_AT_ONCE]
                    await self._client.batch_update_points(name, some, wait=True)
        finally:
            revision = await self._advance(name)
        return Removed(sum(map(len, found.values())), revision)

    async def count(self, name: str, where: Clause | None) -> int:
        clause = None if where is None else condition(where)
        with errors(name):
            return (await self._client.count(name, count_filter=clause, exact=True)).count

    async def count_by_document(
        self, name: str, document_ids: Sequence[str], where: Clause | None
    ) -> list[int]:
        wanted: Clause = of_documents(document_ids)
        clause = condition(wanted if where is None else All((wanted, where)))
        with errors(name):
            found = await self._client.facet(
                name, DOCUMENT_ID, facet_filter=clause, limit=len(document_ids), exact=True
            )
        counts = {str(each.value): each.count for each in found.hits}
        return [counts.get(id_, 0) for id_ in document_ids]

    async def size(self, name: str) -> Size:
        with errors(name):
            info, chunks = await asyncio.gather(
                self._client.get_collection(name), self._client.count(name, exact=True)
            )
            params = info.config.params
            with_each = [
                models.Filter(must=[models.HasVectorCondition(has_vector=vector)])
                for vector in params.sparse_vectors or {}
            ]
            sparse = await asyncio.gather(
                *(self._client.count(name, count_filter=each, exact=True) for each in with_each)
            )
        # The server counts indexed vectors of all names together; sparse ones always are.
        names = len(params.vectors) if isinstance(params.vectors, dict) else 1
        dense = (info.indexed_vectors_count or 0) - sum(each.count for each in sparse)
        indexed = max(0, dense) // names
        return Size(chunks.count, max(0, chunks.count - indexed), disk_bytes=0)

    async def stats(self, name: str) -> Stats:
        size = await self.size(name)
        with errors(name):
            documents = await self._client.facet(
                name, DOCUMENT_ID, limit=min(max(1, size.chunks), _MAX_DOCUMENTS)
            )
        return Stats(
            chunks=size.chunks,
            unindexed_chunks=size.unindexed_chunks,
            disk_bytes=size.disk_bytes,
            documents=len(documents.hits),
        )

    def backlog_s(self) -> float:
        return 0.0  # the server's queues are its own

    def _note(self, read: Versioned) -> None:
        """Remember what was read. What others change just now is read before each search."""
        name = read.collection.name
        known = self._known.get(name)
        is_settled = known is None or known.versioned.revision == read.revision
        self._known[name] = _Known(read, is_settled)

    async def _advance(self, name: str) -> int:
        """Raise the revision after a change of ours, which leaves what is known of it right."""
        revision = await self._revisions.advance(name)
        if (known := self._known.get(name)) is not None:
            held = Versioned(known.versioned.collection, revision)
            self._known[name] = known._replace(versioned=held)
        return revision

    async def _remove_unfinished(self, name: str) -> None:
        """Remove a collection that a crash left unfinished.

        Raises:
            Conflict: The name is taken.
        """
        if not await self._client.collection_exists(name):
            return
        metadata = (await self._client.get_collection(name)).config.metadata or {}
        if _OURS in metadata:
            raise Conflict(f"Collection {name!r} exists already.")
        if _UNFINISHED not in metadata:
            raise Conflict(
                f"Qdrant holds a collection {name!r} that Raglan did not make; choose another name."
            )
        await self._client.delete_collection(name)

    async def _scroll(
        self, name: str, where: Clause, with_payload: bool | list[str]
    ) -> AsyncIterator[models.Record]:
        """Yield every record that passes, page by page."""
        offset: Any = None
        while True:
            with errors(name):
                records, offset = await self._client.scroll(
                    name,
                    scroll_filter=condition(where),
                    limit=_PAGE,
                    offset=offset,
                    with_payload=with_payload,
                )
            for record in records:
                yield record
            if offset is None:
                return
