"""A pool's view of its replicas' health."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
import structlog
from faults.black_hole import Proxy
from grpc_health.v1 import health_pb2, health_pb2_grpc
from raglan import errors
from raglan.deadline import Deadline
from raglan.rpc import client
from raglan.rpc.endpoint import Endpoint, Reach
from raglan.rpc.pool import EndpointPool
from raglan.rpc.server import Server, Service
from raglan.settings import GrpcSettings
from raglan.v1 import common_pb2, generator_pb2_grpc

LIMIT_S = 20


class Generator(generator_pb2_grpc.GeneratorServiceServicer):
    async def GetInfo(self, request: Any, context: Any) -> common_pb2.ServiceInfo:
        return common_pb2.ServiceInfo(service="generator")


class CutHealth(health_pb2_grpc.HealthServicer):
    """Says SERVING and ends the stream `lasts_s` later, as a proxy with a limit on streams does."""

    def __init__(self, lasts_s: float, ends: list[grpc.StatusCode]) -> None:
        self.lasts_s = lasts_s
        self.ends = itertools.cycle(ends)
        self.streams = 0

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.streams += 1
        yield health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)
        await asyncio.sleep(self.lasts_s)
        if (status := next(self.ends)) is not grpc.StatusCode.OK:
            await context.abort(status, "The stream has lasted too long.")


@asynccontextmanager
async def behind_a_proxy(
    health: health_pb2_grpc.HealthServicer, options: Sequence[tuple[str, int]] = ()
) -> AsyncIterator[str]:
    server = grpc.aio.server(options=options)
    generator_pb2_grpc.add_GeneratorServiceServicer_to_server(Generator(), server)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


@asynccontextmanager
async def pool_at(address: str) -> AsyncIterator[EndpointPool]:
    pool = EndpointPool("generator", address, generator_pb2_grpc.GeneratorServiceStub)
    try:
        yield pool
    finally:
        await pool.close()


async def serve(name: str, port: int = 0) -> Server:
    service = Service(
        name=name,
        register=lambda s: generator_pb2_grpc.add_GeneratorServiceServicer_to_server(
            Generator(), s
        ),
    )
    server = Server(service, GrpcSettings(port=port, shutdown_drain_s=0, shutdown_grace_s=0))
    await server.start()
    return server


async def ask(pool: EndpointPool) -> None:
    request = common_pb2.GetInfoRequest()
    await pool.call("GetInfo", request, deadline=Deadline.after(LIMIT_S), retry=False)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.mark.slow
@pytest.mark.parametrize("lasts_s", [0.0, 1.1], ids=["short", "long"])
@pytest.mark.parametrize("end", [grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE])
async def test_a_health_stream_that_ends_costs_no_call(
    lasts_s: float, end: grpc.StatusCode, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Reach] = []
    become = Endpoint._become

    def noted(endpoint: Endpoint, reach: Reach) -> None:
        seen.append(reach)
        become(endpoint, reach)

    monkeypatch.setattr(Endpoint, "_become", noted)
    health = CutHealth(lasts_s, [end])
    async with behind_a_proxy(health) as address, pool_at(address) as pool:
        while health.streams < 4:
            await ask(pool)
            await asyncio.sleep(0.001)
    assert set(seen) == {Reach.SERVING}


async def test_who_is_gone_is_noticed_by_asking_anew() -> None:
    server = await serve("raglan.v1.GeneratorService")
    async with pool_at(f"127.0.0.1:{server.port}") as pool:
        await ask(pool)
        await server.stop()
        await until(lambda: pool.replicas.all[0].reach is Reach.UNREACHABLE)


async def test_an_address_that_passed_to_another_service_is_not_called() -> None:
    before = await serve("raglan.v1.GeneratorService")
    async with pool_at(f"127.0.0.1:{before.port}") as pool:
        await ask(pool)
        await before.stop()
        other = await serve("raglan.v1.EmbedderService", before.port)
        with structlog.testing.capture_logs() as lines:
            await until(lambda: any(line["event"] == "another service answers" for line in lines))
            assert pool.replicas.all[0].reach is Reach.NOT_SERVING
            with pytest.raises(errors.Unavailable):
                await ask(pool)
        await other.stop()
        again = await serve("raglan.v1.GeneratorService", before.port)
        await until(lambda: pool.replicas.all[0].reach is Reach.SERVING)
        await again.stop()


@pytest.mark.slow
async def test_a_peer_that_stops_after_a_long_silence_is_noticed_by_its_pings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With pings every second: by gRPC's default the fourth would leave a minute later."""
    quick = {
        "grpc.keepalive_time_ms": 1000,
        "grpc.keepalive_timeout_ms": 1000,
        "grpc.http2.ping_timeout_ms": 1000,
    }
    options = tuple((name, quick.get(name, value)) for name, value in client._OPTIONS)
    monkeypatch.setattr(client, "_OPTIONS", options)
    allowed = [("grpc.http2.min_ping_interval_without_data_ms", 100)]
    async with behind_a_proxy(CutHealth(3600, [grpc.StatusCode.OK]), allowed) as address:
        proxy = Proxy(int(address.rpartition(":")[2]))
        listening = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
        async with pool_at(f"127.0.0.1:{port}") as pool:
            await until(lambda: pool.replicas.all[0].reach is Reach.SERVING)
            await asyncio.sleep(5)
            assert pool.replicas.all[0].reach is Reach.SERVING
            proxy.swallow()
            await until(lambda: pool.replicas.all[0].reach is Reach.UNREACHABLE)
        proxy.forward()
        listening.close()


async def test_the_watcher_survives_a_log_that_cannot_be_written() -> None:
    """As on a full disk: once it is written again, the replica is known again."""
    is_full = True

    def write(*_: Any) -> Any:
        if is_full:
            raise OSError(28, "No space left on device")
        raise structlog.DropEvent

    server = await serve("raglan.v1.GeneratorService")
    structlog.configure(processors=[write])
    try:
        async with pool_at(f"127.0.0.1:{server.port}") as pool:
            await until(lambda: pool.replicas.all[0].reach is Reach.SERVING)
            server._health.set(serving=False)
            await until(lambda: pool.replicas.all[0].reach is Reach.NOT_SERVING)
            is_full = False
            server._health.set(serving=True)
            await until(lambda: pool.replicas.all[0].reach is Reach.SERVING)
            await ask(pool)
    finally:
        structlog.reset_defaults()
        await server.stop()
