"""Documents fetched by URL, on their way through the route to an ingester behind real gRPC."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import scripted_server
from fastapi import FastAPI
from raglan.rpc.server import Server, Service
from raglan.settings import GrpcSettings
from raglan.url_fetcher import UrlFetcher
from raglan.url_policy import SettingNames, UrlPolicy
from raglan.v1 import ingester_pb2, ingester_pb2_grpc
from raglan_gateway.api import urls
from raglan_gateway.api.error_handlers import install_error_handlers
from raglan_gateway.mesh import Mesh
from raglan_gateway.settings import GatewaySettings

ROUTE = "/v1/collections/default/documents/urls"


class Ingester(ingester_pb2_grpc.IngesterServiceServicer):
    """Keeps the documents of jobs that arrived whole."""

    def __init__(self) -> None:
        self.documents: list[tuple[Any, bytes]] = []

    async def Submit(self, request_iterator: Any, context: Any) -> Any:
        found: list[tuple[Any, bytes]] = []
        async for message in request_iterator:
            if message.WhichOneof("part") == "document":
                found.append((message.document, b""))
            elif message.WhichOneof("part") == "data":
                head, data = found.pop()
                found.append((head, data + message.data))
        self.documents += found
        return ingester_pb2.Job(id="job-1")


@pytest.fixture
async def ingester() -> Ingester:
    return Ingester()


@pytest.fixture
def server() -> Any:
    with scripted_server.serving() as server:
        yield server


@pytest.fixture
async def gateway(
    ingester: Ingester, server: scripted_server.Scripted
) -> AsyncIterator[httpx.AsyncClient]:
    service = Server(
        Service(
            "raglan.v1.IngesterService",
            lambda s: ingester_pb2_grpc.add_IngesterServiceServicer_to_server(ingester, s),
        ),
        GrpcSettings(shutdown_drain_s=0, shutdown_grace_s=0),
    )
    await service.start()
    mesh = Mesh(
        GatewaySettings(ingester_address=f"127.0.0.1:{service.port}"), lambda service, kind: None
    )
    ports = [httpx.URL(server.url).port or 0]
    names = SettingNames("HOSTS", "NETWORKS", "MAX_BYTES", "TIMEOUT")
    policy = UrlPolicy(["127.0.0.1"], ["127.0.0.0/8"], ports, names=names)
    app = FastAPI()
    install_error_handlers(app)
    app.include_router(urls.router(mesh, UrlFetcher(policy, max_bytes=3_000_000, timeout_s=10)))
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client
    await mesh.close()
    await service.stop()


async def test_documents_arrive_with_their_address_type_and_metadata(
    gateway: httpx.AsyncClient, ingester: Ingester, server: scripted_server.Scripted
) -> None:
    large = b"a" * 2_500_000
    server.replies = [
        scripted_server.Reply(200, large, {"Content-Type": "text/plain; charset=utf-8"}),
        scripted_server.Reply(200, b"<p>b", {"Content-Type": "text/html"}),
    ]
    body = {
        "urls": [f"{server.url}/guide/a%20b.txt", f"{server.url}/wiki/?page=2"],
        "metadata": {"team": "search"},
    }
    reply = await gateway.post(ROUTE, json=body)
    assert (reply.status_code, reply.json()) == (202, {"job_id": "job-1"})
    host = server.url.removeprefix("http://")
    (first, text), (second, page) = ingester.documents
    assert (text, page) == (large, b"<p>b")
    assert (first.document_id, second.document_id) == (
        f"{host}/guide/a b.txt",
        f"{host}/wiki?page=2",
    )
    assert (first.filename, first.media_type) == ("a b.txt", "text/plain")
    assert second.media_type == "text/html"
    assert json.loads(first.metadata_json) == {"team": "search", "url": body["urls"][0]}


async def test_one_that_cannot_be_fetched_refuses_all_by_name(
    gateway: httpx.AsyncClient, ingester: Ingester, server: scripted_server.Scripted
) -> None:
    server.replies = [scripted_server.Reply(200, b"a"), scripted_server.Reply(404)]
    reply = await gateway.post(ROUTE, json={"urls": [f"{server.url}/a", f"{server.url}/b"]})
    assert reply.status_code == 422
    assert f"'{server.url}/b' gave status 404" in reply.json()["error"]["message"]
    assert ingester.documents == []


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"urls": []}, 422),
        ({"urls": ["http://127.0.0.1/"] * 21}, 422),
        ({"urls": ["ftp://127.0.0.1/"]}, 422),
        ({"urls": ["http://127.0.0.1/"]}, 403),
        ({"urls": ["http://other.example/"]}, 403),
        ({"url": "http://127.0.0.1/"}, 422),
    ],
)
async def test_bad_addresses_are_refused_unsent(
    gateway: httpx.AsyncClient, server: scripted_server.Scripted, body: Any, status: int
) -> None:
    reply = await gateway.post(ROUTE, json=body)
    assert reply.status_code == status, reply.text
    assert reply.json()["error"]["message"]
    assert server.requests == []
