"""`/v1/collections/{name}/documents`: change metadata and tags, delete and tag several."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from raglan.deadline import Deadline
from raglan.v1 import ingester_pb2

from raglan_gateway.api import document_schemas, filters, replies, schemas
from raglan_gateway.api.collections import TIMEOUT_S
from raglan_gateway.api.documents import metadata_json, require_collection, tags_message
from raglan_gateway.deletions import Deletions
from raglan_gateway.mesh import Mesh
from raglan_gateway.traces import request_outcome


class DocumentChanges:
    """Changes stored documents, and deletes the answers that were kept of them."""

    def __init__(self, mesh: Mesh, deletions: Deletions) -> None:
        self._mesh = mesh
        self._deletions = deletions

    async def update(
        self, name: str, document_id: str, body: document_schemas.DocumentUpdate
    ) -> schemas.DocumentSummary:
        """Change one document."""
        request = ingester_pb2.UpdateDocumentRequest(
            collection=name,
            document_id=document_id,
            metadata_json=None if body.metadata is None else metadata_json(body.metadata),
            replace_metadata=body.mode == "replace",
            access=tags_message(body.access),
        )

        async def call() -> Any:
            return await self._call("UpdateDocument", request)

        if body.access is None:
            done = await self._deletions.relabel(name, call)
        else:  # kept answers may hold text that their readers do not reach any more
            done = await self._deletions.run(name, call, [document_id])
        return replies.document_summary(done)

    async def delete(self, name: str, ids: list[str]) -> document_schemas.DeletedDocuments:
        """Delete documents by id."""
        request = ingester_pb2.BatchDeleteDocumentsRequest(collection=name, document_ids=ids)
        gone = await self._deletions.run(
            name,
            lambda: self._call("BatchDeleteDocuments", request),
            ids,
            untouched=lambda reply: reply.missing_ids,
        )
        return document_schemas.DeletedDocuments(
            deleted_chunks=gone.deleted_chunks, missing_ids=list(gone.missing_ids)
        )

    async def by_filter(
        self,
        name: str,
        body: document_schemas.FilterChange,
        tagging: ingester_pb2.DocumentTagging | None = None,
    ) -> document_schemas.ChangedDocuments:
        """Delete or tag documents by a filter, as a job; or only count them."""
        await require_collection(self._mesh, name)
        request = ingester_pb2.ChangeDocumentsRequest(
            collection=name,
            filter=filters.to_proto(body.filter) if body.filter else None,
            tagging=tagging,
            dry_run=body.dry_run,
            allow_all=body.all,
        )

        async def call() -> Any:
            return await self._call("ChangeDocuments", request)

        keeps_answers = tagging and not (tagging.add_access or tagging.remove_access)
        if body.dry_run or keeps_answers:
            done = await call()
        else:
            done = await self._deletions.by_job(name, call, lambda reply: reply.job)
        if done.HasField("job"):
            request_outcome.note_job()
        return document_schemas.ChangedDocuments(
            matches=done.matches,
            is_exact=done.is_exact,
            document_ids=list(done.document_ids),
            job_id=done.job.id or None,
        )

    async def _call(self, method: str, request: Any) -> Any:
        return await self._mesh.ingester.call(
            method, request, deadline=Deadline.after(TIMEOUT_S), retry=False
        )


def router(mesh: Mesh, deletions: Deletions) -> APIRouter:
    """The routes that change stored documents."""
    routes = APIRouter(prefix="/v1/collections/{name}/documents", tags=["documents"])
    changes = DocumentChanges(mesh, deletions)

    @routes.patch("/{document_id:path}")
    async def update_document(
        name: schemas.CollectionName,
        document_id: schemas.DocumentId,
        body: document_schemas.DocumentUpdate,
    ) -> schemas.DocumentSummary:
        """Change metadata and access tags of a document; nothing is embedded again."""
        return await changes.update(name, document_id, body)

    @routes.post("/delete")
    async def delete_documents(
        name: schemas.CollectionName, body: document_schemas.DocumentDeletion
    ) -> document_schemas.DeletedDocuments | document_schemas.ChangedDocuments:
        """Delete documents by the ids in the body, or by a filter as a job.

        By ids, those that do not exist are named. By a filter, the reply names the job.
        """
        if body.ids is not None:
            return await changes.delete(name, body.ids)
        return await changes.by_filter(name, body)

    @routes.post("/tag")
    async def tag_documents(
        name: schemas.CollectionName, body: document_schemas.DocumentTagging
    ) -> document_schemas.ChangedDocuments:
        """Change metadata and access tags of every document that matches a filter, as a job."""
        tagging = ingester_pb2.DocumentTagging(
            metadata_json="" if body.metadata is None else metadata_json(body.metadata),
            add_access=body.add_access,
            remove_access=body.remove_access,
        )
        return await changes.by_filter(name, body, tagging)

    return routes
