"""The ingester against real gRPC servers: an embedder and a retriever that can also break."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any, TypeVar

import grpc
import numpy as np
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from postgres_server import PostgresServer
from raglan import access_tags, tensors
from raglan.database import Database, url_of
from raglan.deadline import Deadline
from raglan.errors import Internal, InvalidInput, NotFound
from raglan.rpc import client
from raglan.rpc.server import Server, Service
from raglan.settings import GrpcSettings
from raglan.v1 import (
    common_pb2,
    embedder_pb2,
    embedder_pb2_grpc,
    ingester_pb2,
    ingester_pb2_grpc,
    retriever_pb2,
    retriever_pb2_grpc,
)
from raglan_ingester.app import build
from raglan_ingester.schema import SCHEMA
from raglan_ingester.settings import IngesterSettings
from sqlalchemy.orm import Session

T = TypeVar("T")
READY = grpc.ChannelConnectivity.READY
SERVING = health_pb2.HealthCheckResponse.SERVING
DIMENSION = 8
MODEL = common_pb2.ModelIdentity(id="fake", revision="1", dimension=DIMENSION)
ENDED = (
    ingester_pb2.JOB_STATUS_SUCCEEDED,
    ingester_pb2.JOB_STATUS_PARTIAL,
    ingester_pb2.JOB_STATUS_FAILED,
    ingester_pb2.JOB_STATUS_CANCELLED,
)


class FakeEmbedder(embedder_pb2_grpc.EmbedderServiceServicer):
    """Vectors from a hash of the text. `gate` holds calls back; `error` makes them fail."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.gate = asyncio.Event()
        self.reset()

    def reset(self) -> None:
        self.texts: list[str] = []
        self.most_in_flight = 0
        self.gate.set()
        self.delay_s = 0.0
        self.error: Callable[[list[str]], Exception | None] = lambda texts: None
        self.vector: Callable[[str], Any] = _vector
        self.model = MODEL
        self.lanes: set[int] = set()
        self.kinds: set[int] = set()

    async def Embed(self, request: Any, context: Any) -> Any:
        self.lanes.add(request.lane)
        self.kinds.add(request.kind)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await self.gate.wait()
            await asyncio.sleep(self.delay_s)
            if error := self.error(list(request.texts)):
                raise error
            self.texts += request.texts
            rows = np.stack([self.vector(text) for text in request.texts])
            return embedder_pb2.EmbedResponse(vectors=tensors.pack(rows), model=self.model)
        finally:
            self.in_flight -= 1

    async def GetInfo(self, request: Any, context: Any) -> Any:
        return common_pb2.ServiceInfo(model=self.model)

    async def GetTokenizer(self, request: Any, context: Any) -> Any:
        """A model whose tokens are unknown: documents are measured in characters."""
        return embedder_pb2.Tokenizer(model=self.model)


class FakeRetriever(retriever_pb2_grpc.RetrieverServiceServicer):
    """The index as dictionaries. `lose` forgets chunks; `error` makes calls fail.

    With `is_old` it tells no revision. It refuses labels of the document `refused`, and every
    call about the collections `broken`.
    """

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        # Above those of earlier modules, whose ingesters may have shared the database.
        self.revision = time.time_ns() // 1_000
        self.reset()

    def _changed(self) -> int:
        """The revision after a change; one counter is enough for all collections."""
        self.revision += 1
        return 0 if self.is_old else self.revision

    def reset(self) -> None:
        self.collections: dict[str, dict[str, Any]] = {}
        self.chunking: dict[str, Any] = {}
        self.created: dict[str, str] = {}
        self.model = MODEL
        self.upserts = 0
        self.label_calls = 0
        self.hold_labels_after: int | None = None
        self.refused = ""
        self.refusals = 0
        self.broken: set[str] = set()
        self.is_old = False
        self.gate.set()
        self.lose: Callable[[Any], bool] = lambda chunk: False
        self.error: Callable[[str], Exception | None] = lambda method: None
        self.add_collection("default")

    def add_collection(
        self, name: str, max_chars: int = 0, overlap_chars: int = 0, strategy: str = ""
    ) -> None:
        self.collections[name] = {}
        self.created[name] = datetime.now(UTC).isoformat()
        self.chunking[name] = retriever_pb2.Chunking(
            max_chars=max_chars, overlap_chars=overlap_chars, strategy=strategy
        )

    def chunks(self, collection: str, document_id: str) -> list[Any]:
        """The chunks of a document, in order."""
        found = [c for c in self.collections[collection].values() if c.document_id == document_id]
        return sorted(found, key=lambda chunk: chunk.ordinal)

    async def GetCollection(self, request: Any, context: Any) -> Any:
        self._enter("GetCollection", request.name)
        return retriever_pb2.Collection(
            name=request.name,
            embedder=self.model,
            chunking=self.chunking[request.name],
            created=self.created[request.name],
        )

    async def Upsert(self, request: Any, context: Any) -> Any:
        held = self._enter("Upsert", request.collection)
        self.upserts += 1
        assert tensors.unpack(request.vectors).shape == (len(request.chunks), DIMENSION)
        await self.gate.wait()
        for chunk in request.chunks:
            if not self.lose(chunk):
                held[chunk.chunk_id] = chunk
        return retriever_pb2.UpsertResponse(upserted=len(request.chunks), revision=self._changed())

    async def Delete(self, request: Any, context: Any) -> Any:
        held = self._enter("Delete", request.collection)
        gone = [
            id_
            for id_, chunk in held.items()
            if chunk.document_id in request.document_ids and id_ not in request.keep_chunk_ids
        ]
        for id_ in gone:
            del held[id_]
        return retriever_pb2.DeleteResponse(deleted_chunks=len(gone), revision=self._changed())

    async def LabelDocuments(self, request: Any, context: Any) -> Any:
        held = self._enter("LabelDocuments", request.collection)
        self.label_calls += 1
        if any(each.document_id == self.refused for each in request.documents):
            self.refusals += 1
            raise InvalidInput("The index does not take these.")
        if self.hold_labels_after is not None and self.label_calls > self.hold_labels_after:
            await asyncio.Event().wait()
        changed = 0
        for labels in request.documents:
            for chunk in held.values():
                if chunk.document_id == labels.document_id:
                    chunk.metadata_json = labels.metadata_json
                    chunk.access[:] = labels.access
                    changed += 1
        return retriever_pb2.LabelDocumentsResponse(
            labelled_chunks=changed, revision=self._changed()
        )

    async def CountChunks(self, request: Any, context: Any) -> Any:
        self._enter("CountChunks", request.collection)
        counts = [len(self.chunks(request.collection, id_)) for id_ in request.document_ids]
        return retriever_pb2.CountChunksResponse(counts=counts)

    def _enter(self, method: str, collection: str) -> dict[str, Any]:
        if error := self.error(method):
            raise error
        if collection in self.broken:
            raise Internal("This collection is damaged.")
        if collection not in self.collections:
            raise NotFound(f"There is no collection {collection!r}.")
        return self.collections[collection]


class Ingester:
    """A client of the ingester, with the words that tests use."""

    def __init__(self, address: str, settings: IngesterSettings | None = None) -> None:
        self.address = address
        self.channel = client.connect(address)
        self.stub: Any = ingester_pb2_grpc.IngesterServiceStub(self.channel)
        self.settings = settings

    async def serving(self) -> None:
        health: Any = health_pb2_grpc.HealthStub(self.channel)
        request = health_pb2.HealthCheckRequest(service="raglan.v1.IngesterService")
        async with asyncio.timeout(60):
            while self.channel.get_state(try_to_connect=True) is not READY:
                await asyncio.sleep(0.02)
            while (await health.Check(request)).status != SERVING:
                await asyncio.sleep(0.02)

    async def submit(
        self, documents: Iterable[tuple[Any, bytes]] | dict[str, str], collection: str = "default"
    ) -> Any:
        """Submit (header, bytes) pairs, or texts by id."""
        pairs = (
            [(header(id_, "text/plain"), text.encode()) for id_, text in documents.items()]
            if isinstance(documents, dict)
            else documents
        )
        return await self.call(self.stub.Submit, submission(pairs, collection))

    async def in_database(self, work: Callable[[Session], T]) -> T:
        """Run `work` on the ingester's database, SQLite or PostgreSQL."""
        assert self.settings is not None
        file = self.settings.data_dir / "ingester.sqlite"
        database = Database(url_of(self.settings.database_url.get_secret_value(), file), SCHEMA)
        try:
            return await database.run(work)
        finally:
            await database.close()

    async def submit_file(self, name: str, data: bytes, collection: str = "default") -> Any:
        head = ingester_pb2.DocumentHeader(filename=name)
        return await self.ended(await self.submit([(head, data)], collection))

    async def call(self, method: Any, request: Any, timeout_s: float = 30, held: Any = None) -> Any:
        """Call for a caller with the access tags `held`; None reaches every document."""
        with access_tags.serving(held):
            return await client.call(method, request, deadline=Deadline.after(timeout_s))

    async def job(self, id_: str) -> Any:
        return await self.call(self.stub.GetJob, ingester_pb2.GetJobRequest(id=id_))

    async def ended(self, job: Any, timeout_s: float = 30) -> Any:
        request = ingester_pb2.GetJobRequest(id=job.id)
        with access_tags.serving(None):
            replies = client.stream(self.stub.WatchJob, request, deadline=Deadline.after(timeout_s))
            seen = [reply async for reply in replies]
        assert seen[-1].status in ENDED
        return seen[-1]

    async def document(self, id_: str, collection: str = "default") -> Any:
        request = ingester_pb2.GetDocumentRequest(collection=collection, document_id=id_)
        return await self.call(self.stub.GetDocument, request)

    async def revisions(self, *collections: str) -> tuple[dict[str, int], list[str]]:
        """Revisions that it knows, and collections that the index has yet to follow."""
        request = ingester_pb2.GetRevisionsRequest(collections=collections)
        reply = await self.call(self.stub.GetRevisions, request)
        return dict(reply.revisions), list(reply.unfinished)

    async def delete(self, id_: str, collection: str = "default") -> Any:
        request = ingester_pb2.GetDocumentRequest(collection=collection, document_id=id_)
        return await self.call(self.stub.DeleteDocument, request)


def header(id_: str, media_type: str = "", filename: str = "", title: str = "") -> Any:
    return ingester_pb2.DocumentHeader(
        document_id=id_, media_type=media_type, filename=filename, title=title
    )


async def submission(
    pairs: Iterable[tuple[Any, bytes]], collection: str = "default"
) -> AsyncIterator[Any]:
    yield ingester_pb2.SubmitRequest(job=ingester_pb2.JobHeader(collection=collection))
    for head, data in pairs:
        yield ingester_pb2.SubmitRequest(document=head)
        for at in range(0, len(data), 1 << 20):
            yield ingester_pb2.SubmitRequest(data=data[at : at + (1 << 20)])


async def _until(condition: Callable[[], bool | Awaitable[bool]], limit_s: float = 15) -> None:
    """Wait for a condition; fail when it has not come true after `limit_s`."""
    async with asyncio.timeout(limit_s):
        while True:
            value = condition()
            if value if isinstance(value, bool) else await value:
                return
            await asyncio.sleep(0.01)


def _vector(text: str) -> Any:
    digest = hashlib.sha256(text.encode()).digest()[: 4 * DIMENSION]
    row = np.frombuffer(digest, dtype="<u4").astype(np.float32)
    return row / np.linalg.norm(row)


async def _serve(
    stack: AsyncExitStack, name: str, register: Callable[[grpc.aio.Server], None]
) -> str:
    server = Server(Service(name, register), GrpcSettings(shutdown_drain_s=0, shutdown_grace_s=0))
    await server.start()
    stack.push_async_callback(server.stop)
    return f"127.0.0.1:{server.port}"


@pytest.fixture
def until() -> Callable[..., Awaitable[None]]:
    return _until


@pytest.fixture
def client_of() -> type[Ingester]:
    return Ingester


# One ingester serves a whole module: DBOS takes a second to stop. Between tests it is emptied.
shared = pytest_asyncio.fixture(scope="module", loop_scope="module")


@shared
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@shared
async def embedder() -> FakeEmbedder:
    return FakeEmbedder()


@shared
async def retriever() -> FakeRetriever:
    return FakeRetriever()


@shared
async def serve(stack: AsyncExitStack) -> Callable[[FakeEmbedder], Awaitable[str]]:
    """Serves an embedder; returns its address."""
    return lambda embedder: _serve(
        stack,
        "raglan.v1.EmbedderService",
        lambda s: embedder_pb2_grpc.add_EmbedderServiceServicer_to_server(embedder, s),
    )


@shared
async def addresses(
    stack: AsyncExitStack,
    serve: Callable[[FakeEmbedder], Awaitable[str]],
    embedder: FakeEmbedder,
    retriever: FakeRetriever,
) -> dict[str, str]:
    """Where the fakes listen, as settings of the ingester."""
    return {
        "embedder_address": await serve(embedder),
        "retriever_address": await _serve(
            stack,
            "raglan.v1.RetrieverService",
            lambda s: retriever_pb2_grpc.add_RetrieverServiceServicer_to_server(retriever, s),
        ),
    }


@pytest.fixture(scope="module")
def changes() -> dict[str, Any]:
    """Settings that a module changes, by overriding this."""
    return {}


@shared
async def running(
    stack: AsyncExitStack,
    addresses: dict[str, str],
    changes: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Ingester:
    defaults = {"port": 0, "data_dir": tmp_path_factory.mktemp("ingester"), "shutdown_drain_s": 0}
    settings = IngesterSettings(**(defaults | addresses | changes))
    server = Server(build(settings), settings)
    stack.push_async_callback(server.stop)
    await server.start()
    ingester = Ingester(f"127.0.0.1:{server.port}", settings)
    stack.push_async_callback(ingester.channel.close)
    await _empty(ingester)  # of what another module left in the same database
    return ingester


async def _empty(ingester: Ingester) -> None:
    for name in ("default", "small"):
        request = ingester_pb2.DeleteDocumentsRequest(collection=name)
        await ingester.call(ingester.stub.DeleteDocuments, request)


@pytest_asyncio.fixture(loop_scope="module")
async def ingester(
    running: Ingester, embedder: FakeEmbedder, retriever: FakeRetriever
) -> AsyncIterator[Ingester]:
    """The module's ingester, empty, with whole fakes."""
    yield running
    embedder.reset()
    retriever.reset()
    await _empty(running)
    retriever.reset()


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    server = PostgresServer()
    yield server
    server.remove()
