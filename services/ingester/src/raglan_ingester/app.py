"""The composition root: the only place that knows which concrete classes make up the service."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

import grpc
import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from raglan.database import Database, PatientDatabase, url_of
from raglan.deadline import Deadline
from raglan.disk import require_writable
from raglan.errors import Unavailable
from raglan.rpc.dependency import Dependency
from raglan.rpc.metrics import CalledPools
from raglan.rpc.pool import EndpointPool
from raglan.rpc.server import Service
from raglan.telemetry.metrics import Endpoint
from raglan.v1 import embedder_pb2_grpc, ingester_pb2_grpc, retriever_pb2_grpc

from raglan_ingester.backup.exporting import Exporter
from raglan_ingester.backup.importing import Importer, Target
from raglan_ingester.backup.rows import RowReader
from raglan_ingester.blobs import BlobStore
from raglan_ingester.byte_budget import ByteBudget
from raglan_ingester.changes import Changes
from raglan_ingester.chunk_preview import ChunkPreviewer
from raglan_ingester.chunking import Sizes
from raglan_ingester.clients.embedder import EmbedderClient
from raglan_ingester.clients.index_transfer import IndexTransfer
from raglan_ingester.clients.retriever import RetrieverClient
from raglan_ingester.collection_locks import CollectionLocks
from raglan_ingester.documents import DocumentStore
from raglan_ingester.engines.dbos_queue import DbosQueue
from raglan_ingester.indexing import Indexer
from raglan_ingester.ingestion import Ingestion
from raglan_ingester.job_traces import JobTraces
from raglan_ingester.jobs import JobStore
from raglan_ingester.labelling import Labelling
from raglan_ingester.labels import LabelStore
from raglan_ingester.library import Library
from raglan_ingester.metrics import IngesterMetrics
from raglan_ingester.outage_retry import OutageRetry
from raglan_ingester.parsing import ParserPool
from raglan_ingester.pipeline import BYTES_UNDER_WAY, JobDependencies
from raglan_ingester.reconciliation import Reconciler
from raglan_ingester.revisions import RevisionStore
from raglan_ingester.schema import SCHEMA
from raglan_ingester.selection import Selection
from raglan_ingester.semantic_cuts import SemanticParser
from raglan_ingester.servicer import IngesterServicer
from raglan_ingester.settings import IngesterSettings
from raglan_ingester.sources.open_reader import Readers
from raglan_ingester.sources.scheduler import Scheduler
from raglan_ingester.sources.source_file import SourceFile
from raglan_ingester.sources.store import SourceStore
from raglan_ingester.sources.sync import Ports
from raglan_ingester.submission import Intake, Limits
from raglan_ingester.tokenizer_files import TokenizerFolder
from raglan_ingester.workers import Heartbeats, WorkerName, claim_name

_CHECK_S = 10.0
_SWEEP_S = 5.0
_PREVIEW_PATIENCE_S = 2.0
"""Somebody waits for a preview."""
_TOKENIZERS = "tokenizers"
"""Folder of the models' tokenizers: all of the data folder that parser processes may read."""


class Ingester:
    """Everything the service owns, in the order it is opened and closed."""

    def __init__(self, settings: IngesterSettings) -> None:
        self._settings = settings
        self._data_dir = settings.data_dir
        url = _url(settings)
        require_writable(settings.data_dir, "RAGLAN_INGESTER_DATA_DIR")
        (settings.data_dir / _TOKENIZERS).mkdir(exist_ok=True)
        self._database = Database(url, SCHEMA)
        self._database_state = Dependency(self._database.engine.dialect.name, self._database.ping)
        self.metrics = Endpoint.of(settings)
        self._counted = IngesterMetrics(self.metrics.registry)
        called = CalledPools(self.metrics.registry)
        self._embedders = EndpointPool(
            "embedder",
            settings.embedder_address,
            embedder_pb2_grpc.EmbedderServiceStub,
            on_attempt=partial(called.attempted, "embedder"),
        )
        self._retrievers = EndpointPool(
            "retriever",
            settings.retriever_address,
            retriever_pb2_grpc.RetrieverServiceStub,
            on_attempt=partial(called.attempted, "retriever"),
        )
        called.watch({"embedder": self._embedders, "retriever": self._retrievers})
        self._parser = ParserPool(
            workers=settings.parse_workers,
            memory_bytes=settings.parse_memory_bytes,
            cpu_s=settings.parse_cpu_s,
            wall_s=settings.parse_wall_s,
            readable=(settings.data_dir / _TOKENIZERS,),
        )
        self._blobs = BlobStore(settings.data_dir / "blobs", min_free_mb=settings.min_free_mb)
        self._is_shared = sa.make_url(url).get_backend_name() != "sqlite"
        self._worker: WorkerName | None = None
        self._has_started = False
        self._queue = DbosQueue(url, per_collection=settings.concurrent_jobs)
        self._assemble(settings)

    def _assemble(self, settings: IngesterSettings) -> None:
        embedder = EmbedderClient(self._embedders)
        revisions = RevisionStore(self._database)
        self._retriever = RetrieverClient(self._retrievers, revisions.record)
        transfer = IndexTransfer(self._retrievers, revisions.record)
        patient = PatientDatabase(self._database)
        jobs, documents = JobStore(patient), DocumentStore(patient)
        asked_jobs, asked_documents = JobStore(self._database), DocumentStore(self._database)
        locks = CollectionLocks()
        retry = OutageRetry(settings.outage_patience_s)
        embedder_retry = OutageRetry(settings.outage_patience_s)
        preview_retry = OutageRetry(_PREVIEW_PATIENCE_S)
        self._calls = asyncio.Semaphore(settings.embed_calls_in_flight)
        self._jobs = asked_jobs
        dependencies = JobDependencies(
            jobs=jobs,
            documents=documents,
            blobs=self._blobs,
            parser=SemanticParser(self._parser, partial(self._vectors, embedder, embedder_retry)),
            embedder=embedder,
            embedder_retry=embedder_retry,
            observer=self._counted,
            indexer=Indexer(jobs, documents, self._retriever, locks, retry, self._blobs),
            parse_workers=settings.parse_workers,
            texts_per_call=settings.embed_texts_per_call,
            calls_in_flight=settings.embed_calls_in_flight,
            embed_calls=self._calls,
            byte_budget=ByteBudget(BYTES_UNDER_WAY),
            tokenizers=TokenizerFolder(settings.data_dir / _TOKENIZERS, embedder, embedder_retry),
            max_metadata_bytes=settings.max_metadata_bytes,
            max_chunks_per_document=settings.max_chunks_per_document,
            max_chunks_per_job=settings.max_chunks_per_job,
        )
        self._ingestion = Ingestion(
            dependencies,
            asked_jobs,
            self._queue,
            self._retriever,
            retry,
            JobTraces(patient),
            lambda job, stop: self._changes.run(job, stop),
            max_chars=settings.chunk_max_chars,
            overlap_chars=settings.chunk_overlap_chars,
        )
        submissions = CollectionLocks()
        library = Library(
            asked_documents,
            self._blobs,
            self._retriever,
            locks,
            submissions,
            self._ingestion,
            revisions,
        )
        labelling = Labelling(
            LabelStore(self._database, settings.max_metadata_bytes), self._retriever, locks
        )
        self._changes = Changes(
            jobs,
            Selection(documents),
            library,
            labelling,
            retry,
            max_documents=settings.max_changed_documents,
        )

        async def finish() -> None:
            await library.finish_deletions()
            await labelling.finish()

        self._importer = Importer(
            Target(
                self._database,
                asked_documents,
                asked_jobs,
                self._blobs,
                library.delete_everything,
                embedder.model,
            ),
            transfer,
        )
        heartbeats = Heartbeats(self._database, lease_s=settings.worker_lease_s)
        self._reconciler = Reconciler(
            heartbeats,
            self._ingestion,
            self._queue,
            asked_jobs,
            asked_documents,
            self._blobs,
            self._retriever,
            finish,
            self._counted.repaired,
            self._database.truncate_log,
            self._importer.under_way,
            sweep_s=min(_SWEEP_S, settings.worker_lease_s / 3),
            reconcile_s=settings.reconcile_every_s,
            job_retention_days=settings.job_retention_days,
        )
        limits = Limits(
            settings.max_document_bytes,
            settings.max_job_bytes,
            settings.max_documents_per_job,
            settings.max_metadata_bytes,
        )
        intake = Intake(self._blobs, asked_jobs, limits, self._identify, submissions)
        self._sources = Scheduler(
            SourceFile(settings.sources_file),
            Ports(
                SourceStore(self._database),
                intake,
                self._ingestion.submitted,
                asked_jobs,
                library,
                settings.max_document_bytes,
            ),
            Readers(settings.max_document_bytes, settings.data_dir / "repositories").open,
            heartbeats.dead,
            self._importer.under_way,
        )
        self._servicer = IngesterServicer(
            intake,
            self._ingestion,
            asked_jobs,
            library,
            labelling,
            self._changes,
            revisions,
            Exporter(RowReader(self._database), asked_documents, self._blobs, transfer),
            self._importer,
            self._sources,
            ChunkPreviewer(
                self._blobs,
                SemanticParser(self._parser, partial(self._vectors, embedder, preview_retry)),
                TokenizerFolder(settings.data_dir / _TOKENIZERS, embedder, preview_retry),
                lambda name: self._retriever.collection(name, Deadline.after(_CHECK_S)),
                max_document_bytes=limits.max_document_bytes,
                max_chunks=settings.max_chunks_per_document,
                defaults=Sizes(settings.chunk_max_chars, settings.chunk_overlap_chars),
            ),
            restored=self._reconciler.hurry,
            engine=self._queue.name,
            metrics_port=lambda: self.metrics.port,
            database=self._database_state,
            confinement=lambda: self._parser.confinement,
            limits={
                "max_document_bytes": limits.max_document_bytes,
                "max_job_bytes": limits.max_job_bytes,
                "max_documents_per_job": limits.max_documents_per_job,
                "max_metadata_bytes": limits.max_metadata_bytes,
                "max_chunks_per_document": settings.max_chunks_per_document,
                "max_chunks_per_job": settings.max_chunks_per_job,
                "parse_memory_bytes": settings.parse_memory_bytes,
                "parse_cpu_s": settings.parse_cpu_s,
            },
        )

    async def _vectors(
        self, embedder: EmbedderClient, retry: OutageRetry, texts: Sequence[str]
    ) -> NDArray[Any]:
        """Embed any number of texts, a call at a time, among those of the jobs."""
        size = self._settings.embed_texts_per_call
        parts = []
        for at in range(0, len(texts), size):
            async with self._calls:
                call = partial(embedder.embed, texts[at : at + size])
                parts.append((await retry.call(call)).vectors)
        return np.concatenate(parts)

    def register(self, server: grpc.aio.Server) -> None:
        """Add the service to a gRPC server."""
        ingester_pb2_grpc.add_IngesterServiceServicer_to_server(self._servicer, server)

    async def start(self) -> None:
        """Claim a worker name and start the job queue."""
        if self._worker is None:  # a start that the database was not there for is repeated
            self._worker = claim_name(
                self._data_dir, configured=self._settings.worker_name, is_shared=self._is_shared
            )
        worker = self._worker.name
        await asyncio.to_thread(self._blobs.open, worker)
        await self._database.create()
        await self._reconciler.join(worker)
        await self._parser.open()
        await self._ingestion.start(worker)
        self._reconciler.start()
        self._has_started = True
        self._counted.watch(self._jobs)
        await self._sources.start(worker)

    async def close(self) -> None:
        """Stop jobs and release every resource."""
        await self._sources.close()
        await self._reconciler.close()
        await self._counted.close()
        await self._queue.close()
        await self._parser.close()
        await self._embedders.close()
        await self._retrievers.close()
        await self._database_state.close()
        await self._database.close()
        if self._worker is not None:
            self._worker.release()

    async def _identify(self, collection: str) -> str:
        if not self._has_started:
            raise Unavailable("The ingester is starting; try again.", retry_after_s=1)
        await self._importer.refuse_while_under_way()
        return (await self._retriever.collection(collection, Deadline.after(_CHECK_S))).created


def _url(settings: IngesterSettings) -> str:
    return url_of(
        settings.database_url.get_secret_value(),
        settings.data_dir / "ingester.sqlite",
        settings.database_password.get_secret_value(),
    )


def migrate(settings: IngesterSettings) -> str:
    """Migrate the database; return the revision of its schema.

    Raises:
        RaglanError: it cannot be reached, it is of a newer version, or a process uses the file.
    """
    database = Database(_url(settings), SCHEMA)
    is_shared = database.engine.dialect.name != "sqlite"
    worker: WorkerName | None = None
    try:
        if not is_shared:
            require_writable(settings.data_dir, "RAGLAN_INGESTER_DATA_DIR")
            worker = claim_name(settings.data_dir, configured="", is_shared=False)
        return database.migrate()
    finally:
        database.engine.dispose()
        if worker is not None:
            worker.release()


def build(settings: IngesterSettings) -> Service:
    """Build the service from its settings."""
    ingester = Ingester(settings)
    return Service(
        name="raglan.v1.IngesterService",
        register=ingester.register,
        start=ingester.start,
        close=ingester.close,
        metrics=ingester.metrics,
    )
