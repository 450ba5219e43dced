"""Both stores, ready to be held to the same suite: the server store also over real HTTP."""

from __future__ import annotations

import json
import re
import threading
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from httpx import Headers
from qdrant_client import AsyncQdrantClient, QdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse
from raglan_retriever.chunks import Chunk
from raglan_retriever.collection import Model
from raglan_retriever.index import Index
from raglan_retriever.query import Limits
from raglan_retriever.stores.edge import EdgeStore
from raglan_retriever.stores.qdrant import QdrantStore
from raglan_retriever.stores.store import Store

DIMENSION = 8
MODEL = Model("test-model", "r1", DIMENSION)


def chunk(
    chunk_id: str,
    text: str = "words",
    *,
    document_id: str = "",
    ordinal: int = 0,
    metadata: dict[str, Any] | None = None,
    heading_path: tuple[str, ...] = (),
    title: str = "",
) -> Chunk:
    return Chunk(
        chunk_id=chunk_id,
        document_id=document_id or chunk_id.partition("#")[0],
        ordinal=ordinal,
        title=title,
        text=text,
        start=0,
        end=len(text),
        heading_path=heading_path,
        metadata_json=json.dumps(metadata or {}),
    )


def vectors(count: int, seed: int = 0, dimension: int = DIMENSION) -> np.ndarray:
    made = np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


class _LocalClient:
    """Qdrant's local mode, which says ValueError where a server answers 404 or 409."""

    def __init__(self) -> None:
        self._client = AsyncQdrantClient(":memory:")

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            try:
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", "Payload indexes have no effect")
                    return await method(*args, **kwargs)
            except ValueError as error:
                status = 404 if "not found" in str(error) else 409
                raise UnexpectedResponse(status, "", str(error).encode(), Headers()) from error

        return call


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    """The default of 5 has the kernel reset connections of concurrent callers."""


class _Handler(BaseHTTPRequestHandler):
    """The part of Qdrant's REST interface that the store uses, answered by Qdrant's local mode."""

    protocol_version = "HTTP/1.1"
    local: QdrantClient
    lock: threading.Lock
    seen: list[tuple[str, str]]
    bodies: list[tuple[str, Any]]

    def _serve(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        body = json.loads(self.rfile.read(length) or b"{}")
        path = self.path.partition("?")[0]
        self.seen.append((self.command, self.path))
        self.bodies.append((f"{self.command} {path}", body))
        try:
            with self.lock:
                status, result = 200, self._answer(path, body)
        except ValueError as error:
            status, result = (404 if "not found" in str(error) else 400), str(error)
        payload = json.dumps({"result": result, "status": "ok", "time": 0.0}).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = _serve  # noqa: N815

    def log_message(self, *_: Any) -> None:
        return

    def _answer(self, path: str, body: dict[str, Any]) -> Any:
        if path == "/collections":
            return self.local.get_collections().model_dump(mode="json")
        found = re.fullmatch(r"/collections/([^/]+)(/.*)?", path)
        assert found, f"unexpected {self.command} {path}"
        name, rest = found[1], found[2] or ""
        answer = _ROUTES[self.command, rest](self.local, name, body)
        return answer.model_dump(mode="json") if hasattr(answer, "model_dump") else answer


Body = dict[str, Any]

_DONE = {"operation_id": 1, "status": "completed"}


def _create(local: QdrantClient, name: str, body: Body) -> bool:
    wanted = models.CreateCollection.model_validate(body)
    return local.create_collection(
        name,
        vectors_config=wanted.vectors,
        sparse_vectors_config=wanted.sparse_vectors,
        metadata=wanted.metadata,
    )


def _index(local: QdrantClient, name: str, body: Body) -> Any:
    local.get_collection(name)
    return _DONE


def _upsert(local: QdrantClient, name: str, body: Body) -> Any:
    points = [models.PointStruct.model_validate(point) for point in body["points"]]
    condition = body.get("update_filter")
    local.upsert(name, points, update_filter=condition and models.Filter.model_validate(condition))
    return _DONE


def _retrieve(local: QdrantClient, name: str, body: Body) -> Any:
    wanted = {"with_payload": body["with_payload"], "with_vectors": body.get("with_vector", False)}
    return _dumped(local.retrieve(name, body["ids"], **wanted))


def _query(local: QdrantClient, name: str, body: Body) -> Any:
    searches = models.QueryRequestBatch.model_validate(body).searches
    for each in searches:
        each.params = None  # it compares every vector exactly, and warns
    return _dumped(local.query_batch_points(name, searches))


def _facet(local: QdrantClient, name: str, body: Body) -> Any:
    wanted = models.FacetRequest.model_validate(body)
    exact = bool(wanted.exact)
    return local.facet(
        name, wanted.key, facet_filter=wanted.filter, limit=wanted.limit or 10, exact=exact
    )


def _scroll(local: QdrantClient, name: str, body: Body) -> Any:
    wanted = models.ScrollRequest.model_validate(body)
    points, offset = local.scroll(
        name,
        scroll_filter=wanted.filter,
        limit=wanted.limit or 10,
        offset=wanted.offset,
        with_payload=wanted.with_payload,
    )
    return {"points": _dumped(points), "next_page_offset": offset}


def _delete(local: QdrantClient, name: str, body: Body) -> Any:
    local.delete(name, models.PointIdsList.model_validate(body))
    return _DONE


def _batch(local: QdrantClient, name: str, body: Body) -> Any:
    operations = models.UpdateOperations.model_validate(body).operations
    local.batch_update_points(name, operations)
    return [_DONE] * len(operations)


def _count(local: QdrantClient, name: str, body: Body) -> Any:
    wanted = models.CountRequest.model_validate(body)
    return local.count(name, count_filter=wanted.filter, exact=True)


_ROUTES: dict[tuple[str, str], Callable[[QdrantClient, str, Body], Any]] = {
    ("GET", ""): lambda local, name, _: local.get_collection(name),
    ("GET", "/exists"): lambda local, name, _: {"exists": local.collection_exists(name)},
    ("PUT", ""): _create,
    ("PATCH", ""): lambda local, name, body: local.update_collection(
        name, metadata=body["metadata"]
    ),
    ("DELETE", ""): lambda local, name, _: local.delete_collection(name),
    ("PUT", "/index"): _index,
    ("PUT", "/points"): _upsert,
    ("POST", "/points"): _retrieve,
    ("POST", "/points/query/batch"): _query,
    ("POST", "/points/scroll"): _scroll,
    ("POST", "/points/delete"): _delete,
    ("POST", "/points/count"): _count,
    ("POST", "/points/batch"): _batch,
    ("POST", "/facet"): _facet,
}
"""What the server does, by method and path below a collection."""


def _dumped(records: list[Any]) -> list[Any]:
    return [record.model_dump(mode="json") for record in records]


@pytest.fixture
def qdrant_bodies() -> list[tuple[str, Any]]:
    """Method and path of each request that the server met, with its body."""
    return []


@pytest.fixture
def qdrant_http(
    qdrant_bodies: list[tuple[str, Any]],
) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """A server's address, and the (method, path) of each request it met."""
    handler = type("Handler", (_Handler,), {})
    handler.local = QdrantClient(":memory:")
    handler.lock, handler.seen, handler.bodies = threading.Lock(), [], qdrant_bodies
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", handler.seen
    server.shutdown()
    thread.join()
    server.server_close()
    handler.local.close()


def edge(path: Path, **settings: Any) -> EdgeStore:
    chosen = {"search_threads": 2, "max_waiting": 64, "optimize_after_chunks": 10**9} | settings
    return EdgeStore(path, **chosen)


# Qdrant's local mode, and the HTTP server over it, compute in this process; a real server does not.
LOCAL_MODE = pytest.mark.loop_stall_s(2.0)


@pytest.fixture(
    params=[
        "edge",
        pytest.param("qdrant-local", marks=LOCAL_MODE),
        pytest.param("qdrant-http", marks=LOCAL_MODE),
    ]
)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    made: Store
    if request.param == "edge":
        made = edge(tmp_path)
    elif request.param == "qdrant-local":
        made = QdrantStore(_LocalClient())  # type: ignore[arg-type]
    else:
        url, _ = request.getfixturevalue("qdrant_http")
        made = QdrantStore(AsyncQdrantClient(url, check_compatibility=False))
    await made.open()
    yield made
    await made.close()


@pytest.fixture
def index(store: Store) -> Index:
    return Index(store, limits=Limits(), language="en")


@pytest.fixture(name="chunk")
def _chunk() -> Callable[..., Chunk]:
    return chunk


@pytest.fixture(name="vectors")
def _vectors() -> Callable[..., np.ndarray]:
    return vectors


@pytest.fixture(name="model")
def _model() -> Model:
    return MODEL


@pytest.fixture(scope="session", name="open_local")
def _local() -> Callable[[], _LocalClient]:
    return _LocalClient


@pytest.fixture(scope="session", name="open_edge")
def _edge() -> Callable[..., EdgeStore]:
    return edge
