"""Metrics of the ingester: jobs, documents, stage times and index lag."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Final

import sqlalchemy as sa
from prometheus_client import CollectorRegistry, Counter, Gauge
from raglan.background import keep_running
from raglan.errors import RaglanError
from raglan.telemetry.metrics import Durations

from raglan_ingester.jobs import JobStore
from raglan_ingester.model import JobState

EVERY_S: Final = 10.0
"""Between two looks at the tables."""

_LOOK_S: Final = 5.0
_WEIGHT: Final = 0.3
"""Of the newest look in the speed."""

_SPEED: Final = 1.0
"""Documents a second, until measured."""

REPAIRS: Final = (
    *("job_queued", "job_requeued", "job_moved"),
    *("document_failed", "document_reindexed", "blob_removed"),
)
"""Kinds of repairs that the reconciler counts."""


class IngesterMetrics:
    """One registry's worth. What is read from the tables is of all ingesters on them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._stages = Durations(
            "raglan_ingester_stage_duration_seconds",
            "Parse: of a document. Embed and index: of a batch of documents.",
            ("stage", "status"),
            registry,
        )
        self._job = Durations(
            "raglan_ingester_job_duration_seconds",
            "From a job's submission to its end, by the state it ended in.",
            ("state",),
            registry,
        )
        self._documents = Counter(
            "raglan_ingester_documents",
            "Documents that indexing is done with, those that it gave up included.",
            registry=registry,
        )
        self._chunks = Counter(
            "raglan_ingester_chunks", "Chunks of these documents.", registry=registry
        )
        repairs = Counter(
            "raglan_ingester_repairs",
            "What the reconciler found and repaired: jobs put back or moved from a dead process, "
            "documents indexed anew or marked failed, blobs removed.",
            ["kind"],
            registry=registry,
        )
        # From the start, because a counter that appears at 1 has not risen, to Prometheus.
        self._repairs = {kind: repairs.labels(kind) for kind in REPAIRS}
        self._set_aside = Counter(
            "raglan_ingester_labels_set_aside",
            "Documents whose metadata and access tags the index refused so often that they are "
            "tried only now and then; searches go by those of before.",
            registry=registry,
        )
        jobs = Gauge("raglan_ingester_jobs", "Jobs by state.", ["state"], registry=registry)
        self._jobs = {state: jobs.labels(state.value) for state in JobState}
        self._waiting = Gauge(
            "raglan_ingester_waiting_documents",
            "Documents of unfinished jobs that are not in the index yet.",
            registry=registry,
        )
        self._oldest = Gauge(
            "raglan_ingester_oldest_job_seconds",
            "Age of the oldest unfinished job: how far the index lags behind its documents.",
            registry=registry,
        )
        self._backlog = Gauge(
            "raglan_backlog_seconds",
            "Waiting documents over measured speed: the one signal to scale by.",
            registry=registry,
        )
        self._settled = 0
        self._speed = _SPEED
        self._looking: asyncio.Task[None] | None = None

    # --- Observer of runs -------------------------------------------------------------------------

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Time one piece of work of a stage."""
        begun, status = time.monotonic(), "failed"
        try:
            yield
            status = "ok"
        except asyncio.CancelledError:
            status = "cancelled"
            raise
        finally:
            self._stages.observe(time.monotonic() - begun, stage, status)

    def indexed(self, documents: int, chunks: int) -> None:
        """Indexing is done with documents of so many chunks in all, whatever became of them."""
        self._settled += documents
        self._documents.inc(documents)
        self._chunks.inc(chunks)

    def job_ended(self, state: JobState, seconds: float) -> None:
        """A job came to its end so long after its submission."""
        self._job.observe(seconds, state.value)

    def repaired(self, kind: str, count: int) -> None:
        """The reconciler has repaired something."""
        self._repairs[kind].inc(count)

    def set_aside(self, documents: int) -> None:
        """The index has refused labels for good."""
        self._set_aside.inc(documents)

    # --- What the tables say ----------------------------------------------------------------------

    def watch(self, jobs: JobStore) -> None:
        """Look at the tables now and then, until `close`."""
        self._looking = asyncio.create_task(
            keep_running("jobs by state", partial(self._look, jobs))
        )

    async def close(self) -> None:
        """Stop looking."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait((self._looking,))

    async def _look(self, jobs: JobStore) -> None:
        settled, at = 0, time.monotonic()
        while True:
            with suppress(RaglanError, TimeoutError, sa.exc.SQLAlchemyError):
                async with asyncio.timeout(_LOOK_S):
                    await self._read(jobs, self._settled - settled, time.monotonic() - at)
            settled, at = self._settled, time.monotonic()
            await asyncio.sleep(EVERY_S)

    async def _read(self, jobs: JobStore, settled: int, seconds: float) -> None:
        seen = await jobs.overview()
        for state, gauge in self._jobs.items():
            gauge.set(seen.by_state.get(state, 0))
        self._waiting.set(seen.waiting_documents)
        self._oldest.set(seen.oldest_s)
        if settled:
            self._speed += _WEIGHT * (settled / seconds - self._speed)
        self._backlog.set(seen.waiting_documents / self._speed)
