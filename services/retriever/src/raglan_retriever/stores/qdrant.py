"""A Qdrant server or cluster: the same collections, shared by any number of retrievers."""

from __future__ import annotations

import asyncio
import json
import math
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

from qdrant_client import AsyncQdrantClient, models
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse
from raglan import deadline
from raglan.errors import Conflict, Internal, NotFound, Overloaded, RaglanError, Unavailable
from raglan.filtering import clauses as filters
from raglan.filtering.clauses import Clause

from raglan_retriever.chunks import DOCUMENT_ID, LABELLED, NUMBERS, STORED, TERMS, Chunk
from raglan_retriever.collection import Collection, NewerFormat
from raglan_retriever.stores import qdrant_vectors
from raglan_retriever.stores.store import (
    LEXICAL,
    Hit,
    LateInteraction,
    Point,
    Relabel,
    Removed,
    SearchVector,
    Size,
    Stats,
    Versioned,
)
from raglan_retriever.validity import FROM, TO

_OURS: Final = "raglan"
"""The key of a collection's metadata that holds our description. What lacks it is not ours."""

_UNFINISHED: Final = "raglan_unfinished"

_REVISIONS: Final = "raglan.revisions"
"""A collection with one point for the revision of each other one. No collection of a user can have
this name. The metadata of the collections could not hold it: it has no conditional update."""

_REVISION: Final = "revision"

_PAGE: Final = 500
_UPSERT_AT_ONCE: Final = 40
"""The client writes JSON on the event loop: 5 ms for 40 points of 384 dimensions."""
_LABELLED_AT_ONCE: Final = 100
"""Documents."""

_MAX_DOCUMENTS: Final = 10_000_000


class QdrantStore:
    """Stateless: descriptions and revisions are stored in Qdrant itself."""

    name: Final[str] = "qdrant"

    def __init__(self, client: AsyncQdrantClient) -> None:
        """`client` is closed by `close`."""
        self._client = client
        self._newer: dict[str, str] = {}
        """Collections of a newer format when they were last listed, each with the reason."""

    async def open(self) -> None:
        with _errors():
            await self._client.get_collections()

    async def close(self) -> None:
        await self._client.close()

    async def collections(self) -> list[Collection]:
        with _errors():
            listed = await self._client.get_collections()
        found, newer = [], {}
        for name in sorted(description.name for description in listed.collections):
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
        with _errors(collection.name):
            await self._remove_unfinished(collection.name)
            await self._client.create_collection(
                collection.name,
                metadata={_UNFINISHED: True},
                vectors_config=qdrant_vectors.dense_params(
                    collection.model.dimension, collection.further_vectors
                ),
                sparse_vectors_config=qdrant_vectors.sparse_params(collection.further_vectors),
            )
            for field in (DOCUMENT_ID, TERMS):
                await self._client.create_payload_index(
                    collection.name, field, models.PayloadSchemaType.KEYWORD, wait=True
                )
            for key in (FROM, TO) if collection.versions else ():
                await self._client.create_payload_index(
                    collection.name, f'{NUMBERS}."{key}"', models.PayloadSchemaType.FLOAT, wait=True
                )
        await self._raise_revision(collection.name)
        # Last, so that what a crash leaves half made is known by the lack of it.
        await self.describe(collection)

    async def collection(self, name: str) -> Collection:
        with _errors(name):
            info = await self._client.get_collection(name)
        held = (info.config.metadata or {}).get(_OURS)
        if held is None:
            raise NotFound(f"There is no collection {name!r}.")
        return Collection.from_json(held)

    async def versioned(self, names: Sequence[str]) -> list[Versioned]:
        collections, revisions = await asyncio.gather(
            asyncio.gather(*map(self.collection, names)), self._revisions(names)
        )
        return [
            # 0 where an earlier version of Raglan wrote it last.
            Versioned(collection, revision or await self._raise_revision(collection.name))
            for collection, revision in zip(collections, revisions, strict=True)
        ]

    async def describe(self, collection: Collection) -> None:
        with _errors(collection.name):
            await self._client.update_collection(
                collection.name, metadata={_OURS: collection.to_json()}
            )

    async def drop(self, name: str) -> int:
        with suppress(NewerFormat):
            await self.collection(name)
        with _errors(name):
            await self._client.delete_collection(name)
        return await self._raise_revision(name)

    async def upsert(self, name: str, points: Sequence[Point]) -> int:
        try:
            with _errors(name):
                has_tokens = bool(points) and points[0].tokens is not None
                size = 1 if has_tokens else _UPSERT_AT_ONCE
                for start in range(0, len(points), size):
                    some = [_point(point) for point in points[start : start + size]]
                    await self._client.upsert(name, some, wait=True)
        finally:
            revision = await self._raise_revision(name)
        return revision

    async def search(
        self, name: str, query: SearchVector, limit: int, where: Clause | None
    ) -> list[Hit]:
        passes = None if where is None else _filter(where)
        with _errors(name):
            found = await self._client.query_points(
                name,
                **qdrant_vectors.query(query, limit, passes),
                limit=limit,
                with_payload=False,
                timeout=_seconds_left(),
            )
        tokens = len(query.tokens) if isinstance(query, LateInteraction) else 1
        return [Hit(str(point.id), point.score / tokens) for point in found.points]

    async def fetch(self, name: str, ids: Sequence[str]) -> dict[str, Chunk]:
        with _errors(name):
            records = await self._client.retrieve(
                name, list(ids), with_payload=list(STORED), timeout=_seconds_left()
            )
        return {str(record.id): Chunk.from_payload(record.payload or {}) for record in records}

    async def points(self, name: str, ids: Sequence[str]) -> list[Point]:
        with _errors(name):
            records = await self._client.retrieve(
                name, list(ids), with_payload=True, with_vectors=True, timeout=_seconds_left()
            )
        found = {str(record.id): _stored_point(record) for record in records}
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
            with _errors(name):
                await self._client.delete(name, models.PointIdsList(points=ids), wait=True)
        finally:
            revision = await self._raise_revision(name)
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
            with _errors(name):
                for start in range(0, len(operations), _LABELLED_AT_ONCE):
                    some = operations[start : start + _LABELLED_AT_ONCE]
                    await self._client.batch_update_points(name, some, wait=True)
        finally:
            revision = await self._raise_revision(name)
        return Removed(sum(map(len, found.values())), revision)

    async def count(self, name: str, where: Clause | None) -> int:
        clause = None if where is None else _filter(where)
        with _errors(name):
            return (await self._client.count(name, count_filter=clause, exact=True)).count

    async def size(self, name: str) -> Size:
        with _errors(name):
            info = await self._client.get_collection(name)
            chunks = await self.count(name, None)
            params = info.config.params
            sparse = 0
            for vector in params.sparse_vectors or {}:
                with_it = models.Filter(must=[models.HasVectorCondition(has_vector=vector)])
                sparse += (await self._client.count(name, count_filter=with_it, exact=True)).count
        # The server counts indexed vectors of all names together; sparse ones always are.
        names = len(params.vectors) if isinstance(params.vectors, dict) else 1
        indexed = max(0, (info.indexed_vectors_count or 0) - sparse) // names
        return Size(chunks, max(0, chunks - indexed), disk_bytes=0)

    async def stats(self, name: str) -> Stats:
        size = await self.size(name)
        with _errors(name):
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

    async def _revisions(self, names: Sequence[str]) -> list[int]:
        """Revision of each collection; 0 where it has none."""
        ids = [_revision_id(name) for name in names]
        try:
            with _errors(_REVISIONS):
                records = await self._client.retrieve(_REVISIONS, ids, timeout=_seconds_left())
        except NotFound:
            with suppress(Conflict), _errors(_REVISIONS):  # another retriever was faster
                await self._client.create_collection(
                    _REVISIONS,
                    vectors_config={},
                    # No point has one, but a collection without vectors may be refused.
                    sparse_vectors_config={LEXICAL: models.SparseVectorParams()},
                )
                # A server in strict mode refuses conditions on fields without an index.
                await self._client.create_payload_index(
                    _REVISIONS, _REVISION, models.PayloadSchemaType.INTEGER, wait=True
                )
            return [0] * len(ids)
        found = {str(record.id): (record.payload or {})[_REVISION] for record in records}
        return [found.get(id_, 0) for id_ in ids]

    async def _raise_revision(self, name: str) -> int:
        """Raise a collection's revision after a change of it; a revision that it has reached.

        Replicas may do so at once. The condition lets one of them write what follows `before`, and
        the others find it written: after their change too, since all read `before` after theirs.
        """
        (before,) = await self._revisions([name])
        # The first one is above what a lost collection of revisions may have held.
        after = before + 1 if before else time.time_ns() // 1_000
        is_unchanged = models.FieldCondition(key=_REVISION, match=models.MatchValue(value=before))
        with _errors(_REVISIONS):
            await self._client.upsert(
                _REVISIONS,
                [
                    models.PointStruct(
                        id=_revision_id(name),
                        vector={},
                        payload={_REVISION: after, "collection": name},
                    )
                ],
                wait=True,
                update_filter=models.Filter(must=[is_unchanged]),
            )
        return after

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
            with _errors(name):
                records, offset = await self._client.scroll(
                    name,
                    scroll_filter=_filter(where),
                    limit=_PAGE,
                    offset=offset,
                    with_payload=with_payload,
                )
            for record in records:
                yield record
            if offset is None:
                return


@contextmanager
def _errors(name: str = "") -> Iterator[None]:
    """Translate Qdrant's exceptions."""
    try:
        yield
    except RaglanError:
        raise
    except ResourceExhaustedResponse as error:
        raise Overloaded("Qdrant is busy.", retry_after_s=error.retry_after_s) from None
    except UnexpectedResponse as error:
        if error.status_code == 404:
            raise NotFound(f"There is no collection {name!r}.") from None
        if error.status_code == 409:
            raise Conflict(f"Collection {name!r} exists already.") from None
        if error.status_code in (401, 403):
            raise Unavailable(
                "Qdrant refuses the key, or wants one; check RAGLAN_RETRIEVER_QDRANT_API_KEY."
            ) from None
        if (error.status_code or 500) >= 500:
            raise Unavailable(
                f"Qdrant answers with status {error.status_code}.", retry_after_s=1
            ) from None
        raise Internal(f"Qdrant refuses the request with status {error.status_code}.") from error
    except ResponseHandlingException as error:
        raise Unavailable(
            f"Qdrant cannot be reached ({type(error.source).__name__}); check "
            "RAGLAN_RETRIEVER_QDRANT_URL.",
            retry_after_s=1,
        ) from None


def _seconds_left() -> int | None:
    """Timeout for Qdrant, in whole seconds, so that it stops work that nobody waits for."""
    limit = deadline.current()
    return None if limit is None else max(1, math.ceil(limit.remaining_s()))


def _revision_id(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, name))


def _point(point: Point) -> models.PointStruct:
    vectors = qdrant_vectors.of_point(point)
    return models.PointStruct(id=point.id, vector=vectors, payload=point.payload)


def _stored_point(record: models.Record) -> Point:
    held: Any = record.vector
    return qdrant_vectors.to_point(str(record.id), record.payload or {}, held)


def _filter(clause: Clause) -> models.Filter:
    match clause:
        case filters.All(clauses):
            return models.Filter(must=[_filter(inner) for inner in clauses])
        case filters.Any(clauses):
            return models.Filter(should=[_filter(inner) for inner in clauses])
        case filters.Not(inner):
            return models.Filter(must_not=[_filter(inner)])
        case filters.Ids(any_of):
            return models.Filter(must=[models.HasIdCondition(has_id=list(any_of))])
        case filters.Terms(any_of):
            match_any = models.MatchAny(any=list(any_of))
            return models.Filter(must=[models.FieldCondition(key=TERMS, match=match_any)])
        case filters.Numbers(key, gt, gte, lt, lte):
            within = models.Range(gt=gt, gte=gte, lt=lt, lte=lte)
            return models.Filter(
                must=[models.FieldCondition(key=f'{NUMBERS}."{key}"', range=within)]
            )
