"""Files of vector stores: documents of a collection, whose ids are those of the files."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final

from raglan.deadline import Deadline
from raglan.errors import NotFound
from raglan.v1 import ingester_pb2, retriever_pb2

from raglan_gateway import caller
from raglan_gateway.api import documents
from raglan_gateway.api.collections import TIMEOUT_S
from raglan_gateway.api.openai.file_store import FileStore, StoredFile
from raglan_gateway.api.openai.vector_results import attributes
from raglan_gateway.deletions import Deletions
from raglan_gateway.error_envelopes import InvalidParameter
from raglan_gateway.mesh import Mesh

MAX_ATTRIBUTES: Final = 16
MAX_FILES: Final = 500
"""Files that one call attaches."""
_PIECE_BYTES: Final = 1024 * 1024
STATUSES: Final = {
    ingester_pb2.DOCUMENT_STATUS_QUEUED: "in_progress",
    ingester_pb2.DOCUMENT_STATUS_READY: "completed",
    ingester_pb2.DOCUMENT_STATUS_FAILED: "failed",
}

Attributes = Mapping[str, str | float | bool]


class VectorFiles:
    """Attaches, reads and detaches files."""

    def __init__(self, mesh: Mesh, deletions: Deletions, store: FileStore) -> None:
        self._mesh = mesh
        self._deletions = deletions
        self._store = store

    async def require(self, name: str) -> retriever_pb2.Collection:
        """Return the collection of a vector store.

        Raises:
            NotFound: there is none.
        """
        found: retriever_pb2.Collection = await self._mesh.retriever.call(
            "GetCollection",
            retriever_pb2.GetCollectionRequest(name=name),
            deadline=Deadline.after(TIMEOUT_S),
        )
        return found

    async def attach(self, name: str, files: Sequence[tuple[str, Attributes]]) -> str:
        """Submit files with their attributes as one job; returns its id.

        Raises:
            InvalidParameter: too many files.
            NotFound: a file or the vector store does not exist.
        """
        if not 1 <= len(files) <= MAX_FILES:
            raise InvalidParameter(
                f"{len(files)} files are named; 1 to {MAX_FILES} are attached at once.",
                param="file_ids",
            )
        await self.require(name)
        tenant = caller.current().tenant
        stored = [
            (await asyncio.to_thread(self._store.get, tenant, file_id), given)
            for file_id, given in dict(files).items()
        ]
        accepted = await documents.submit(self._mesh, name, self._parts(tenant, stored))
        for file, _ in stored:
            await asyncio.to_thread(self._store.attached, tenant, file.id, name)
        return accepted.job_id

    async def _parts(
        self, tenant: str, files: Sequence[tuple[StoredFile, Attributes]]
    ) -> AsyncIterator[ingester_pb2.SubmitRequest]:
        for file, given in files:
            header = ingester_pb2.DocumentHeader(
                document_id=file.id,
                filename=file.filename,
                media_type=file.media_type,
                title=file.filename,
                metadata_json=json.dumps(dict(given), ensure_ascii=False),
            )
            yield ingester_pb2.SubmitRequest(document=header)
            source = await asyncio.to_thread(self._store.open, tenant, file.id)
            with source:
                while data := await asyncio.to_thread(source.read, _PIECE_BYTES):
                    yield ingester_pb2.SubmitRequest(data=data)

    async def change(self, name: str, file_id: str, given: Attributes) -> ingester_pb2.Document:
        """Give a file these attributes in place of all earlier ones; return its document."""
        request = ingester_pb2.UpdateDocumentRequest(
            collection=name,
            document_id=file_id,
            metadata_json=json.dumps(dict(given), ensure_ascii=False),
            replace_metadata=True,
        )
        changed: ingester_pb2.Document = await self._deletions.relabel(
            name, lambda: self._ask("UpdateDocument", request, retry=False)
        )
        return changed

    async def get(self, name: str, file_id: str) -> ingester_pb2.Document:
        """Return the document of a file, with the beginning of its text."""
        found: ingester_pb2.Document = await self._ask(
            "GetDocument",
            ingester_pb2.GetDocumentRequest(collection=name, document_id=file_id),
        )
        return found

    async def text(self, name: str, file_id: str) -> str:
        """Return the whole text of a file, as it was parsed."""
        return (await documents.stored(self._mesh, name, file_id)).text

    async def list(
        self, name: str, *, limit: int, after: str = ""
    ) -> ingester_pb2.ListDocumentsResponse:
        """Return a page of a vector store's documents, by id."""
        found: ingester_pb2.ListDocumentsResponse = await self._ask(
            "ListDocuments",
            ingester_pb2.ListDocumentsRequest(collection=name, limit=limit, after=after),
        )
        return found

    async def detach(self, name: str, file_id: str) -> bool:
        """Delete the document of a file; returns whether there was one."""
        request = ingester_pb2.GetDocumentRequest(collection=name, document_id=file_id)
        try:
            await self._deletions.run(
                name, lambda: self._ask("DeleteDocument", request, retry=False), [file_id]
            )
        except NotFound:
            return False
        return True

    async def _ask(self, method: str, request: Any, *, retry: bool = True) -> Any:
        return await self._mesh.ingester.call(
            method, request, deadline=Deadline.after(TIMEOUT_S), retry=retry
        )


def shown(found: ingester_pb2.Document, name: str) -> dict[str, Any]:
    """Build a vector store's file."""
    failed = found.status == ingester_pb2.DOCUMENT_STATUS_FAILED
    problem = {"code": "invalid_file", "message": found.error or "It could not be read."}
    return {
        "id": found.id,
        "object": "vector_store.file",
        "created_at": found.created_at.seconds,
        "vector_store_id": name,
        "status": STATUSES.get(found.status, "in_progress"),
        "last_error": problem if failed else None,
        "usage_bytes": found.size_bytes,
        "attributes": attributes(json.loads(found.metadata_json or "{}")),
        "chunking_strategy": {"type": "other"},
    }


def check_attributes(given: Mapping[str, Any] | None, where: str = "attributes") -> Attributes:
    """Return attributes within OpenAI's limits.

    Raises:
        InvalidParameter: they are beyond them.
    """
    if given is None:
        return {}
    if len(given) > MAX_ATTRIBUTES:
        raise InvalidParameter(
            f"{where} has {len(given)} entries; the limit is {MAX_ATTRIBUTES}.", param=where
        )
    for name, value in given.items():
        if not 1 <= len(name) <= 64 or not isinstance(value, str | int | float):
            raise InvalidParameter(
                f"{where}: a name has 1 to 64 characters, a value is a text, a number or a "
                "boolean.",
                param=where,
            )
        if "\0" in name or (isinstance(value, str) and "\0" in value):
            raise InvalidParameter(f"{where} contains a null character.", param=where)
        if isinstance(value, str) and len(value) > 512:
            raise InvalidParameter(
                f"{where}.{name} has {len(value)} characters; the limit is 512.", param=where
            )
    return given
