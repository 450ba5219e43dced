"""Uploads of JSON on their way through a gateway to an ingester behind real gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from raglan.rpc.server import Server, Service
from raglan.settings import GrpcSettings
from raglan.v1 import ingester_pb2, ingester_pb2_grpc
from raglan_gateway.app import build
from raglan_gateway.settings import GatewaySettings

URL = "/v1/collections/default/documents"
JSON = {"content-type": "application/json"}


class Ingester(ingester_pb2_grpc.IngesterServiceServicer):
    """Keeps the ids of documents as they arrive, and those of jobs that arrived whole."""

    def __init__(self) -> None:
        self.arrived: list[str] = []
        self.whole: list[str] = []

    async def Submit(self, request_iterator: Any, context: Any) -> Any:
        mine: list[str] = []
        async for message in request_iterator:
            if message.WhichOneof("part") == "document":
                mine.append(message.document.document_id)
                self.arrived.append(message.document.document_id)
        self.whole += mine
        return ingester_pb2.Job(id="job-1")


@pytest.fixture
async def ingester() -> Ingester:
    return Ingester()


@pytest.fixture
async def gateway(ingester: Ingester) -> AsyncIterator[httpx.AsyncClient]:
    server = Server(
        Service(
            "raglan.v1.IngesterService",
            lambda s: ingester_pb2_grpc.add_IngesterServiceServicer_to_server(ingester, s),
        ),
        GrpcSettings(shutdown_drain_s=0, shutdown_grace_s=0),
    )
    await server.start()
    addresses = {
        f"{name}_address": "127.0.0.1:1"
        for name in ("embedder", "retriever", "reranker", "generator")
    } | {"ingester_address": f"127.0.0.1:{server.port}"}
    app = build(GatewaySettings(**addresses))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app), base_url="http://localhost"
        ) as client,
    ):
        yield client
    await server.stop()


def _document(number: int) -> bytes:
    return b'{"id": "d%d", "text": "Text."}' % number


async def test_documents_are_passed_on_while_the_body_arrives(
    gateway: httpx.AsyncClient, ingester: Ingester
) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b'{"documents": [' + _document(0) + b","
        async with asyncio.timeout(30):
            while not ingester.arrived:
                await asyncio.sleep(0.01)
        yield _document(1) + b"]}"

    reply = await gateway.post(URL, content=body(), headers=JSON)

    assert (reply.status_code, reply.json()) == (202, {"job_id": "job-1"})
    assert ingester.whole == ["d0", "d1"]


async def test_a_body_that_turns_bad_on_the_way_is_refused_whole(
    gateway: httpx.AsyncClient, ingester: Ingester
) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b'{"documents": [' + _document(0) + b","
        async with asyncio.timeout(30):
            while not ingester.arrived:
                await asyncio.sleep(0.01)
        yield b'{"id": "d1"}]}'

    reply = await gateway.post(URL, content=body(), headers=JSON)

    assert reply.status_code == 422
    assert reply.json()["error"]["message"] == "documents.1.text: Field required."
    assert ingester.whole == []
