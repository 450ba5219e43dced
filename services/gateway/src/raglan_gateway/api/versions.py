"""`/v1/collections/{name}/versions`: which versions of a document are kept.

Beside the documents, because the id of a document may end in anything, `/versions` too.
"""

from __future__ import annotations

from fastapi import APIRouter
from raglan.deadline import Deadline
from raglan.v1 import ingester_pb2

from raglan_gateway.api import replies, schemas
from raglan_gateway.api.collections import TIMEOUT_S
from raglan_gateway.api.document_schemas import DocumentVersions
from raglan_gateway.mesh import Mesh


def router(mesh: Mesh) -> APIRouter:
    """The route of versions."""
    routes = APIRouter(prefix="/v1/collections/{name}/versions", tags=["documents"])

    @routes.get("/{document_id:path}")
    async def list_versions(
        name: schemas.CollectionName, document_id: schemas.DocumentId
    ) -> DocumentVersions:
        """Versions of a document that are kept, the newest first, without their texts."""
        found: ingester_pb2.ListVersionsResponse = await mesh.ingester.call(
            "ListVersions",
            ingester_pb2.GetDocumentRequest(collection=name, document_id=document_id),
            deadline=Deadline.after(TIMEOUT_S),
        )
        return DocumentVersions(versions=[replies.document_summary(v) for v in found.versions])

    return routes
