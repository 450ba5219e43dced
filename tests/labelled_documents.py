"""Documents with metadata and access tags, and the calls that list and change them."""

from __future__ import annotations

import json
from typing import Any

from raglan.v1 import ingester_pb2, retriever_pb2


def document(id_: str, metadata: Any = None, access: Any = None) -> tuple[Any, bytes]:
    head = ingester_pb2.DocumentHeader(
        document_id=id_, media_type="text/plain", metadata_json=json.dumps(metadata or {})
    )
    if access is not None:
        head.access.tags.extend(access)
        head.access.SetInParent()
    return head, f"The text of {id_} says something.".encode()


def eq(field: str, value: str) -> Any:
    condition = retriever_pb2.Condition(field=field, eq=retriever_pb2.Value(text=value))
    return retriever_pb2.Filter(condition=condition)


async def ingest(ingester: Any, *pairs: Any) -> Any:
    job = await ingester.ended(await ingester.submit(pairs))
    assert job.status == ingester_pb2.JOB_STATUS_SUCCEEDED, job
    return job


async def update(ingester: Any, id_: str, held: Any = None, **fields: Any) -> Any:
    request = ingester_pb2.UpdateDocumentRequest(collection="default", document_id=id_)
    if "metadata" in fields:
        request.metadata_json = json.dumps(fields["metadata"])
    request.replace_metadata = fields.get("replace", False)
    if "access" in fields:
        request.access.tags.extend(fields["access"])
        request.access.SetInParent()
    return await ingester.call(ingester.stub.UpdateDocument, request, held=held)


async def listed(ingester: Any, held: Any = None, **fields: Any) -> Any:
    request = ingester_pb2.ListDocumentsRequest(collection="default", **fields)
    found = await ingester.call(ingester.stub.ListDocuments, request, held=held)
    return [each.id for each in found.documents], found.next_after


async def change(ingester: Any, filter_: Any, held: Any = None, **fields: Any) -> Any:
    request = ingester_pb2.ChangeDocumentsRequest(collection="default", filter=filter_, **fields)
    return await ingester.call(ingester.stub.ChangeDocuments, request, held=held)
