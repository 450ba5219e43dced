"""IngesterService on the wire: proto in, domain, proto out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, Final

import grpc
from raglan import tenancy
from raglan.deadline import Deadline
from raglan.errors import InvalidInput, NotFound, Unavailable
from raglan.filtering.wire import clause_from_proto
from raglan.identifiers import check_collection_name
from raglan.rpc import pages
from raglan.rpc.dependency import Dependency
from raglan.rpc.service_info import service_info
from raglan.v1 import backup_pb2, common_pb2, ingester_pb2, ingester_pb2_grpc

from raglan_ingester import preview_wire, wire_labels
from raglan_ingester.backup.exporting import Exporter
from raglan_ingester.backup.importing import Importer
from raglan_ingester.changes import Changes, keeps_access
from raglan_ingester.chunk_preview import ChunkPreviewer
from raglan_ingester.document_wire import document_to_proto, version_to_proto
from raglan_ingester.ingestion import Ingestion
from raglan_ingester.job_views import JobView
from raglan_ingester.jobs import JobStore
from raglan_ingester.labelling import Labelling
from raglan_ingester.library import Library, page_size
from raglan_ingester.model import Job, JobKind, JobState
from raglan_ingester.progress import STAGES
from raglan_ingester.revisions import RevisionStore
from raglan_ingester.sources import wire as sources_wire
from raglan_ingester.sources.scheduler import Scheduler
from raglan_ingester.submission import DocumentStart, Intake, JobStart, Part, PreparedPiece

_WATCH_S: Final = 0.25
_AWAY_S: Final = 60.0
"""A database that is away for less does not end a watch."""
_ERRORS_IN_LISTS: Final = 10
_BACKUPS: Final = "Backups"
_JOB_STATES: Final = {
    JobState.QUEUED: ingester_pb2.JOB_STATUS_QUEUED,
    JobState.RUNNING: ingester_pb2.JOB_STATUS_RUNNING,
    JobState.SUCCEEDED: ingester_pb2.JOB_STATUS_SUCCEEDED,
    JobState.PARTIAL: ingester_pb2.JOB_STATUS_PARTIAL,
    JobState.FAILED: ingester_pb2.JOB_STATUS_FAILED,
    JobState.CANCELLED: ingester_pb2.JOB_STATUS_CANCELLED,
}
Context = grpc.aio.ServicerContext[Any, Any]


class IngesterServicer(ingester_pb2_grpc.IngesterServiceServicer):
    """The wire of the ingester."""

    def __init__(
        self,
        intake: Intake,
        ingestion: Ingestion,
        jobs: JobStore,
        library: Library,
        labelling: Labelling,
        changes: Changes,
        revisions: RevisionStore,
        exporter: Exporter,
        importer: Importer,
        sources: Scheduler,
        previewer: ChunkPreviewer,
        *,
        restored: Callable[[], None],
        engine: str,
        limits: dict[str, int],
        metrics_port: Callable[[], int],
        database: Dependency,
        confinement: Callable[[], list[str]] = list,
    ) -> None:
        self._intake = intake
        self._ingestion = ingestion
        self._jobs = jobs
        self._library = library
        self._labelling = labelling
        self._changes = changes
        self._revisions = revisions
        self._exporter = exporter
        self._importer = importer
        self._sources = sources
        self._previewer = previewer
        self._restored = restored
        self._engine = engine
        self._limits = limits
        self._metrics_port = metrics_port
        self._confinement = confinement
        self._database = database

    async def Submit(
        self, request_iterator: AsyncIterator[ingester_pb2.SubmitRequest], context: Context
    ) -> ingester_pb2.Job:
        job = await self._intake.receive(_parts(request_iterator))
        await self._ingestion.submitted(job)
        return _job_to_proto(await self._jobs.view(job.id))

    async def GetJob(
        self, request: ingester_pb2.GetJobRequest, context: Context
    ) -> ingester_pb2.Job:
        return _job_to_proto(await self._own_job(request.id))

    async def ListJobs(
        self, request: ingester_pb2.ListJobsRequest, context: Context
    ) -> ingester_pb2.ListJobsResponse:
        views = await self._jobs.views(
            _qualified(request.collection) if request.collection else "",
            page_size(request.limit),
            errors=_ERRORS_IN_LISTS,
        )
        return ingester_pb2.ListJobsResponse(jobs=[_job_to_proto(view) for view in views])

    async def WatchJob(
        self, request: ingester_pb2.GetJobRequest, context: Context
    ) -> AsyncIterator[ingester_pb2.Job]:
        # Read from the database, so that it does not matter which process runs the job.
        seen = None
        away_since: float | None = None
        while True:
            try:
                view = await self._own_job(request.id)
                away_since = None
            except Unavailable:
                now = time.monotonic()
                away_since = now if away_since is None else away_since
                if now - away_since > _AWAY_S:
                    raise
                await asyncio.sleep(_WATCH_S)
                continue
            job = _job_to_proto(view)
            if job != seen:
                yield job
                seen = job
            if JobState(view.job.state).ended:
                return
            await asyncio.sleep(_WATCH_S)

    async def CancelJob(
        self, request: ingester_pb2.GetJobRequest, context: Context
    ) -> ingester_pb2.Job:
        await self._own_job(request.id)
        await self._ingestion.cancel(request.id)
        return _job_to_proto(await self._jobs.view(request.id))

    async def RetryJob(
        self, request: ingester_pb2.GetJobRequest, context: Context
    ) -> ingester_pb2.Job:
        await self._own_job(request.id)
        await self._ingestion.retry(request.id)
        return _job_to_proto(await self._jobs.view(request.id))

    async def ListDocuments(
        self, request: ingester_pb2.ListDocumentsRequest, context: Context
    ) -> ingester_pb2.ListDocumentsResponse:
        where = clause_from_proto(request.filter) if request.HasField("filter") else None
        rows, next_after = await self._library.page(
            _qualified(request.collection), where, limit=request.limit, after=request.after
        )
        documents = pages.first_page(document_to_proto(row) for row in rows)
        if len(documents) < len(rows):
            next_after = documents[-1].id
        return ingester_pb2.ListDocumentsResponse(documents=documents, next_after=next_after)

    async def GetDocument(
        self, request: ingester_pb2.GetDocumentRequest, context: Context
    ) -> ingester_pb2.Document:
        collection, id_ = _qualified(request.collection), request.document_id
        start, end = request.text_offset, request.text_offset + pages.PAGE_CHARS
        found = await self._library.get(collection, id_)
        text = found.row.text
        if request.version in (0, found.row.version):
            message = document_to_proto(found.row, text=text[start:end])
            message.warnings.extend(found.warnings)
            message.language = found.language
        else:
            row, version = await self._library.version(collection, id_, request.version)
            text = version.text
            message = version_to_proto(row, version, text=text[start:end])
        message.next_text_offset = end if end < len(text) else 0
        return message

    async def ListVersions(
        self, request: ingester_pb2.GetDocumentRequest, context: Context
    ) -> ingester_pb2.ListVersionsResponse:
        row, earlier = await self._library.versions(
            _qualified(request.collection), request.document_id
        )
        present = [document_to_proto(row)] if row.version else []
        versions = [*present, *(version_to_proto(row, each) for each in earlier)]
        return ingester_pb2.ListVersionsResponse(versions=pages.first_page(versions))

    async def UpdateDocument(
        self, request: ingester_pb2.UpdateDocumentRequest, context: Context
    ) -> ingester_pb2.Document:
        collection = _qualified(request.collection)
        change = wire_labels.update_from_proto(request)
        row = await self._labelling.update(
            collection, request.document_id, change, Deadline.of(context)
        )
        reply = document_to_proto(row)
        reply.revision = await self._revision(collection)
        return reply

    async def ChangeDocuments(
        self, request: ingester_pb2.ChangeDocumentsRequest, context: Context
    ) -> ingester_pb2.ChangeDocumentsResponse:
        collection = _qualified(request.collection)
        tagging = wire_labels.tagging_from_proto(request)
        found = await self._changes.count(collection, request.filter)
        reply = ingester_pb2.ChangeDocumentsResponse(
            matches=found.count, is_exact=found.is_exact, document_ids=found.ids
        )
        if not request.dry_run and (found.count or not found.is_exact):
            job = self._changes.job(
                collection, request.filter, tagging, found, allow_all=request.allow_all
            )
            await self._jobs.add(job, [])
            await self._ingestion.submitted(job)
            reply.job.CopyFrom(_job_to_proto(await self._jobs.view(job.id)))
        return reply

    async def DeleteDocument(
        self, request: ingester_pb2.GetDocumentRequest, context: Context
    ) -> ingester_pb2.DeleteDocumentResponse:
        collection = _qualified(request.collection)
        deleted = await self._library.delete(collection, request.document_id, Deadline.of(context))
        return ingester_pb2.DeleteDocumentResponse(
            deleted_chunks=deleted, revision=await self._revision(collection)
        )

    async def BatchDeleteDocuments(
        self, request: ingester_pb2.BatchDeleteDocumentsRequest, context: Context
    ) -> ingester_pb2.BatchDeleteDocumentsResponse:
        collection = _qualified(request.collection)
        deleted, missing = await self._library.delete_batch(
            collection, request.document_ids, Deadline.of(context)
        )
        return ingester_pb2.BatchDeleteDocumentsResponse(
            deleted_chunks=deleted,
            missing_ids=missing,
            revision=await self._revision(collection),
        )

    async def DeleteDocuments(
        self, request: ingester_pb2.DeleteDocumentsRequest, context: Context
    ) -> ingester_pb2.DeleteDocumentsResponse:
        deleted = await self._library.delete_all(
            _qualified(request.collection), Deadline.of(context)
        )
        return ingester_pb2.DeleteDocumentsResponse(deleted_documents=deleted)

    async def GetRevisions(
        self, request: ingester_pb2.GetRevisionsRequest, context: Context
    ) -> ingester_pb2.GetRevisionsResponse:
        known = await self._revisions.known([_qualified(name) for name in request.collections])
        return ingester_pb2.GetRevisionsResponse(
            revisions={_alone(name): revision for name, revision in known.revisions.items()},
            unfinished=[_alone(name) for name in known.unfinished],
        )

    async def Export(
        self, request: ingester_pb2.ExportRequest, context: Context
    ) -> AsyncIterator[backup_pb2.BackupRecord]:
        tenancy.refuse_tenants(_BACKUPS)
        async with aclosing(self._exporter.unit(request.cursor)) as records:
            async for record in records:
                yield record

    async def BeginImport(
        self, request: ingester_pb2.BeginImportRequest, context: Context
    ) -> ingester_pb2.ImportProgress:
        tenancy.refuse_tenants(_BACKUPS)
        units = await self._importer.begin(
            request.backup_id,
            request.header,
            replace=request.replace,
            deadline=Deadline.of(context),
        )
        return ingester_pb2.ImportProgress(units=units)

    async def Import(
        self, request_iterator: AsyncIterator[ingester_pb2.ImportRequest], context: Context
    ) -> ingester_pb2.ImportProgress:
        tenancy.refuse_tenants(_BACKUPS)
        first = await anext(request_iterator, ingester_pb2.ImportRequest())
        if not first.HasField("unit"):
            raise InvalidInput("The first message must name the unit.")
        records = (request.record async for request in request_iterator)
        units = await self._importer.unit(first.unit.backup_id, first.unit.number, records)
        return ingester_pb2.ImportProgress(units=units)

    async def EndImport(
        self, request: ingester_pb2.EndImportRequest, context: Context
    ) -> ingester_pb2.ImportProgress:
        tenancy.refuse_tenants(_BACKUPS)
        units = await self._importer.end(request.backup_id)
        self._restored()
        return ingester_pb2.ImportProgress(units=units)

    async def ListSources(
        self, request: ingester_pb2.ListSourcesRequest, context: Context
    ) -> ingester_pb2.ListSourcesResponse:
        views = await self._sources.views()
        if request.source:
            views = [view for view in views if view.settings.name == request.source]
        return sources_wire.listed(views, self._sources.file_error)

    async def SyncSource(
        self, request: ingester_pb2.SyncSourceRequest, context: Context
    ) -> ingester_pb2.Source:
        view = await self._sources.request(
            request.source, accept_deletions=request.accept_deletions
        )
        return sources_wire.source(view)

    async def PreviewChunks(
        self,
        request_iterator: AsyncIterator[ingester_pb2.PreviewChunksRequest],
        context: Context,
    ) -> ingester_pb2.PreviewChunksResponse:
        first = await anext(request_iterator, ingester_pb2.PreviewChunksRequest())
        if not first.HasField("header"):
            raise InvalidInput("The first message must be the header.")
        pieces = (request.data async for request in request_iterator)
        start = preview_wire.start_from_proto(first.header, _qualified)
        preview = await self._previewer.preview(start, pieces)
        return preview_wire.preview_to_proto(preview, first.header.limit)

    async def _own_job(self, job_id: str) -> JobView:
        """Return a job of the current tenant. Raises NotFound, for those of others too."""
        view = await self._jobs.view(job_id)
        if not tenancy.is_own(view.job.collection):
            raise NotFound(f"There is no job {job_id!r}.")
        return view

    async def _revision(self, collection: str) -> int:
        return (await self._revisions.known([collection])).revisions.get(collection, 0)

    async def GetInfo(
        self, request: common_pb2.GetInfoRequest, context: Context
    ) -> common_pb2.ServiceInfo:
        facts = common_pb2.ServiceInfo(
            engine=self._engine,
            device="cpu",
            limits=self._limits,
            confinement=self._confinement(),
            dependencies=[await self._database.state()],
        )
        return service_info("ingester", facts, metrics_port=self._metrics_port())


def _qualified(name: str) -> str:
    """Return the name by which the collection that a request names is kept."""
    return tenancy.qualified(name)


def _alone(collection: str) -> str:
    """Return the name of a collection as its owner uses it."""
    return tenancy.split(collection)[1]


async def _parts(requests: AsyncIterator[ingester_pb2.SubmitRequest]) -> AsyncIterator[Part]:
    async for request in requests:
        match request.WhichOneof("part"):
            case "job":
                name = request.job.collection
                yield JobStart(_qualified(check_collection_name(name)) if name else "")
            case "document":
                header = request.document
                yield DocumentStart(
                    header.document_id,
                    header.filename,
                    header.media_type,
                    header.title,
                    header.metadata_json,
                    header.access.tags if header.HasField("access") else None,
                    header.fingerprint,
                )
            case "data":
                yield request.data
            case "prepared":
                yield PreparedPiece(request.prepared)
            case _:
                raise InvalidInput("A message of the job is empty.")


def _job_to_proto(view: JobView) -> ingester_pb2.Job:
    job = view.job
    message = ingester_pb2.Job(
        id=job.id,
        collection=_alone(job.collection),
        status=_JOB_STATES[JobState(job.state)],
        stages=_stages(job),
        errors=[
            ingester_pb2.DocumentError(document_id=document_id, message=message)
            for document_id, message in view.errors
        ],
        documents=job.documents,
        unchanged=view.unchanged,
        warnings=[
            ingester_pb2.DocumentWarning(document_id=document_id, message=message)
            for document_id, message in view.warnings
        ],
        warning_count=view.warning_count,
        replaced=view.replaced,
        kind=job.kind,
        keeps_access=keeps_access(job),
        context=ingester_pb2.ContextCost(**job.context) if job.context else None,
    )
    message.created_at.FromMilliseconds(job.created_ms)
    if job.finished_ms is not None:
        message.finished_at.FromMilliseconds(job.finished_ms)
    return message


def _stages(job: Job) -> list[ingester_pb2.StageProgress]:
    return [
        ingester_pb2.StageProgress(stage=stage, done=done, total=total)
        for stage in (STAGES if job.kind == JobKind.INGEST else job.stages)
        for done, total in [job.stages.get(stage, [0, 0])]
    ]
