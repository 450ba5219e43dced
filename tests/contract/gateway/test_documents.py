"""Documents and collections through a gateway, whose services answer in parts or at bad moments."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from raglan.rpc.server import Server, Service
from raglan.settings import GrpcSettings
from raglan.v1 import (
    ingester_pb2,
    ingester_pb2_grpc,
    retriever_pb2,
    retriever_pb2_grpc,
)
from raglan_gateway.app import build
from raglan_gateway.settings import GatewaySettings

PART = 1_000


class Ingester(ingester_pb2_grpc.IngesterServiceServicer):
    """Holds one document; a new version takes its place after the first part was read."""

    def __init__(self) -> None:
        self.versions = ["a" * 2_500]
        self.submitted = ["early"]

    async def DeleteDocuments(self, request: Any, context: Any) -> Any:
        self.submitted.clear()
        return ingester_pb2.DeleteDocumentsResponse()

    async def GetDocument(self, request: Any, context: Any) -> Any:
        text = self.versions[0]
        end = request.text_offset + PART
        if len(self.versions) > 1:
            self.versions.pop(0)
        return ingester_pb2.Document(
            id=request.document_id,
            metadata_json="{}",
            sha256=text[:1],
            status=ingester_pb2.DOCUMENT_STATUS_READY,
            text=text[request.text_offset : end],
            next_text_offset=end if end < len(text) else 0,
        )


class Retriever(retriever_pb2_grpc.RetrieverServiceServicer):
    """Gives two of five chunks at a time. While it deletes a collection, a document arrives."""

    def __init__(self, ingester: Ingester) -> None:
        self.ingester = ingester

    async def GetCollection(self, request: Any, context: Any) -> Any:
        return retriever_pb2.Collection(name=request.name)

    async def DeleteCollection(self, request: Any, context: Any) -> Any:
        self.ingester.submitted.append("late")
        return retriever_pb2.DeleteCollectionResponse()

    async def GetDocument(self, request: Any, context: Any) -> Any:
        end = request.offset + 2
        return retriever_pb2.GetDocumentChunksResponse(
            chunks=[
                retriever_pb2.Chunk(chunk_id=f"d#{n}", metadata_json="{}")
                for n in range(request.offset, min(end, 5))
            ],
            next_offset=end if end < 5 else 0,
        )


async def _serve(name: str, register: Any) -> Server:
    server = Server(
        Service(f"raglan.v1.{name}Service", register),
        GrpcSettings(shutdown_drain_s=0, shutdown_grace_s=0),
    )
    await server.start()
    return server


@pytest.fixture
async def ingester() -> Ingester:
    return Ingester()


@pytest.fixture
async def gateway(ingester: Ingester) -> AsyncIterator[httpx.AsyncClient]:
    retriever = Retriever(ingester)
    servers = {
        "ingester": await _serve(
            "Ingester",
            lambda s: ingester_pb2_grpc.add_IngesterServiceServicer_to_server(ingester, s),
        ),
        "retriever": await _serve(
            "Retriever",
            lambda s: retriever_pb2_grpc.add_RetrieverServiceServicer_to_server(retriever, s),
        ),
    }
    addresses = {
        f"{name}_address": f"127.0.0.1:{servers[name].port if name in servers else 1}"
        for name in ("embedder", "retriever", "reranker", "generator", "ingester")
    }
    app = build(GatewaySettings(**addresses))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app), base_url="http://127.0.0.1"
        ) as client,
    ):
        yield client
    for server in servers.values():
        await server.stop()


async def test_text_and_chunks_are_put_together(gateway: httpx.AsyncClient) -> None:
    found = (await gateway.get("/v1/collections/c/documents/d")).json()
    assert found["text"] == "a" * 2_500
    assert [chunk["chunk_id"] for chunk in found["chunks"]] == [f"d#{n}" for n in range(5)]


async def test_versions_are_not_mixed(gateway: httpx.AsyncClient, ingester: Ingester) -> None:
    ingester.versions = ["a" * 2_500, "b" * 1_500]
    found = (await gateway.get("/v1/collections/c/documents/d")).json()
    assert found["text"] == "b" * 1_500


async def test_what_is_submitted_while_a_collection_is_deleted_goes_with_it(
    gateway: httpx.AsyncClient, ingester: Ingester
) -> None:
    assert (await gateway.delete("/v1/collections/c")).status_code == 200
    assert ingester.submitted == []
