"""Stale answers after changes of the index, over a real retriever, ingester and Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from raglan.rpc.server import Server
from raglan_embedder.app import build as build_embedder
from raglan_embedder.settings import EmbedderSettings
from raglan_gateway.app import build as build_gateway
from raglan_gateway.settings import GatewaySettings
from raglan_ingester.app import build as build_ingester
from raglan_ingester.settings import IngesterSettings
from raglan_reranker.app import build as build_reranker
from raglan_reranker.settings import RerankerSettings
from raglan_retriever.app import build as build_retriever
from raglan_retriever.settings import RetrieverSettings

if TYPE_CHECKING:
    from conftest import RedisServer

pytestmark = pytest.mark.loop_stall_s(2.0)  # services start in this process

QUICK = {"shutdown_drain_s": 0, "shutdown_grace_s": 0}
ASK = {"query": "What is the limit of the gate?", "collections": ["c"]}
DOCUMENT = {"id": "gate", "text": "The limit of the gate is five metres."}
REPLACEMENT = {"id": "gate", "text": "The limit of the gate is nine metres."}
Gateway = Callable[..., Awaitable[httpx.AsyncClient]]


class Mesh:
    """Services on ports that stay the same, so that one can be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        self.addresses: dict[str, str] = {}
        self._folder = folder
        self._servers: dict[str, Server] = {}
        self._ports: dict[str, int] = {}

    async def start(self, name: str) -> None:
        port = self._ports.get(name, 0)
        service, settings = self._built(name, {"port": port, **QUICK})
        server = self._servers[name] = Server(service, settings)
        await server.start()
        self._ports[name] = server.port
        self.addresses[f"{name}_address"] = f"127.0.0.1:{server.port}"

    async def stop(self, name: str) -> None:
        await self._servers.pop(name).stop()

    async def stop_all(self) -> None:
        for name in reversed(list(self._servers)):
            await self.stop(name)

    def _built(self, name: str, common: dict[str, Any]) -> tuple[Any, Any]:
        settings: Any
        match name:
            case "embedder":
                settings = EmbedderSettings(engine="null", **common)
                return build_embedder(settings), settings
            case "reranker":
                settings = RerankerSettings(engine="null", **common)
                return build_reranker(settings), settings
            case "retriever":
                settings = RetrieverSettings(data_dir=self._folder / "index", **common)
                return build_retriever(settings), settings
            case _:
                settings = IngesterSettings(
                    data_dir=self._folder / "ingester",
                    worker_lease_s=1.5,
                    outage_patience_s=0.3,
                    embedder_address=self.addresses["embedder_address"],
                    retriever_address=self.addresses["retriever_address"],
                    **common,
                )
                return build_ingester(settings), settings


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow machine must not turn an ingester that knows into one that is away."""
    monkeypatch.setattr("raglan_gateway.mesh.REVISIONS_S", 10.0)


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    mesh = Mesh(tmp_path)
    for name in ("embedder", "reranker", "retriever", "ingester"):
        await mesh.start(name)
    yield mesh
    await mesh.stop_all()


@pytest.fixture
async def gateway(mesh: Mesh) -> AsyncIterator[Gateway]:
    """Makes one more gateway; the collection "c" holds a document once the first is there."""
    async with AsyncExitStack() as stack:

        async def open_one(redis: RedisServer | None = None) -> httpx.AsyncClient:
            app = build_gateway(
                GatewaySettings(
                    generator_address="127.0.0.1:1",
                    default_collection="",
                    **({"redis_url": redis.url} if redis else {}),
                    **mesh.addresses,
                )
            )
            await stack.enter_async_context(app.router.lifespan_context(app))
            transport = httpx.ASGITransport(app=app)
            client = httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=30)
            await stack.enter_async_context(client)
            made = await client.post("/v1/collections", json={"name": "c"})
            assert made.status_code == 201
            if (await client.get("/v1/collections/c")).json()["documents"] == 0:
                await upload(client, DOCUMENT)
            return client

        yield open_one


async def upload(client: httpx.AsyncClient, document: dict[str, str]) -> None:
    path = "/v1/collections/c/documents"
    job = (await client.post(path, json={"documents": [document]})).json()["job_id"]
    async with asyncio.timeout(60):
        while True:
            state = (await client.get(f"/v1/jobs/{job}")).json()
            if state["status"] not in ("queued", "running"):
                assert state["status"] == "succeeded", state
                return
            await asyncio.sleep(0.02)


async def texts(client: httpx.AsyncClient) -> list[str]:
    """Texts that a search finds; it must be answered as usual."""
    reply = await client.post("/v1/search", json=ASK)
    assert reply.status_code == 200, reply.text
    assert reply.json()["degraded"] == []
    return [passage["text"] for passage in reply.json()["passages"]]


async def stale(client: httpx.AsyncClient) -> list[str] | None:
    """Texts of a stale answer; None where the search is refused."""
    reply = await client.post("/v1/search", json=ASK)
    if reply.status_code == 503:
        return None
    *profile, degraded = reply.json()["degraded"]
    assert degraded["fallback"] == "cached_answer"
    # A gateway that was not asked before does not know the collection's profile either.
    assert [each["fallback"] for each in profile] in ([], ["default"])
    return [passage["text"] for passage in reply.json()["passages"]]


async def test_a_sentence_withdrawn_by_a_replacement_stays_away(
    mesh: Mesh, gateway: Gateway
) -> None:
    client = await gateway()
    assert await texts(client) == [DOCUMENT["text"]]
    await upload(client, REPLACEMENT)
    await mesh.stop("retriever")
    assert await stale(client) is None, "no search has told this gateway"


async def test_the_answer_after_a_replacement_is_kept(mesh: Mesh, gateway: Gateway) -> None:
    client = await gateway()
    await texts(client)
    await upload(client, REPLACEMENT)
    assert await texts(client) == [REPLACEMENT["text"]]
    await mesh.stop("retriever")
    assert await stale(client) == [REPLACEMENT["text"]]


async def test_a_second_gateway_hears_of_a_deletion_from_the_ingester(
    mesh: Mesh, gateway: Gateway
) -> None:
    one, other = await gateway(), await gateway()
    assert await texts(one) == await texts(other) == [DOCUMENT["text"]]
    assert (await one.delete("/v1/collections/c/documents/gate")).status_code == 200
    await mesh.stop("retriever")
    assert await stale(one) is None
    assert await stale(other) is None


async def test_a_second_gateway_hears_of_a_deletion_through_redis(
    mesh: Mesh, gateway: Gateway, redis_server: RedisServer
) -> None:
    one, other = await gateway(redis_server), await gateway(redis_server)
    assert await texts(one) == await texts(other) == [DOCUMENT["text"]]
    assert (await one.delete("/v1/collections/c/documents/gate")).status_code == 200
    await mesh.stop("retriever")
    await mesh.stop("ingester")
    assert await stale(one) is None
    assert await stale(other) is None


async def test_a_deleted_collection_stays_away(
    mesh: Mesh, gateway: Gateway, redis_server: RedisServer
) -> None:
    """Also where one of the same name was made anew."""
    one, other = await gateway(redis_server), await gateway(redis_server)
    assert await texts(one) == await texts(other) == [DOCUMENT["text"]]
    assert (await one.delete("/v1/collections/c")).status_code == 200
    assert (await one.post("/v1/collections", json={"name": "c"})).status_code == 201
    await mesh.stop("ingester")
    await mesh.stop("retriever")
    assert await stale(one) is None
    assert await stale(other) is None


async def test_the_first_answer_is_kept_with_redis(
    mesh: Mesh, gateway: Gateway, redis_server: RedisServer
) -> None:
    one, other = await gateway(redis_server), await gateway(redis_server)
    assert await texts(one) == [DOCUMENT["text"]]
    await mesh.stop("retriever")
    await mesh.stop("ingester")
    async with asyncio.timeout(10):
        while await stale(other) is None:
            await asyncio.sleep(0.05)
    assert await stale(other) == await stale(one) == [DOCUMENT["text"]]


async def test_a_deletion_while_the_retriever_is_away_is_honoured_and_finished(
    mesh: Mesh, gateway: Gateway
) -> None:
    one, other = await gateway(), await gateway()
    assert await texts(one) == await texts(other) == [DOCUMENT["text"]]
    await mesh.stop("retriever")
    assert await stale(other) == [DOCUMENT["text"]]
    assert (await one.delete("/v1/collections/c/documents/gate")).status_code == 503
    assert await stale(one) is None
    assert await stale(other) is None
    await mesh.start("retriever")
    async with asyncio.timeout(30):
        while (await one.get("/v1/collections/c")).json().get("chunks") != 0:
            await asyncio.sleep(0.1)
    assert await texts(one) == []


async def test_an_answer_outlives_a_restart_of_the_retriever(mesh: Mesh, gateway: Gateway) -> None:
    client = await gateway()
    assert await texts(client) == [DOCUMENT["text"]]
    await mesh.stop("retriever")
    await mesh.start("retriever")
    async with asyncio.timeout(30):
        while (await client.get("/v1/collections/c")).status_code != 200:
            await asyncio.sleep(0.05)
    await mesh.stop("retriever")
    assert await stale(client) == [DOCUMENT["text"]]
