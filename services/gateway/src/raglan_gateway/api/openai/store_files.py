"""`/v1/vector_stores/{id}/files` and `/file_batches`: files of a vector store."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Path
from raglan.deadline import Deadline
from raglan.errors import NotFound
from raglan.identifiers import shortened
from raglan.v1 import ingester_pb2

from raglan_gateway import caller
from raglan_gateway.api import schemas
from raglan_gateway.api.collections import TIMEOUT_S
from raglan_gateway.api.openai import documented
from raglan_gateway.api.openai.lenient import Lenient, ListOf
from raglan_gateway.api.openai.pages import Limit, Order, listed, page
from raglan_gateway.api.openai.records import Records
from raglan_gateway.api.openai.vector_files import (
    MAX_FILES,
    Attributes,
    VectorFiles,
    check_attributes,
    shown,
)
from raglan_gateway.api.openai.vector_stores import FileChunking, StoreId
from raglan_gateway.error_envelopes import InvalidParameter
from raglan_gateway.mesh import Mesh

_RUNNING: Final = (ingester_pb2.JOB_STATUS_QUEUED, ingester_pb2.JOB_STATUS_RUNNING)
BatchId = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
State = Literal["in_progress", "completed", "failed", "cancelled"]


class NewFile(Lenient):
    """A file to attach."""

    file_id: str
    attributes: dict[str, Any] | None = None
    chunking_strategy: FileChunking | None = None


class ChangedFile(Lenient):
    """New attributes of a file, in place of all earlier ones."""

    attributes: dict[str, Any] | None = None


class NewBatch(Lenient):
    """Files to attach together: ids with attributes for all, or each with its own."""

    file_ids: ListOf[str] | None = None
    files: ListOf[NewFile] | None = None
    attributes: dict[str, Any] | None = None
    chunking_strategy: FileChunking | None = None


def router(files: VectorFiles) -> APIRouter:
    """The routes of a vector store's files."""
    routes = documented.router("/v1/vector_stores/{store_id}/files")

    @routes.post("", **documented.returns(documented.VectorStoreFile))
    async def attach_file(store_id: StoreId, body: NewFile) -> dict[str, Any]:
        """Attach a file."""
        _check_chunking(body.chunking_strategy)
        await files.attach(store_id, [(body.file_id, check_attributes(body.attributes))])
        return shown(await files.get(store_id, body.file_id), store_id)

    @routes.get("", **documented.returns(documented.VectorStoreFiles))
    async def list_store_files(
        store_id: StoreId,
        limit: Limit = 20,
        order: Order = "desc",
        after: str = "",
        filter: State | None = None,  # noqa: A002 - OpenAI's name
    ) -> dict[str, Any]:
        """List files by id, whatever `order` says: a page of any collection costs the same."""
        await files.require(store_id)
        found = await files.list(store_id, limit=limit, after=after)
        items = [shown(each, store_id) for each in found.documents]
        kept = [each for each in items if filter in (None, each["status"])]
        reply = listed(kept, has_more=bool(found.next_after))
        # The cursor of the next page, also where the filter left out what this one ended with.
        return reply | {"last_id": items[-1]["id"] if items else None}

    @routes.get("/{file_id}/content", **documented.returns(documented.FileTexts))
    async def get_store_file_content(
        store_id: StoreId, file_id: schemas.DocumentId
    ) -> dict[str, Any]:
        """The text of a file, as it was parsed."""
        text = await files.text(store_id, file_id)
        return {
            "object": "vector_store.file_content.page",
            "data": [{"type": "text", "text": text}],
            "has_more": False,
            "next_page": None,
        }

    @routes.get("/{file_id}", **documented.returns(documented.VectorStoreFile))
    async def get_store_file(store_id: StoreId, file_id: schemas.DocumentId) -> dict[str, Any]:
        """One file of a vector store."""
        return shown(await files.get(store_id, file_id), store_id)

    @routes.post("/{file_id}", **documented.returns(documented.VectorStoreFile))
    async def change_store_file(
        store_id: StoreId, file_id: schemas.DocumentId, body: ChangedFile
    ) -> dict[str, Any]:
        """Give a file other attributes; nothing is embedded again."""
        given = check_attributes(body.attributes)
        return shown(await files.change(store_id, file_id, given), store_id)

    @routes.delete("/{file_id}", **documented.returns(documented.DeletedObject))
    async def detach_file(store_id: StoreId, file_id: schemas.DocumentId) -> dict[str, Any]:
        """Take a file out of a vector store; the file itself stays."""
        if not await files.detach(store_id, file_id):
            raise NotFound(f"{store_id!r} has no file {shortened(file_id)}.")
        return {"id": file_id, "object": "vector_store.file.deleted", "deleted": True}

    return routes


def batches_router(mesh: Mesh, files: VectorFiles, records: Records) -> APIRouter:
    """The routes of batches: a batch is a job, its id the job's."""
    routes = documented.router("/v1/vector_stores/{store_id}/file_batches")

    async def job_of(method: str, store_id: str, batch_id: str) -> ingester_pb2.Job:
        job: ingester_pb2.Job = await mesh.ingester.call(
            method,
            ingester_pb2.GetJobRequest(id=batch_id),
            deadline=Deadline.after(TIMEOUT_S),
            retry=method == "GetJob",
        )
        if job.collection != store_id:
            raise NotFound(f"{store_id!r} has no batch {shortened(batch_id)}.")
        return job

    @routes.post("", **documented.returns(documented.FileBatch))
    async def create_batch(store_id: StoreId, body: NewBatch) -> dict[str, Any]:
        """Attach files as one job."""
        asked = _batch(body)
        job_id = await files.attach(store_id, asked)
        record = {"file_ids": [file_id for file_id, _ in asked]}
        await asyncio.to_thread(records.put, caller.current().tenant, job_id, record)
        return _shown_batch(await job_of("GetJob", store_id, job_id), len(dict(asked)))

    @routes.get("/{batch_id}", **documented.returns(documented.FileBatch))
    async def get_batch(store_id: StoreId, batch_id: BatchId) -> dict[str, Any]:
        """One batch."""
        return _shown_batch(await job_of("GetJob", store_id, batch_id))

    @routes.post("/{batch_id}/cancel", **documented.returns(documented.FileBatch))
    async def cancel_batch(store_id: StoreId, batch_id: BatchId) -> dict[str, Any]:
        """Stop a batch; what it indexed so far stays."""
        await job_of("GetJob", store_id, batch_id)
        return _shown_batch(await job_of("CancelJob", store_id, batch_id))

    @routes.get("/{batch_id}/files", **documented.returns(documented.VectorStoreFiles))
    async def list_batch_files(
        store_id: StoreId,
        batch_id: BatchId,
        limit: Limit = 20,
        order: Order = "desc",
        after: str | None = None,
        before: str | None = None,
        filter: State | None = None,  # noqa: A002 - OpenAI's name
    ) -> dict[str, Any]:
        """List the files of a batch."""
        await job_of("GetJob", store_id, batch_id)
        record = await asyncio.to_thread(records.get, caller.current().tenant, batch_id)
        file_ids = record.get("file_ids", [])
        ids = [{"id": each} for each in file_ids[:: -1 if order == "asc" else 1]]
        cut = page(ids, limit=limit, after=after, before=before)
        items = [await _if_there(files, store_id, each["id"]) for each in cut["data"]]
        cut["data"] = [each for each in items if each and filter in (None, each["status"])]
        return cut

    return routes


async def _if_there(files: VectorFiles, store_id: str, file_id: str) -> dict[str, Any] | None:
    try:
        return shown(await files.get(store_id, file_id), store_id)
    except NotFound:  # detached meanwhile
        return None


def _batch(body: NewBatch) -> list[tuple[str, Attributes]]:
    if (body.file_ids is None) == (body.files is None):
        raise InvalidParameter("Send either file_ids or files.", param="file_ids")
    _check_chunking(body.chunking_strategy)
    if body.files is None:
        given = check_attributes(body.attributes)
        return [(file_id, given) for file_id in body.file_ids or ()]
    if len(body.files) > MAX_FILES:
        raise InvalidParameter(
            f"files has {len(body.files)} files; the limit is {MAX_FILES}.", param="files"
        )
    for number, file in enumerate(body.files):
        _check_chunking(file.chunking_strategy, f"files[{number}].chunking_strategy")
    return [
        (file.file_id, check_attributes(file.attributes, f"files[{number}].attributes"))
        for number, file in enumerate(body.files)
    ]


def _check_chunking(asked: FileChunking | None, where: str = "chunking_strategy") -> None:
    if asked is not None and asked.type != "auto":
        raise InvalidParameter(
            f"{where} belongs to the vector store; give it when you make one.", param=where
        )


def _shown_batch(job: ingester_pb2.Job, total: int = 0) -> dict[str, Any]:
    total = max(job.documents, total)
    stages: Mapping[str, int] = {stage.stage: stage.done for stage in job.stages}
    failed = len(job.errors)
    runs = job.status in _RUNNING
    completed = min(stages.get("chunk", 0), total) if runs else total - failed
    cancelled = total - failed if job.status == ingester_pb2.JOB_STATUS_CANCELLED else 0
    completed = 0 if cancelled else completed
    states = {
        ingester_pb2.JOB_STATUS_CANCELLED: "cancelled",
        ingester_pb2.JOB_STATUS_FAILED: "failed",
    }
    return {
        "id": job.id,
        "object": "vector_store.files_batch",
        "created_at": job.created_at.seconds,
        "vector_store_id": job.collection,
        "status": "in_progress" if runs else states.get(job.status, "completed"),
        "file_counts": {
            "in_progress": total - failed - completed - cancelled,
            "completed": completed,
            "failed": failed,
            "cancelled": cancelled,
            "total": total,
        },
    }
