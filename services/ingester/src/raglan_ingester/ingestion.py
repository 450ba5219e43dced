"""Jobs from submission to their end: execution, cancellation and resumption after a crash."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, Protocol

import structlog
from raglan import tenancy
from raglan.database import now_ms
from raglan.deadline import Deadline
from raglan.errors import RaglanError
from raglan.telemetry import tracing

from raglan_ingester import job_traces
from raglan_ingester.clients.retriever import CollectionSettings
from raglan_ingester.job_traces import JobTraces
from raglan_ingester.jobs import JobStore
from raglan_ingester.model import ItemState, Job, JobKind, JobState
from raglan_ingester.outage_retry import OutageRetry
from raglan_ingester.pipeline import JobDependencies, JobRun
from raglan_ingester.progress import Progress

log: Final = structlog.get_logger()

_REPORT_S: Final = 0.5
_STOPPED_WITHIN_S: Final = 10.0


class JobQueue(Protocol):
    """Runs a job for every attempt enqueued, again if the process dies before it returns."""

    @property
    def name(self) -> str:
        """Name of the worker."""
        ...

    async def start(self, run: Callable[[str, int], Awaitable[None]], worker: str) -> None:
        """Begin to execute jobs by `run(job_id, attempt)`."""
        ...

    async def enqueue(self, job_id: str, attempt: int, collection: str) -> None:
        """Queue one attempt of a job, fairly among collections."""
        ...

    async def close(self) -> None:
        """Interrupt running jobs; another process may resume them."""
        ...


class Collections(Protocol):
    """Source of collection settings."""

    async def collection(self, name: str, deadline: Deadline | None = None) -> CollectionSettings:
        """Raises NotFound."""
        ...


class Ingestion:
    """Runs jobs and stops them.

    Args:
        dependencies: what runs work with; its stores wait for a database that is away.
        asked: jobs as callers see them; raises when the database is away.
        change: runs a job that changes documents by a filter.
    """

    def __init__(
        self,
        dependencies: JobDependencies,
        asked: JobStore,
        queue: JobQueue,
        collections: Collections,
        retry: OutageRetry,
        traces: JobTraces,
        change: Callable[[Job, asyncio.Event], Awaitable[JobState]],
        *,
        max_chars: int,
        overlap_chars: int,
    ) -> None:
        self._asked = asked
        self._enqueuing: set[asyncio.Task[None]] = set()
        self._dependencies = dependencies
        self._queue = queue
        self._collections = collections
        self._retry = retry
        self._traces = traces
        self._change = change
        self._max_chars = max_chars
        self._overlap_chars = overlap_chars
        self._stop: dict[str, asyncio.Event] = {}
        self._ended: dict[str, asyncio.Event] = {}

    @property
    def _jobs(self) -> JobStore:
        return self._dependencies.jobs

    async def start(self, worker: str) -> None:
        """Begin to run jobs, those first that an earlier process of this name left unfinished."""
        await self._queue.start(self.run, worker)

    def is_running(self, job_id: str) -> bool:
        """Return whether this process works on the job now."""
        return job_id in self._stop

    async def submitted(self, job: Job) -> None:
        """Run a job that the current request has recorded, even when its client leaves now."""

        async def enqueue() -> None:
            await self._traces.submitted(job.id)
            await self.enqueue(job)

        task = asyncio.create_task(enqueue())
        self._enqueuing.add(task)
        task.add_done_callback(self._enqueuing.discard)
        await asyncio.shield(task)

    async def enqueue(self, job: Job) -> None:
        """Queue the current attempt of `job`."""
        await self._queue.enqueue(job.id, job.attempt, job.collection)

    async def cancel(self, job_id: str) -> None:
        """Ask a job to stop; one that has ended stays as it is. Raises NotFound."""
        await self._asked.cancel(job_id)
        if stop := self._stop.get(job_id):
            stop.set()

    async def retry(self, job_id: str) -> None:
        """Run the failed and cancelled documents of a job again. Raises NotFound, Conflict."""
        if job := await self._asked.retry(job_id):
            await self.enqueue(job)

    async def stop_collection(self, collection: str) -> None:
        """Cancel every job of a collection and wait until those of this process have stopped."""
        for job in await self._asked.unfinished(collection):
            await self.cancel(job.id)
            if ended := self._ended.get(job.id):
                with suppress(TimeoutError):
                    async with asyncio.timeout(_STOPPED_WITHIN_S):
                        await ended.wait()

    async def run(self, job_id: str, attempt: int) -> None:
        """Work on a job until it ends. Called by the queue, perhaps more than once."""
        job = await self._jobs.begin(job_id, attempt)
        if job is None or job_id in self._stop:
            return
        stop = self._stop[job_id] = asyncio.Event()
        ended = self._ended[job_id] = asyncio.Event()
        if job.cancel_requested:
            stop.set()
        try:
            with tenancy.serving(tenancy.split(job.collection)[0]):
                async with self._traces.run(job):
                    work = self._run if job.kind == JobKind.INGEST else self._change
                    job_traces.ended(await work(job, stop))
        except Exception:
            log.exception("a job broke off", job=job_id)
            await self._jobs.break_off(job, "The ingester met an error of its own; retry the job.")
        finally:
            del self._stop[job_id], self._ended[job_id]
            ended.set()

    async def _run(self, job: Job, stop: asyncio.Event) -> JobState:
        try:
            collection = await self._retry.call(
                lambda: self._collections.collection(job.collection)
            )
            tokenizer = await self._dependencies.tokenizers.current()
        except RaglanError as error:
            tracing.fail(tracing.current(), error)
            return await self._jobs.break_off(job, error.message)
        settings = collection.with_defaults(
            max_chars=self._max_chars, overlap_chars=self._overlap_chars
        )
        run = JobRun(self._dependencies, job, settings, await self._progress(job), tokenizer)
        await self._until_done(run, job, stop)
        if await self._save(run, job):
            stop.set()
        context = run.context.warnings() if run.context else []
        if warnings := [*run.unread.warnings(), *context]:
            await self._jobs.warn(job, warnings)
        if not stop.is_set():
            await self._verify(job)
        state = await self._jobs.finish(job, cancelled=stop.is_set())
        self._dependencies.observer.job_ended(state, (now_ms() - job.created_ms) / 1e3)
        log.info("job ended", job=job.id, state=str(state), documents=job.documents)
        return state

    async def _until_done(self, run: JobRun, job: Job, stop: asyncio.Event) -> None:
        """Run until done or cancelled, and report the progress."""
        work = asyncio.create_task(run.work())
        report = asyncio.create_task(self._report(run, job, stop))
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait((work, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                work.cancel()
                with suppress(asyncio.CancelledError):
                    await work
            else:
                await work
            await run.settle()
        finally:
            for task in (work, report, stopping):
                task.cancel()
            await asyncio.gather(work, report, stopping, return_exceptions=True)
            run.abandon()

    async def _report(self, run: JobRun, job: Job, stop: asyncio.Event) -> None:
        """Store the progress, and learn of a cancellation by another process."""
        while True:
            if await self._save(run, job):
                stop.set()
            await asyncio.sleep(_REPORT_S)

    async def _save(self, run: JobRun, job: Job) -> bool:
        """Store the progress and the cost; return whether to stop."""
        spent = run.context.cost.as_dict() if run.context else None
        return await self._jobs.save_progress(job, stages=run.progress.as_dict(), context=spent)

    async def _progress(self, job: Job) -> Progress:
        tally = await self._jobs.tally(job.id)
        settled = job.documents - tally.of(ItemState.QUEUED)
        return Progress.resumed(documents=job.documents, ended=settled, chunks=tally.chunks)

    async def _verify(self, job: Job) -> None:
        try:
            await self._dependencies.indexer.verify(job)
        except RaglanError as error:
            message = f"The index could not be checked for missing chunks: {error.message}"
            await self._jobs.fail_done(job, message)
