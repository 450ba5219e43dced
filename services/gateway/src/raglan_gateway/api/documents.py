"""`/v1/collections/{name}/documents`: upload, list, read, delete."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from pydantic import TypeAdapter, ValidationError
from raglan import tenancy
from raglan.deadline import Deadline
from raglan.errors import InvalidInput, NotFound, RaglanError
from raglan.identifiers import shortened
from raglan.v1 import ingester_pb2, retriever_pb2
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException

from raglan_gateway.api import filters, replies, schemas
from raglan_gateway.api.collections import TIMEOUT_S, ensure_default
from raglan_gateway.api.document_stream import documents_of
from raglan_gateway.api.text import PlainText
from raglan_gateway.deletions import Deletions
from raglan_gateway.mesh import Mesh
from raglan_gateway.settings import GatewaySettings
from raglan_gateway.traces import request_outcome

PIECE_BYTES: Final = 1024 * 1024
"""Of a document, in one message."""
_PIECE_CHARS: Final = PIECE_BYTES // 4
_UPLOAD_TIMEOUT_S: Final = 3600.0
"""A body is passed on while it arrives; RAGLAN_GATEWAY_BODY_S bounds how long it may pause."""
_METADATA: Final = TypeAdapter(dict[str, Any])
_ACCESS: Final = TypeAdapter(schemas.AccessTags)
_FILTER: Final[TypeAdapter[filters.Filter]] = TypeAdapter(filters.BoundedFilter)
_BODY: Final = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/NewDocuments"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["files"],
                    "properties": {
                        "files": {
                            "type": "array",
                            "minItems": 1,
                            "items": {"type": "string", "format": "binary"},
                        },
                        "metadata": {
                            "type": "string",
                            "description": "A JSON object, kept with every file of the request.",
                        },
                        "access": {
                            "type": "string",
                            "description": "Access tags of every file, as a JSON array.",
                        },
                    },
                }
            },
        },
    }
}


def router(mesh: Mesh, deletions: Deletions, settings: GatewaySettings) -> APIRouter:
    """The routes of documents."""
    routes = APIRouter(prefix="/v1/collections/{name}/documents", tags=["documents"])

    def delete(method: str, request: Any) -> Awaitable[Any]:
        return mesh.ingester.call(method, request, deadline=Deadline.after(TIMEOUT_S), retry=False)

    @routes.post("", status_code=202, openapi_extra=_BODY)
    async def upload(name: schemas.CollectionName, request: Request) -> schemas.Accepted:
        """Take documents in; the job that is returned parses, embeds and indexes them."""
        if name == settings.default_collection and tenancy.current():
            await ensure_default(mesh, name)
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type == "multipart/form-data":
            async with request.form(max_files=settings.max_upload_files, max_fields=10) as form:
                return await submit(mesh, name, _files_as_parts(*_from_form(form)))
        if media_type == "application/json":
            documents = documents_of(request.stream(), max_documents=settings.max_upload_documents)
            return await submit(mesh, name, _as_parts(documents))
        raise HTTPException(
            415,
            f"The content type is {shortened(media_type)}; "
            "send multipart/form-data with `files`, or application/json with `documents`",
        )

    @routes.get("")
    async def list_documents(
        name: schemas.CollectionName,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        after: Annotated[PlainText, Query(max_length=512)] = "",
        filter: Annotated[PlainText, Query(max_length=16_384)] = "",  # noqa: A002 - its REST name
    ) -> schemas.Documents:
        """List documents by id, a page at a time; a page may hold fewer than `limit`.

        `filter` is a filter as JSON, as searches take it. The last page has no `next_after`.
        """
        await require_collection(mesh, name)
        request = ingester_pb2.ListDocumentsRequest(
            collection=name, limit=limit, after=after, filter=_filter_of(filter)
        )
        found: ingester_pb2.ListDocumentsResponse = await mesh.ingester.call(
            "ListDocuments", request, deadline=Deadline.after(TIMEOUT_S)
        )
        return schemas.Documents(
            documents=[replies.document_summary(document) for document in found.documents],
            next_after=found.next_after or None,
        )

    @routes.get("/{document_id:path}")
    async def get_document(
        name: schemas.CollectionName,
        document_id: schemas.DocumentId,
        version: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
    ) -> schemas.Document:
        """One document with its stored text and its chunks: its present version, or another one.

        `version` is a number of `/v1/collections/{name}/versions/{document_id}`.
        """
        found = await stored(mesh, name, document_id, version=version)
        return replies.document(found, await _chunks(mesh, name, document_id, version))

    @routes.delete("/{document_id:path}")
    async def delete_document(
        name: schemas.CollectionName, document_id: schemas.DocumentId
    ) -> schemas.Deleted:
        """Delete a document, also while it is being ingested."""
        request = ingester_pb2.GetDocumentRequest(collection=name, document_id=document_id)
        gone = await deletions.run(name, lambda: delete("DeleteDocument", request), [document_id])
        return schemas.Deleted(deleted_chunks=gone.deleted_chunks)

    return routes


def _filter_of(text: str) -> retriever_pb2.Filter | None:
    """Read the filter of a query string.

    Raises:
        InvalidInput: it is none; the message says where.
    """
    if not text:
        return None
    try:
        return filters.to_proto(_FILTER.validate_json(text))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(map(str, ("filter", *first["loc"])))
        raise InvalidInput(f"{where}: {first['msg'].removeprefix('Value error, ')}.") from None


def tags_message(access: list[str] | None) -> ingester_pb2.AccessTags | None:
    """Return access tags as the ingester takes them; None where nothing is said of them."""
    return None if access is None else ingester_pb2.AccessTags(tags=access)


async def require_collection(mesh: Mesh, name: str) -> None:
    """Raise NotFound unless there is a collection of this name."""
    await mesh.retriever.call(
        "GetCollection",
        retriever_pb2.GetCollectionRequest(name=name),
        deadline=Deadline.after(TIMEOUT_S),
    )


async def stored(
    mesh: Mesh, name: str, document_id: str, *, version: int = 0
) -> ingester_pb2.Document:
    """Return a document with its whole text, which takes several calls where it is long."""
    deadline = Deadline.after(TIMEOUT_S)
    request = ingester_pb2.GetDocumentRequest(
        collection=name, document_id=document_id, version=version
    )
    texts: list[str] = []
    sha256 = ""
    while True:
        found: ingester_pb2.Document = await mesh.ingester.call(
            "GetDocument", request, deadline=deadline
        )
        if texts and found.sha256 != sha256:  # replaced meanwhile
            texts, request.text_offset = [], 0
            continue
        sha256 = found.sha256
        texts.append(found.text)
        if not found.next_text_offset:
            found.text = "".join(texts)
            return found
        request.text_offset = found.next_text_offset


async def _chunks(
    mesh: Mesh, name: str, document_id: str, version: int
) -> list[retriever_pb2.Chunk]:
    deadline = Deadline.after(TIMEOUT_S)
    request = retriever_pb2.GetDocumentChunksRequest(
        collection=name, document_id=document_id, version=version
    )
    chunks: list[retriever_pb2.Chunk] = []
    while True:
        try:
            found: retriever_pb2.GetDocumentChunksResponse = await mesh.retriever.call(
                "GetDocument", request, deadline=deadline
            )
        except NotFound:  # not indexed yet, or it failed
            return []
        chunks.extend(found.chunks)
        if not found.next_offset:
            return chunks
        request.offset = found.next_offset


async def submit(
    mesh: Mesh, collection: str, parts: AsyncIterator[ingester_pb2.SubmitRequest]
) -> schemas.Accepted:
    """Submit documents: for each its header, then its bytes in pieces."""
    refused: list[Exception] = []
    # Before the call: a body that is refused at once needs no ingester.
    first = await anext(parts)

    async def messages() -> AsyncIterator[ingester_pb2.SubmitRequest]:
        yield ingester_pb2.SubmitRequest(job=ingester_pb2.JobHeader(collection=collection))
        yield first
        try:
            async for part in parts:
                yield part
        except Exception as error:
            refused.append(error)
            raise

    try:
        job: ingester_pb2.Job = await mesh.ingester.call(
            "Submit", messages(), deadline=Deadline.after(_UPLOAD_TIMEOUT_S), retry=False
        )
    except (asyncio.CancelledError, RaglanError):
        # gRPC cancels a call whose messages end in an error, and does not pass the error on.
        if refused:
            raise refused[0] from None
        raise
    request_outcome.note_job()
    return schemas.Accepted(job_id=job.id)


def metadata_json(metadata: dict[str, Any]) -> str:
    """Return metadata as the ingester takes them.

    Raises:
        InvalidInput: they are nested beyond what can be written; the ingester allows less.
    """
    try:
        return json.dumps(metadata, ensure_ascii=False)
    except RecursionError:
        raise InvalidInput("metadata is nested too deep.") from None


async def _as_parts(
    documents: AsyncIterator[schemas.NewDocument],
) -> AsyncIterator[ingester_pb2.SubmitRequest]:
    async for document in documents:
        yield header(
            document_id=document.id,
            media_type=document.media_type,
            title=document.title,
            metadata_json=metadata_json(document.metadata),
            access=document.access,
        )
        for begin in range(0, len(document.text), _PIECE_CHARS):
            data = document.text[begin : begin + _PIECE_CHARS].encode()
            yield ingester_pb2.SubmitRequest(data=data)


def _from_form(form: FormData) -> tuple[list[UploadFile], str, list[str] | None]:
    """The files of a form, and the metadata and access tags that they share."""
    files = [value for value in form.getlist("files") if isinstance(value, UploadFile)]
    if not files:
        raise InvalidInput("The form holds no file in the field `files`.")
    unknown = sorted(set(form) - {"files", "metadata", "access"})
    if unknown:
        raise InvalidInput(
            f"The form holds a field {shortened(unknown[0])}; send `files`, `metadata`, `access`."
        )
    metadata = form.get("metadata") or "{}"
    try:
        _METADATA.validate_json(metadata if isinstance(metadata, str) else "")
    except ValidationError:
        raise InvalidInput("metadata is not a JSON object.") from None
    access = form.get("access")
    try:
        tags = None if access is None else _ACCESS.validate_json(str(access))
    except ValidationError:
        raise InvalidInput('access is not a JSON array of access tags, such as ["hr"].') from None
    return files, str(metadata), tags


async def _files_as_parts(
    files: list[UploadFile], metadata: str, access: list[str] | None
) -> AsyncIterator[ingester_pb2.SubmitRequest]:
    for file in files:
        yield header(
            filename=(file.filename or "").replace("\0", ""),
            media_type=file.content_type or "",
            metadata_json=metadata,
            access=access,
        )
        while data := await file.read(PIECE_BYTES):
            yield ingester_pb2.SubmitRequest(data=data)


def header(*, access: list[str] | None = None, **fields: str) -> ingester_pb2.SubmitRequest:
    """The message that begins a document."""
    head = ingester_pb2.DocumentHeader(**fields, access=tags_message(access))
    return ingester_pb2.SubmitRequest(document=head)
