"""`/v1/sources` against an ingester on the wire."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from raglan.rpc.server import Server, Service
from raglan.settings import GrpcSettings
from raglan.v1 import ingester_pb2, ingester_pb2_grpc
from raglan_gateway import caller
from raglan_gateway.api import sources
from raglan_gateway.api.error_handlers import install_error_handlers
from raglan_gateway.mesh import Mesh
from raglan_gateway.settings import GatewaySettings

FILE_ERROR = "/etc/sources.yaml, line 2: this is not YAML."


class Ingester(ingester_pb2_grpc.IngesterServiceServicer):
    """Has two sources, of two collections, and notes which are to be synced."""

    def __init__(self) -> None:
        self.synced: list[tuple[str, bool]] = []
        self.sources = {
            name: ingester_pb2.Source(
                name=name,
                kind="folder",
                collection=name,
                status=ingester_pb2.SOURCE_STATUS_HELD,
                documents=12,
                held=7,
                skipped_reasons=["'loop' is a symbolic link."],
            )
            for name in ("handbook", "wiki")
        }
        self.sources["wiki"].next_at.FromMilliseconds(1_800_000_000_000)

    async def ListSources(self, request: Any, context: Any) -> Any:
        found = [s for name, s in self.sources.items() if request.source in ("", name)]
        return ingester_pb2.ListSourcesResponse(sources=found, file_error=FILE_ERROR)

    async def SyncSource(self, request: Any, context: Any) -> Any:
        self.synced.append((request.source, request.accept_deletions))
        return self.sources[request.source]


@pytest.fixture
async def ingester() -> Ingester:
    return Ingester()


@pytest.fixture
async def gateway(ingester: Ingester) -> AsyncIterator[httpx.AsyncClient]:
    service = Server(
        Service(
            "raglan.v1.IngesterService",
            lambda s: ingester_pb2_grpc.add_IngesterServiceServicer_to_server(ingester, s),
        ),
        GrpcSettings(shutdown_drain_s=0, shutdown_grace_s=0),
    )
    await service.start()
    mesh = Mesh(GatewaySettings(ingester_address=f"127.0.0.1:{service.port}"))
    app = FastAPI()
    install_error_handlers(app)
    app.include_router(sources.router(mesh))
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client
    await mesh.close()
    await service.stop()


async def test_sources_are_listed_with_their_state(gateway: httpx.AsyncClient) -> None:
    found = (await gateway.get("/v1/sources")).json()
    assert found["file_error"] == FILE_ERROR
    handbook, wiki = found["sources"]
    assert (handbook["name"], handbook["status"], handbook["next_at"]) == ("handbook", "held", None)
    assert wiki["next_at"] == "2027-01-15T08:00:00Z"
    assert wiki["last_sync"]["held"] == 7
    assert wiki["skipped_reasons"] == ["'loop' is a symbolic link."]
    assert (await gateway.get("/v1/sources/wiki")).json() == wiki


async def test_a_sync_is_asked_for(gateway: httpx.AsyncClient, ingester: Ingester) -> None:
    assert (await gateway.post("/v1/sources/wiki/sync")).status_code == 202
    await gateway.post("/v1/sources/wiki/sync?accept_deletions=true")
    assert ingester.synced == [("wiki", False), ("wiki", True)]


@pytest.mark.parametrize("name", ["other", "..", "a%2Fb", "A"])
async def test_no_other_name_reaches_a_sync(
    gateway: httpx.AsyncClient, ingester: Ingester, name: str
) -> None:
    assert (await gateway.post(f"/v1/sources/{name}/sync")).status_code in (404, 422)
    assert ingester.synced == []


async def test_a_key_of_one_collection_sees_its_sources_only(
    gateway: httpx.AsyncClient, ingester: Ingester
) -> None:
    caller.use(caller.Caller("k", collections=("wiki",)))
    found = (await gateway.get("/v1/sources")).json()
    assert [each["name"] for each in found["sources"]] == ["wiki"]
    assert found["file_error"] == ""
    assert (await gateway.get("/v1/sources/handbook")).status_code == 404
    assert (await gateway.post("/v1/sources/handbook/sync")).status_code == 404
    assert ingester.synced == []
