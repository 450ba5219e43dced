"""`/startupz`: everything has been up once."""

from __future__ import annotations

import asyncio

import httpx
from raglan.rpc.server import Server, Service
from raglan.settings import GrpcSettings
from raglan_gateway.app import build
from raglan_gateway.settings import GatewaySettings

NAMES = ("embedder", "retriever", "reranker", "generator", "ingester")


async def serve(name: str) -> Server:
    service = Service(name=f"raglan.v1.{name.capitalize()}Service", register=lambda _: None)
    server = Server(service, GrpcSettings(shutdown_drain_s=0, shutdown_grace_s=0))
    await server.start()
    return server


async def test_startup_is_over_once_every_service_was_up_and_stays_over() -> None:
    servers = {name: await serve(name) for name in NAMES}
    for name in NAMES[1:]:
        servers[name]._health.set(serving=False)
    addresses = {f"{name}_address": f"127.0.0.1:{servers[name].port}" for name in NAMES}
    app = build(GatewaySettings(**addresses, default_collection=""))
    transport = httpx.ASGITransport(app=app)
    async with (
        asyncio.timeout(30),
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client,
    ):
        while (started := await client.get("/startupz")).json()["waiting_for"] != list(NAMES[1:]):
            await asyncio.sleep(0.01)
        assert started.status_code == 503
        for name in NAMES[1:]:
            servers[name]._health.set(serving=True)
        while (await client.get("/startupz")).status_code != 200:
            await asyncio.sleep(0.01)
        for server in servers.values():
            await server.stop()
        while (await client.get("/readyz")).status_code != 503:
            await asyncio.sleep(0.01)
        assert (await client.get("/startupz")).json() == {"started": True, "waiting_for": []}
