"""How a gRPC service ends, and how it begins when something else is not there yet."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from raglan.deadline import Deadline
from raglan.errors import Unavailable
from raglan.rpc import client
from raglan.rpc.server import Server, Service
from raglan.settings import GrpcSettings
from raglan.v1 import common_pb2, generator_pb2, generator_pb2_grpc

LIMIT_S = 90
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SENTENCE = "The generator is shutting down; try again."


class Servicer(generator_pb2_grpc.GeneratorServiceServicer):
    """Answers in pieces until released."""

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.called = asyncio.Event()
        self.pause_s = 0.01

    async def Generate(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.called.set()
        while not self.release.is_set():
            yield generator_pb2.GenerateEvent(delta=generator_pb2.Delta(text="a"))
            await asyncio.sleep(self.pause_s)
        yield generator_pb2.GenerateEvent(delta=generator_pb2.Delta(text="the end"))

    async def GetInfo(self, request: Any, context: Any) -> Any:
        self.called.set()
        await self.release.wait()
        return common_pb2.ServiceInfo(pid=7)


async def ready() -> None:
    return None


@asynccontextmanager
async def running(
    grace_s: float, start: Callable[[], Awaitable[None]] = ready
) -> AsyncIterator[tuple[Server, Servicer, grpc.aio.Channel]]:
    servicer = Servicer()
    service = Service(
        name="raglan.v1.GeneratorService",
        register=lambda s: generator_pb2_grpc.add_GeneratorServiceServicer_to_server(servicer, s),
        start=start,
    )
    server = Server(service, GrpcSettings(shutdown_drain_s=0, shutdown_grace_s=grace_s))
    starting = asyncio.create_task(server.start())
    while not server.port:
        await asyncio.sleep(0)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield server, servicer, channel
        servicer.release.set()
        await starting
        await server.stop()


async def followed(channel: grpc.aio.Channel) -> list[str]:
    stub = generator_pb2_grpc.GeneratorServiceStub(channel)
    request = generator_pb2.GenerateRequest(question="?")
    texts = []
    async with aclosing(
        client.stream(stub.Generate, request, deadline=Deadline.after(LIMIT_S))
    ) as replies:
        async for reply in replies:
            texts.append(reply.delta.text)
    return texts


async def watched(channel: grpc.aio.Channel) -> AsyncIterator[int]:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    async for reply in stub.Watch(health_pb2.HealthCheckRequest()):
        yield reply.status


async def test_a_stream_that_ends_within_the_grace_is_whole() -> None:
    async with running(grace_s=5) as (server, servicer, channel):
        following = asyncio.create_task(followed(channel))
        await servicer.called.wait()
        stopping = asyncio.create_task(server.stop())
        await asyncio.sleep(0.1)
        assert not following.done()
        servicer.release.set()
        assert (await following)[-1] == "the end"
        await asyncio.wait_for(stopping, 1)


@pytest.mark.parametrize("pause_s", [0, 0.01, 5])
async def test_a_stream_that_outlasts_the_grace_ends_in_our_sentence(pause_s: float) -> None:
    """Also one that gRPC is sending a message of in that moment."""
    async with running(grace_s=0.2) as (server, servicer, channel):
        servicer.pause_s = pause_s
        following = asyncio.create_task(followed(channel))
        await servicer.called.wait()
        stopping = asyncio.create_task(server.stop())
        with pytest.raises(Unavailable) as caught:
            await following
        await stopping
    assert caught.value.message == SENTENCE
    assert caught.value.retry_after_s == 1


async def test_a_call_that_outlasts_the_grace_ends_in_our_sentence() -> None:
    async with running(grace_s=0.2) as (server, servicer, channel):
        stub = generator_pb2_grpc.GeneratorServiceStub(channel)
        request = common_pb2.GetInfoRequest()
        call = client.call(stub.GetInfo, request, deadline=Deadline.after(LIMIT_S))
        calling = asyncio.create_task(call)
        await servicer.called.wait()
        stopping = asyncio.create_task(server.stop())
        with pytest.raises(Unavailable) as caught:
            await calling
        await stopping
    assert caught.value.message == SENTENCE


async def test_who_only_watches_health_does_not_hold_up_the_end() -> None:
    async with running(grace_s=30) as (server, _, channel):
        seen = watched(channel)
        assert await anext(seen) == SERVING
        stopping = asyncio.create_task(server.stop())
        assert await anext(seen) == NOT_SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await anext(seen)
        await asyncio.wait_for(stopping, 5)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_watcher_hears_of_a_change_after_another_has_left() -> None:
    async with running(grace_s=0) as (server, _, channel):
        staying = watched(channel)
        assert await anext(staying) == SERVING
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as other:
            leaving = watched(other)
            assert await anext(leaving) == SERVING
        await asyncio.sleep(0.1)
        stopping = asyncio.create_task(server.stop())
        assert await asyncio.wait_for(anext(staying), 5) == NOT_SERVING
        await stopping


async def test_health_of_an_unknown_service_is_not_found() -> None:
    async with running(grace_s=0) as (_, _, channel):
        stub: Any = health_pb2_grpc.HealthStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Check(health_pb2.HealthCheckRequest(service="x"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_service_that_lacks_another_begins_late_not_never() -> None:
    tries = 0

    async def start() -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise Unavailable("Qdrant cannot be reached.", retry_after_s=0.05)

    async with running(grace_s=0, start=start) as (_, _, channel):
        seen = watched(channel)
        assert await anext(seen) == NOT_SERVING
        assert await asyncio.wait_for(anext(seen), LIMIT_S) == SERVING
    assert tries == 3


async def test_a_start_that_can_never_succeed_is_not_repeated() -> None:
    async def start() -> None:
        raise Unavailable("The model 'x' is not on this machine.")

    service = Service("raglan.v1.GeneratorService", lambda _: None, start=start)
    server = Server(service, GrpcSettings(shutdown_drain_s=0, shutdown_grace_s=0))
    with pytest.raises(Unavailable, match="is not on this machine"):
        await server.start()
    await server.stop()


PROGRAM = """
import asyncio, pathlib, sys, threading
from raglan.rpc.server import Service, serve
from raglan.settings import GrpcSettings

async def start():
    pathlib.Path(sys.argv[2]).touch()
    if sys.argv[1] == "stuck":
        await asyncio.to_thread(threading.Event().wait)

async def close():
    if sys.argv[1] == "slow end":
        pathlib.Path(sys.argv[2]).unlink()
        await asyncio.sleep(600)

def build(settings):
    return Service("raglan.v1.Fake", lambda _: None, start=start, close=close)

class FakeSettings(GrpcSettings, env_prefix="RAGLAN_FAKE_"):
    shutdown_drain_s: float = 0
    shutdown_grace_s: float = 0

serve(build, FakeSettings)
"""


def until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_the_middle_of_a_start_ends_it_at_once(number: int, tmp_path: Path) -> None:
    """Even while a thread that cannot be stopped still loads something."""
    begun = tmp_path / "begun"
    command = [sys.executable, "-c", PROGRAM, "stuck", str(begun)]
    with subprocess.Popen(command, env=os.environ) as process:
        until(begun.exists, "the start has begun")
        process.send_signal(number)
        assert process.wait(LIMIT_S) == 0


def test_a_second_signal_ends_it_whatever_it_waits_for(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    with subprocess.Popen([sys.executable, "-c", PROGRAM, "slow end", str(begun)]) as process:
        until(begun.exists, "it runs")
        process.send_signal(signal.SIGTERM)
        until(lambda: not begun.exists() or process.poll() is not None, "it ends")
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT_S) == -signal.SIGTERM
