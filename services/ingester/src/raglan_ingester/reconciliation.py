"""Finds what a crash, an outage or a lost index left behind, and repairs it.

Often: unfinished jobs against the queue, so that each is waiting or being run by a living process.
Now and then, and at the start: documents against jobs and index, blobs against rows.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from itertools import islice
from typing import Final, Protocol

import structlog
from raglan.database import now_ms
from raglan.errors import DeadlineExceeded, NotFound, RaglanError, Unavailable

from raglan_ingester.blobs import BlobStore
from raglan_ingester.documents import DocumentStore
from raglan_ingester.engines.dbos_queue import DbosQueue, QueuedAs
from raglan_ingester.ingestion import Ingestion
from raglan_ingester.jobs import JobStore
from raglan_ingester.labels import labels_of, replacement
from raglan_ingester.model import Document, Item, Job
from raglan_ingester.submission import new_job_id
from raglan_ingester.workers import Heartbeats

log: Final = structlog.get_logger()

_PAGE: Final = 256
_MOST_REINDEXED: Final = 10_000
"""Documents in one job of repair."""
_DAY_MS: Final = 24 * 3600 * 1000


class Index(Protocol):
    """The part of the index that reconciliation needs."""

    async def count(self, collection: str, document_ids: Sequence[str]) -> list[int]:
        """Raises RaglanError."""
        ...


class Reconciler:
    """Repairs in a task of its own until it is closed."""

    def __init__(
        self,
        heartbeats: Heartbeats,
        ingestion: Ingestion,
        queue: DbosQueue,
        jobs: JobStore,
        documents: DocumentStore,
        blobs: BlobStore,
        index: Index,
        finish: Callable[[], Awaitable[None]],
        reconsider: Callable[[], Awaitable[None]],
        on_repair: Callable[[str, int], None],
        truncate_log: Callable[[], Awaitable[None]],
        is_paused: Callable[[], Awaitable[bool]],
        *,
        sweep_s: float,
        reconcile_s: float,
        job_retention_days: float,
    ) -> None:
        self._worker = ""
        self._heartbeats = heartbeats
        self._ingestion = ingestion
        self._queue = queue
        self._jobs = jobs
        self._documents = documents
        self._blobs = blobs
        self._index = index
        self._finish = finish
        """Brings to the index what was changed or deleted while it was away."""
        self._reconsider = reconsider
        """Lets that be tried again which the index refused for good."""
        self._on_repair = on_repair
        self._truncate_log = truncate_log
        self._is_paused = is_paused
        self._due = time.monotonic()
        """When documents are to be compared next."""
        self._sweep_s = sweep_s
        self._reconcile_s = reconcile_s
        self._job_retention_days = job_retention_days
        self._suspects: set[tuple[str, int]] = set()
        """Attempts that the queue says run here, and that did not when they were last looked at."""
        self._task: asyncio.Task[None] | None = None

    async def join(self, worker: str) -> None:
        """Say that the process of this name lives: before its first job. Raises Unavailable."""
        self._worker = worker
        await self._heartbeats.beat(worker)

    def start(self) -> None:
        """Begin to repair."""
        self._task = asyncio.create_task(self._run(), name="reconciler")

    async def close(self) -> None:
        """Stop repairing."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    def hurry(self) -> None:
        """Compare documents at the next sweep."""
        self._due = time.monotonic()

    async def _run(self) -> None:
        while True:
            await self._guarded(self.sweep)
            if time.monotonic() >= self._due and await self._guarded(self.reconcile):
                self._due = time.monotonic() + self._reconcile_s
            await asyncio.sleep(self._sweep_s)

    async def _guarded(self, work: Callable[[], Awaitable[None]]) -> bool:
        try:
            await work()
        except RaglanError as error:
            log.warning("reconciling waits", reason=error.message)
            return False
        except Exception:
            log.exception("reconciling failed")
        return True

    # Jobs against the queue

    async def sweep(self) -> None:
        """See to it that every unfinished job waits in the queue or runs in a living process."""
        await self._heartbeats.beat(self._worker)
        if await self._is_paused():
            return
        dead = self._heartbeats.dead(self._heartbeats.known()) - {self._worker}
        suspects: set[tuple[str, int]] = set()
        for job in await self._jobs.unfinished():
            if not self._ingestion.is_running(job.id):
                await self._check(job, suspects)
        self._suspects = suspects
        if dead:
            await self._heartbeats.forget(dead)
        await self._truncate_log()
        living = self._heartbeats.known() - dead
        await asyncio.to_thread(self._blobs.forget_others, living)
        with suppress(DeadlineExceeded, Unavailable):  # the index is away
            await self._finish()

    async def _check(self, job: Job, suspects: set[tuple[str, int]]) -> None:
        found = await self._queue.find(job.id, job.attempt)
        if found is None:
            self._repaired("job_queued", job)
            await self._ingestion.enqueue(job)
        elif found.state is QueuedAs.OVER:
            await self._run_anew(job, "job_requeued")
        elif found.state is QueuedAs.RUNNING and found.worker == self._worker:
            # Between the queue's decision and the start of the run there is a moment.
            if (job.id, job.attempt) in self._suspects:
                await self._run_anew(job, "job_requeued")
            else:
                suspects.add((job.id, job.attempt))
        elif found.state is QueuedAs.RUNNING and self._heartbeats.dead([found.worker]):
            await self._run_anew(job, "job_moved")

    async def _run_anew(self, job: Job, kind: str) -> None:
        await self._queue.abandon(job.id, job.attempt)
        if (again := await self._jobs.next_attempt(job)) is not None:
            self._repaired(kind, again)
            await self._ingestion.enqueue(again)

    # Documents against jobs and index, blobs against rows

    async def reconcile(self) -> None:
        """Repair documents and blobs, and forget old jobs; not while a backup is restored."""
        if await self._is_paused():
            return
        if stranded := await self._jobs.fail_stranded():
            self._on_repair("document_failed", stranded)
            log.warning("documents without a job were marked failed", documents=stranded)
        for collection in await self._documents.collections():
            try:
                await self._reconcile_collection(collection)
            except NotFound:
                continue
        await self._reconcile_blobs()
        await self._reconsider()
        await self._jobs.expire(now_ms() - int(self._job_retention_days * _DAY_MS))

    async def _reconcile_collection(self, collection: str) -> None:
        """Index documents anew of which the index holds another number of chunks."""
        wrong: list[Document] = []
        after = ""
        while page := await self._documents.settled(collection, after, _PAGE):
            after = page[-1].id
            counts = await self._index.count(collection, [row.id for row in page])
            wrong += [row for row, count in zip(page, counts, strict=True) if row.chunks != count]
            if len(wrong) >= _MOST_REINDEXED:
                break
        if wrong:
            await self._index_anew(collection, wrong)

    async def _index_anew(self, collection: str, rows: Sequence[Document]) -> None:
        job = Job(
            id=new_job_id(),
            collection=collection,
            documents=len(rows),
            created_ms=now_ms(),
            stages={},
        )
        items = [
            Item(
                job_id=job.id,
                ordinal=ordinal,
                document_id=row.id,
                title=row.title,
                metadata_json=row.metadata_json,
                filename=row.filename,
                media_type=row.media_type,
                sha256=row.sha256,
                size_bytes=row.size_bytes,
                edits=[replacement(labels_of(row), keeps_tags=True)],
            )
            for ordinal, row in enumerate(rows)
        ]
        await self._jobs.add(job, items, is_repair=True)
        self._on_repair("document_reindexed", len(rows))
        log.warning("documents differ from the index", job=job.id, documents=len(rows))
        await self._ingestion.enqueue(job)

    async def _reconcile_blobs(self) -> None:
        hashes = self._blobs.stored()
        while part := await asyncio.to_thread(lambda: list(islice(hashes, _PAGE))):
            if removed := await self._blobs.purge(part, self._documents.unnamed_blobs):
                self._on_repair("blob_removed", removed)

    def _repaired(self, kind: str, job: Job) -> None:
        self._on_repair(kind, 1)
        log.warning("a job was put back", job=job.id, kind=kind, attempt=job.attempt)
