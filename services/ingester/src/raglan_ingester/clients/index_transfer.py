"""The index, as backups read and write it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from raglan import access_tags, tenancy
from raglan.deadline import Deadline
from raglan.errors import NotFound
from raglan.rpc.pool import EndpointPool
from raglan.v1 import retriever_pb2

_CALL_S: Final = 60.0


class IndexTransfer:
    """Calls of the retrievers, whose messages pass unread. All raise RaglanError."""

    def __init__(
        self, pool: EndpointPool, on_change: Callable[[str, int], Awaitable[None]]
    ) -> None:
        """Call the retrievers of `pool`.

        Args:
            pool: The retrievers.
            on_change: Awaited with a collection and its revision after each change of its chunks.
        """
        self._pool = pool
        self._on_change = on_change

    async def collections(self) -> Sequence[retriever_pb2.Collection]:
        """All tenants' collections; those that cannot be served have an `error`."""
        request = retriever_pb2.ListCollectionsRequest(all_tenants=True)
        found: retriever_pb2.ListCollectionsResponse = await self._call("ListCollections", request)
        return list(found.collections)

    async def description(self, name: str) -> retriever_pb2.CollectionDescription:
        """The description of a collection."""
        with tenancy.owner_of(name) as alone:
            request = retriever_pb2.GetCollectionRequest(name=alone)
            found: retriever_pb2.CollectionDescription = await self._call(
                "ExportCollection", request
            )
        found.name = name
        return found

    async def create(self, description: retriever_pb2.CollectionDescription) -> None:
        """Create a collection as it was described. Raises Conflict when there is one."""
        request = retriever_pb2.CollectionDescription()
        request.CopyFrom(description)
        with tenancy.owner_of(description.name) as request.name:
            await self._call("ImportCollection", request)

    async def drop(self, name: str) -> None:
        """Delete a collection; one that is gone already is no error."""
        try:
            with tenancy.owner_of(name) as alone:
                request = retriever_pb2.DeleteCollectionRequest(name=alone)
                await self._call("DeleteCollection", request)
        except NotFound:
            return

    async def chunks(
        self, collection: str, chunk_ids: Sequence[str]
    ) -> retriever_pb2.ExportChunksResponse:
        """Those of the chunks that exist."""
        request = retriever_pb2.ExportChunksRequest(chunk_ids=chunk_ids)
        with tenancy.owner_of(collection) as request.collection:
            reply: retriever_pb2.ExportChunksResponse = await self._call("ExportChunks", request)
        reply.found.collection = collection
        return reply

    async def add(self, chunks: retriever_pb2.IndexedChunks) -> None:
        """Store chunks durably."""
        collection = chunks.collection
        with tenancy.owner_of(collection) as alone:
            request = retriever_pb2.ImportChunksRequest(chunks=chunks)
            request.chunks.collection = alone
            reply = await self._call("ImportChunks", request)
        await self._on_change(collection, reply.revision)

    async def _call(self, method: str, request: Any) -> Any:
        deadline = Deadline.after(_CALL_S, is_budget=True)
        with access_tags.serving(None):  # a backup holds every document
            return await self._pool.call(method, request, deadline=deadline, retry=False)
