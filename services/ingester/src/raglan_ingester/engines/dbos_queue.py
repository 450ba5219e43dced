"""Durable jobs on DBOS: a job that a crash interrupts is run again when its worker is back.

DBOS keeps one workflow an attempt in the same database and decides what runs, where, and what to
resume. It runs on threads of its own; the work itself runs on the service's event loop, because
gRPC channels live there. What a job has got done is in its own tables, so that running it again
goes on where it stopped.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final

from dbos import DBOS, SetEnqueueOptions, SetWorkflowID

_QUEUE: Final = "ingest"
_WORKFLOW: Final = "ingest"
_POLL_S: Final = 0.2
_AT_ONCE: Final = 64
"""Jobs of all collections that run at once in this process: a thread each."""
_VERSION: Final = "1"
"""DBOS resumes only workflows of the same version; ours stays until the workflow's steps change."""
_ENQUEUE_S: Final = 5.0


class QueuedAs(Enum):
    """State of an attempt in the queue."""

    WAITING = auto()
    RUNNING = auto()
    OVER = auto()


_STATES: Final = {
    "PENDING": QueuedAs.RUNNING,
    "ENQUEUED": QueuedAs.WAITING,
    "DELAYED": QueuedAs.WAITING,
}


@dataclass(frozen=True, slots=True)
class Queued:
    """An attempt as the queue has it."""

    state: QueuedAs
    worker: str
    """The process that runs it, or ran it last."""


class _ShuttingDown(BaseException):
    """Leaves a workflow unfinished on purpose: DBOS records every Exception as its outcome."""


class DbosQueue:
    """Runs `run(job_id)` for each job enqueued, through crashes.

    The queue is partitioned by collection: jobs of one collection never keep those of another
    waiting. Jobs that run share parsers and embedder in turns, so that running many is cheap.
    """

    name = "dbos"

    def __init__(self, database_url: str, *, per_collection: int) -> None:
        self._database_url = database_url
        self._per_collection = per_collection
        self._running: set[asyncio.Task[Any]] = set()
        self._closing = False
        self._workflow: Callable[..., None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="queue")

    async def start(self, run: Callable[[str, int], Awaitable[None]], worker: str) -> None:
        """Launch DBOS; what an earlier process of this name left unfinished begins to run."""
        loop = asyncio.get_running_loop()
        await asyncio.to_thread(self._launch, loop, run, worker)

    async def enqueue(self, job_id: str, attempt: int, collection: str) -> None:
        """Run the job once for this attempt, however often it is enqueued.

        DBOS waits until its database is back; this returns before, and the job is found by the
        next sweep at the latest.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(_ENQUEUE_S):
                await self._call(self._enqueue, job_id, attempt, collection)

    async def close(self) -> None:
        """Interrupt what runs, to be resumed by the next process, and stop DBOS."""
        self._closing = True
        self._thread.shutdown(wait=False, cancel_futures=True)
        if self._workflow is None:
            return
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await asyncio.to_thread(DBOS.destroy, destroy_registry=True)

    async def _tracked(self, work: Awaitable[None]) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        try:
            await work
        finally:
            self._running.discard(task)

    async def find(self, job_id: str, attempt: int) -> Queued | None:
        """Return the state of this attempt; None when it was never enqueued."""
        status = await self._call(DBOS.get_workflow_status, _id(job_id, attempt))
        if status is None:
            return None
        state = _STATES.get(status.status, QueuedAs.OVER)
        return Queued(state, status.executor_id or "")

    async def abandon(self, job_id: str, attempt: int) -> None:
        """Never run this attempt again, wherever it was running."""
        await self._call(DBOS.cancel_workflow, _id(job_id, attempt))

    async def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        # One thread of its own: a database that is away blocks nothing else.
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    def _launch(
        self,
        loop: asyncio.AbstractEventLoop,
        run: Callable[[str, int], Awaitable[None]],
        worker: str,
    ) -> None:
        # A handler of its own keeps DBOS from printing; its warnings go where all logs go.
        logging.getLogger("dbos").addHandler(logging.NullHandler())

        def ingest(job_id: str, attempt: int = 0) -> None:
            DBOS.run_step({"name": "ingest_documents"}, self._on_loop, loop, run, job_id, attempt)

        self._workflow = DBOS.workflow(name=_WORKFLOW)(ingest)
        DBOS(
            config={
                "name": "raglan-ingester",
                "system_database_url": self._database_url,
                "application_version": _VERSION,
                "executor_id": worker,
                "log_level": "WARNING",
                "enable_otlp": False,
                "sys_db_pool_size": 5,
            }
        )
        DBOS.launch()
        DBOS.register_queue(
            _QUEUE,
            worker_concurrency=max(_AT_ONCE, self._per_collection),
            partition_worker_concurrency=self._per_collection,
            polling_interval_sec=_POLL_S,
            on_conflict="always_update",
        )

    def _enqueue(self, job_id: str, attempt: int, collection: str) -> None:
        assert self._workflow is not None
        with (
            SetWorkflowID(_id(job_id, attempt)),
            SetEnqueueOptions(queue_partition_key=collection),
        ):
            DBOS.enqueue_workflow(_QUEUE, self._workflow, job_id, attempt)

    def _on_loop(
        self,
        loop: asyncio.AbstractEventLoop,
        run: Callable[[str, int], Awaitable[None]],
        job_id: str,
        attempt: int,
    ) -> None:
        if self._closing:
            raise _ShuttingDown
        future = asyncio.run_coroutine_threadsafe(self._tracked(run(job_id, attempt)), loop)
        try:
            future.result()
        except concurrent.futures.CancelledError:
            raise _ShuttingDown from None


def _id(job_id: str, attempt: int) -> str:
    return f"{job_id}.{attempt}"
