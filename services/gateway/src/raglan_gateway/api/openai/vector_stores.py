"""`/v1/vector_stores`: a vector store is a collection, its id the collection's name."""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Request
from pydantic import Field
from raglan.deadline import Deadline
from raglan.identifiers import COLLECTION_NAME
from raglan.v1 import ingester_pb2, retriever_pb2

from raglan_gateway import caller
from raglan_gateway.api import collections, schemas
from raglan_gateway.api.openai import documented
from raglan_gateway.api.openai.lenient import Lenient, ListOf, query_request
from raglan_gateway.api.openai.pages import Limit, Order, page
from raglan_gateway.api.openai.records import Records
from raglan_gateway.api.openai.vector_files import VectorFiles
from raglan_gateway.api.openai.vector_filters import RankingOptions, converted
from raglan_gateway.api.openai.vector_results import attributes, score
from raglan_gateway.api.query import Answering
from raglan_gateway.deletions import Deletions
from raglan_gateway.error_envelopes import InvalidParameter
from raglan_gateway.mesh import Mesh

StoreId = Annotated[str, Path(pattern=COLLECTION_NAME, max_length=64)]
_COUNTED: Final = 1_000
"""Documents of which each is counted by its state; more are taken for complete."""
_CHARS_A_TOKEN: Final = 4
_NAMES: Final = {"top_k": "max_num_results", "min_score": "ranking_options.score_threshold",
                 "filter": "filters"}  # fmt: skip
_MAX_RESULTS: Final = 50


class StaticChunking(Lenient):
    """Chunk sizes in tokens."""

    max_chunk_size_tokens: Annotated[int, Field(ge=100, le=4096)]
    chunk_overlap_tokens: Annotated[int, Field(ge=0, le=2048)]


class FileChunking(Lenient):
    """Chunking of a vector store's files."""

    type: str
    static: StaticChunking | None = None


class NewVectorStore(Lenient):
    """A vector store to make."""

    name: Annotated[str, Field(max_length=256)] | None = None
    file_ids: ListOf[str] | None = None
    metadata: dict[str, str] | None = None
    chunking_strategy: FileChunking | None = None


class ChangedVectorStore(Lenient):
    """A vector store's new name or metadata."""

    name: Annotated[str, Field(max_length=256)] | None = None
    metadata: dict[str, str] | None = None


class VectorSearch(Lenient):
    """A search of one vector store."""

    query: str | ListOf[str]
    filters: dict[str, Any] | None = None
    max_num_results: Annotated[int, Field(ge=1, le=_MAX_RESULTS)] = 10
    ranking_options: RankingOptions | None = None


class VectorStores:
    """Makes and describes vector stores."""

    def __init__(
        self, mesh: Mesh, deletions: Deletions, files: VectorFiles, records: Records
    ) -> None:
        self._mesh = mesh
        self._deletions = deletions
        self._files = files
        self._records = records

    async def create(self, body: NewVectorStore) -> dict[str, Any]:
        """Make a collection, and attach files to it."""
        _check_metadata(body.metadata)
        name = f"vs_{secrets.token_hex(12)}"
        await collections.create(self._mesh, name, _chunking(body.chunking_strategy))
        record = {
            "name": body.name or "",
            "metadata": body.metadata or {},
            "created_at": int(time.time()),
        }
        try:
            await asyncio.to_thread(self._records.put, caller.current().tenant, name, record)
            if body.file_ids:
                await self._files.attach(name, [(file_id, {}) for file_id in body.file_ids])
        except Exception:
            await self.delete(name)
            raise
        return await self.shown(await self._files.require(name))

    async def list(self) -> list[dict[str, Any]]:
        """Describe every vector store, the newest first."""
        found: retriever_pb2.ListCollectionsResponse = await self._mesh.retriever.call(
            "ListCollections",
            retriever_pb2.ListCollectionsRequest(),
            deadline=Deadline.after(collections.TIMEOUT_S),
        )
        stores = [await self.shown(each) for each in found.collections]
        return sorted(stores, key=lambda each: (each["created_at"], each["id"]), reverse=True)

    async def change(self, name: str, body: ChangedVectorStore) -> dict[str, Any]:
        """Change the name or the metadata."""
        _check_metadata(body.metadata)
        found = await self._files.require(name)
        tenant = caller.current().tenant
        record = await asyncio.to_thread(self._records.get, tenant, name)
        given = body.model_dump(include={"name", "metadata"}, exclude_none=True)
        await asyncio.to_thread(self._records.put, tenant, name, record | given)
        return await self.shown(found)

    async def delete(self, name: str) -> None:
        """Delete the collection; files stay where they are."""
        await collections.delete(self._mesh, self._deletions, name)
        await asyncio.to_thread(self._records.delete, caller.current().tenant, name)

    async def shown(self, found: retriever_pb2.Collection) -> dict[str, Any]:
        """Build a vector store object."""
        tenant = caller.current().tenant
        record = await asyncio.to_thread(self._records.get, tenant, found.name)
        counts = await self._counts(found)
        return {
            "id": found.name,
            "object": "vector_store",
            "created_at": record.get("created_at", 0),
            "last_active_at": None,
            "name": record.get("name", found.name),
            "metadata": record.get("metadata", {}),
            "status": "in_progress" if counts["in_progress"] else "completed",
            # An index has files before it holds anything.
            "usage_bytes": found.disk_bytes if found.chunks else 0,
            "file_counts": counts,
            "expires_after": None,
            "expires_at": None,
        }

    async def _counts(self, found: retriever_pb2.Collection) -> dict[str, int]:
        documents = (await self._files.list(found.name, limit=_COUNTED)).documents
        states = [document.status for document in documents]
        in_progress = states.count(ingester_pb2.DOCUMENT_STATUS_QUEUED)
        failed = states.count(ingester_pb2.DOCUMENT_STATUS_FAILED)
        completed = max(len(states) - in_progress - failed, found.documents - in_progress)
        return {
            "in_progress": in_progress,
            "completed": completed,
            "failed": failed,
            "cancelled": 0,
            "total": in_progress + completed + failed,
        }


def router(stores: VectorStores, files: VectorFiles, answering: Answering) -> APIRouter:
    """The routes of vector stores."""
    routes = documented.router("/v1/vector_stores")

    @routes.post("", **documented.returns(documented.VectorStore))
    async def create_vector_store(body: NewVectorStore) -> dict[str, Any]:
        """Make a vector store."""
        return await stores.create(body)

    @routes.get("", **documented.returns(documented.VectorStoreObjects))
    async def list_vector_stores(
        limit: Limit = 20,
        order: Order = "desc",
        after: str | None = None,
        before: str | None = None,
    ) -> dict[str, Any]:
        """List vector stores."""
        found = await stores.list()
        found = found[:: -1 if order == "asc" else 1]
        return page(found, limit=limit, after=after, before=before)

    @routes.get("/{store_id}", **documented.returns(documented.VectorStore))
    async def get_vector_store(store_id: StoreId) -> dict[str, Any]:
        """One vector store."""
        return await stores.shown(await files.require(store_id))

    @routes.post("/{store_id}", **documented.returns(documented.VectorStore))
    async def change_vector_store(store_id: StoreId, body: ChangedVectorStore) -> dict[str, Any]:
        """Change a vector store's name or metadata."""
        return await stores.change(store_id, body)

    @routes.delete("/{store_id}", **documented.returns(documented.DeletedObject))
    async def delete_vector_store(store_id: StoreId) -> dict[str, Any]:
        """Delete a vector store; its files stay."""
        await stores.delete(store_id)
        return {"id": store_id, "object": "vector_store.deleted", "deleted": True}

    @routes.post("/{store_id}/search", **documented.returns(documented.FoundPassages))
    async def search_vector_store(
        store_id: StoreId, body: VectorSearch, request: Request
    ) -> dict[str, Any]:
        """Search a vector store."""
        query = body.query if isinstance(body.query, str) else " ".join(body.query)
        threshold = body.ranking_options.score_threshold if body.ranking_options else None
        fields = {
            "query": query,
            "collections": [store_id],
            "top_k": body.max_num_results,
            "filter": converted(body.filters, "filters") if body.filters else None,
            "min_score": threshold or None,
        }
        asked = query_request(fields, None, _NAMES)
        search = schemas.SearchRequest.model_validate(
            asked.model_dump(include=set(schemas.SearchRequest.model_fields), by_alias=True)
            | {"filter": asked.filter}
        )
        found = schemas.SearchReply.model_validate_json(
            await answering.search(search, request, "default")
        )
        return {
            "object": "vector_store.search_results.page",
            "search_query": [body.query] if isinstance(body.query, str) else body.query,
            "data": [_result(each) for each in found.passages],
            "has_more": False,
            "next_page": None,
        }

    return routes


def _result(passage: schemas.Passage) -> dict[str, Any]:
    return {
        "file_id": passage.document_id,
        "filename": passage.title or passage.document_id,
        "score": score(passage.scores),
        "attributes": attributes(passage.metadata),
        "content": [{"type": "text", "text": passage.text}],
    }


def _chunking(asked: FileChunking | None) -> schemas.Chunking:
    """Return the chunk sizes, in characters, of a strategy in tokens."""
    if asked is None or asked.type == "auto":
        return schemas.Chunking()
    if asked.type != "static" or asked.static is None:
        raise InvalidParameter(
            "chunking_strategy.type is auto, or static with its sizes.", param="chunking_strategy"
        )
    return schemas.Chunking(
        max_chars=min(20_000, asked.static.max_chunk_size_tokens * _CHARS_A_TOKEN),
        overlap_chars=asked.static.chunk_overlap_tokens * _CHARS_A_TOKEN,
    )


def _check_metadata(given: dict[str, str] | None) -> None:
    if given and (
        len(given) > 16 or any(len(name) > 64 or len(value) > 512 for name, value in given.items())
    ):
        raise InvalidParameter(
            "metadata has at most 16 entries, names of 64 and values of 512 characters.",
            param="metadata",
        )
