"""The composition root: the only place that knows which concrete classes make up the service."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import grpc
import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from raglan.database import Database, now_ms, url_of
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
from raglan_ingester.byte_budget import ByteBudget
from raglan_ingester.changes import Changes
from raglan_ingester.chunk_preview import ChunkPreviewer
from raglan_ingester.chunking import Sizes
from raglan_ingester.clients.embedder import EmbedderClient
from raglan_ingester.clients.generator import GeneratorClient
from raglan_ingester.clients.index_transfer import IndexTransfer
from raglan_ingester.clients.retriever import RetrieverClient
from raglan_ingester.contexts import Contexts, ContextStore
from raglan_ingester.engines.dbos_queue import DbosQueue
from raglan_ingester.indexing import Indexer
from raglan_ingester.ingestion import Ingestion
from raglan_ingester.labelling import Labelling
from raglan_ingester.library import Library
from raglan_ingester.metrics import IngesterMetrics
from raglan_ingester.outage_retry import OutageRetry
from raglan_ingester.parsing import ParserPool
from raglan_ingester.pipeline import BYTES_UNDER_WAY, JobDependencies
from raglan_ingester.reconciliation import Reconciler
from raglan_ingester.schema import SCHEMA
from raglan_ingester.selection import Selection
from raglan_ingester.semantic_cuts import SemanticParser
from raglan_ingester.servicer import IngesterServicer
from raglan_ingester.settings import IngesterSettings
from raglan_ingester.sources.open_reader import Readers
from raglan_ingester.sources.scheduler import Scheduler
from raglan_ingester.sources.source_file import SourceFile
from raglan_ingester.sources.sync import Ports
from raglan_ingester.stores import Stores
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
        self._stores = Stores(self._database, settings)
        self.metrics = Endpoint.of(settings)
        self._counted = IngesterMetrics(self.metrics.registry)
        self._connect()
        self._parser = ParserPool(
            workers=settings.parse_workers,
            memory_bytes=settings.parse_memory_bytes,
            cpu_s=settings.parse_cpu_s,
            wall_s=settings.parse_wall_s,
            readable=(settings.data_dir / _TOKENIZERS,),
        )
        self._is_shared = sa.make_url(url).get_backend_name() != "sqlite"
        self._worker: WorkerName | None = None
        self._has_started = False
        self._queue = DbosQueue(url, per_collection=settings.concurrent_jobs)
        self._calls = asyncio.Semaphore(settings.embed_calls_in_flight)
        self._retry = OutageRetry(settings.outage_patience_s)
        self._heartbeats = Heartbeats(self._database, lease_s=settings.worker_lease_s)
        self._ingestion = self._build_ingestion()
        self._library = self._build_library()
        self._labelling = Labelling(
            self._stores.labels,
            self._retriever,
            self._stores.locks,
            self._counted.set_aside,
            self._stores.versions,
        )
        self._changes = self._build_changes()
        self._importer = self._build_importer()
        self._reconciler = self._build_reconciler()
        self._limits = Limits(
            settings.max_document_bytes,
            settings.max_job_bytes,
            settings.max_documents_per_job,
            settings.max_metadata_bytes,
        )
        stores = self._stores
        self._intake = Intake(
            stores.blobs,
            stores.prepared,
            stores.asked_jobs,
            self._limits,
            self._identify,
            stores.submissions,
        )
        self._sources = self._build_sources()
        self._servicer = self._build_servicer()

    def _connect(self) -> None:
        """Make the clients of the services that are called."""
        called = CalledPools(self.metrics.registry)
        self._embedders = EndpointPool(
            "embedder",
            self._settings.embedder_address,
            embedder_pb2_grpc.EmbedderServiceStub,
            on_attempt=partial(called.attempted, "embedder"),
        )
        self._retrievers = EndpointPool(
            "retriever",
            self._settings.retriever_address,
            retriever_pb2_grpc.RetrieverServiceStub,
            on_attempt=partial(called.attempted, "retriever"),
        )
        self._generator = GeneratorClient(
            self._settings.generator_address,
            called.attempted,
            call_s=self._settings.context_call_s,
        )
        called.watch({"embedder": self._embedders, "retriever": self._retrievers})
        self._embedder = EmbedderClient(self._embedders)
        record = self._stores.revisions.record
        self._retriever = RetrieverClient(self._retrievers, record)
        self._transfer = IndexTransfer(self._retrievers, record)

    def _build_ingestion(self) -> Ingestion:
        settings, stores = self._settings, self._stores
        embedder_retry = OutageRetry(settings.outage_patience_s)
        dependencies = JobDependencies(
            jobs=stores.jobs,
            documents=stores.documents,
            blobs=stores.blobs,
            prepared=stores.prepared,
            parser=self._semantic_parser(embedder_retry),
            embedder=self._embedder,
            embedder_retry=embedder_retry,
            observer=self._counted,
            indexer=Indexer(
                stores.jobs,
                stores.documents,
                self._retriever,
                stores.locks,
                self._retry,
                stores.blobs,
                stores.versions,
            ),
            parse_workers=settings.parse_workers,
            texts_per_call=settings.embed_texts_per_call,
            calls_in_flight=settings.embed_calls_in_flight,
            embed_calls=self._calls,
            byte_budget=ByteBudget(BYTES_UNDER_WAY),
            tokenizers=self._tokenizers(embedder_retry),
            max_metadata_bytes=settings.max_metadata_bytes,
            max_chunks_per_document=settings.max_chunks_per_document,
            max_chunks_per_job=settings.max_chunks_per_job,
            contexts=Contexts(
                self._generator,
                OutageRetry(settings.context_call_s),
                ContextStore(stores.patient),
                asyncio.Semaphore(settings.context_calls_in_flight),
                settings.context_document_chars,
            ),
        )
        return Ingestion(
            dependencies,
            stores.asked_jobs,
            self._queue,
            self._retriever,
            self._retry,
            stores.traces,
            lambda job, stop: self._changes.run(job, stop),
            max_chars=settings.chunk_max_chars,
            overlap_chars=settings.chunk_overlap_chars,
        )

    def _build_library(self) -> Library:
        stores = self._stores
        return Library(
            stores.asked_documents,
            stores.blobs,
            self._retriever,
            stores.locks,
            stores.submissions,
            self._ingestion,
            stores.revisions,
            stores.versions,
        )

    def _build_changes(self) -> Changes:
        stores = self._stores
        return Changes(
            stores.jobs,
            Selection(stores.documents),
            stores.changes,
            stores.locks,
            self._library,
            self._labelling,
            self._retry,
            max_documents=self._settings.max_changed_documents,
        )

    def _build_importer(self) -> Importer:
        stores = self._stores
        target = Target(
            self._database,
            stores.asked_documents,
            stores.asked_jobs,
            stores.blobs,
            self._library.delete_everything,
            self._embedder.model,
        )
        return Importer(target, self._transfer)

    def _build_reconciler(self) -> Reconciler:
        settings, stores = self._settings, self._stores
        return Reconciler(
            self._heartbeats,
            self._ingestion,
            self._queue,
            stores.asked_jobs,
            stores.asked_documents,
            stores.blobs,
            self._retriever,
            self._finish,
            self._labelling.reconsider,
            self._counted.repaired,
            self._database.truncate_log,
            self._importer.under_way,
            sweep_s=min(_SWEEP_S, settings.worker_lease_s / 3),
            reconcile_s=settings.reconcile_every_s,
            job_retention_days=settings.job_retention_days,
        )

    def _build_sources(self) -> Scheduler:
        settings, stores = self._settings, self._stores
        ports = Ports(
            stores.sources,
            self._intake,
            self._ingestion.submitted,
            stores.asked_jobs,
            self._library,
            settings.max_document_bytes,
        )
        return Scheduler(
            SourceFile(settings.sources_file),
            ports,
            Readers(settings.max_document_bytes, settings.data_dir / "repositories").open,
            self._heartbeats.dead,
            self._importer.under_way,
        )

    def _build_previewer(self) -> ChunkPreviewer:
        settings = self._settings
        retry = OutageRetry(_PREVIEW_PATIENCE_S)
        return ChunkPreviewer(
            self._stores.blobs,
            self._semantic_parser(retry),
            self._tokenizers(retry),
            lambda name: self._retriever.collection(name, Deadline.after(_CHECK_S)),
            max_document_bytes=settings.max_document_bytes,
            max_chunks=settings.max_chunks_per_document,
            defaults=Sizes(settings.chunk_max_chars, settings.chunk_overlap_chars),
        )

    def _build_servicer(self) -> IngesterServicer:
        settings, stores = self._settings, self._stores
        reader = RowReader(self._database)
        return IngesterServicer(
            self._intake,
            self._ingestion,
            stores.asked_jobs,
            self._library,
            self._labelling,
            self._changes,
            stores.revisions,
            Exporter(reader, stores.asked_documents, stores.blobs, self._transfer),
            self._importer,
            self._sources,
            self._build_previewer(),
            restored=self._reconciler.hurry,
            engine=self._queue.name,
            metrics_port=lambda: self.metrics.port,
            database=self._database_state,
            confinement=lambda: self._parser.confinement,
            limits={
                **asdict(self._limits),
                "max_chunks_per_document": settings.max_chunks_per_document,
                "max_chunks_per_job": settings.max_chunks_per_job,
                "parse_memory_bytes": settings.parse_memory_bytes,
                "parse_cpu_s": settings.parse_cpu_s,
            },
        )

    def _semantic_parser(self, retry: OutageRetry) -> SemanticParser:
        return SemanticParser(self._parser, partial(self._vectors, retry))

    def _tokenizers(self, retry: OutageRetry) -> TokenizerFolder:
        return TokenizerFolder(self._data_dir / _TOKENIZERS, self._embedder, retry)

    async def _finish(self) -> None:
        """Bring to the index what was changed or deleted while it was away."""
        await self._stores.prepared.sweep()
        try:
            await self._library.finish_deletions()
        finally:
            await self._stores.versions.expire(now_ms())
            await self._labelling.finish()

    async def _vectors(self, retry: OutageRetry, texts: Sequence[str]) -> NDArray[Any]:
        """Embed any number of texts, a call at a time, among those of the jobs."""
        size = self._settings.embed_texts_per_call
        parts = []
        for at in range(0, len(texts), size):
            async with self._calls:
                call = partial(self._embedder.embed, texts[at : at + size])
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
        await asyncio.to_thread(self._stores.blobs.open, worker)
        await self._database.create()
        await self._reconciler.join(worker)
        await self._parser.open()
        await self._ingestion.start(worker)
        self._reconciler.start()
        self._has_started = True
        self._counted.watch(self._stores.asked_jobs)
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
        await self._generator.close()
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
