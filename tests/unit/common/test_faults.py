"""Faults on demand, over a real server on loopback."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from raglan.rpc import faults
from raglan.rpc.server import Server, Service
from raglan.settings import GrpcSettings
from raglan.v1 import (
    common_pb2,
    generator_pb2,
    generator_pb2_grpc,
    ingester_pb2,
    ingester_pb2_grpc,
)
from structlog.testing import capture_logs

ASKED = generator_pb2.GenerateRequest()
Set = Callable[[dict[str, object]], None]


class Servicer(generator_pb2_grpc.GeneratorServiceServicer):
    """Ten messages a stream; counts what reaches it."""

    def __init__(self) -> None:
        self.calls = 0
        self.left_early = asyncio.Event()

    async def GetInfo(self, request, context):  # type: ignore[no-untyped-def]
        self.calls += 1
        return common_pb2.ServiceInfo(device="cpu")

    async def Generate(self, request, context):  # type: ignore[no-untyped-def]
        self.calls += 1
        try:
            for number in range(10):
                yield generator_pb2.GenerateEvent(delta=generator_pb2.Delta(text=str(number)))
            await asyncio.sleep(30 if request.question == "slow end" else 0)
        except (asyncio.CancelledError, GeneratorExit):
            self.left_early.set()
            raise


@pytest.fixture
async def servicer() -> Servicer:
    return Servicer()


@pytest.fixture
async def port(servicer: Servicer) -> AsyncIterator[int]:
    service = Service(
        name="raglan.v1.GeneratorService",
        register=lambda s: generator_pb2_grpc.add_GeneratorServiceServicer_to_server(servicer, s),
    )
    server = Server(service, GrpcSettings(shutdown_drain_s=0, shutdown_grace_s=0.1))
    await server.start()
    yield server.port
    await server.stop()


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[grpc.aio.Channel]:
    address = f"127.0.0.1:{port}"
    channel = grpc.aio.insecure_channel(
        address, interceptors=faults.interceptors("generator", address)
    )
    async with channel:
        yield channel


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch) -> Set:
    """Sets RAGLAN_FAULTS, the generator's part of it."""

    def put(fault: dict[str, object]) -> None:
        monkeypatch.setenv("RAGLAN_FAULTS", json.dumps({"generator": fault, "seed": 3}))

    return put


async def info(channel: grpc.aio.Channel, timeout_s: float | None = 5) -> str:
    stub = generator_pb2_grpc.GeneratorServiceStub(channel)
    return str((await stub.GetInfo(common_pb2.GetInfoRequest(), timeout=timeout_s)).device)


async def status(channel: grpc.aio.Channel, timeout_s: float | None = 5) -> str:
    """The name of the status that a call ends with."""
    try:
        await info(channel, timeout_s)
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return "OK"


def test_without_the_variable_a_channel_has_no_interceptors() -> None:
    assert "RAGLAN_FAULTS" not in os.environ
    assert faults.interceptors("generator", "127.0.0.1:1") == []


def test_that_faults_are_on_is_said_once_and_loudly(plan: Set) -> None:
    plan({"latency_ms": 12.5})
    with capture_logs() as logs:
        faults.interceptors("generator", "127.0.0.1:1")
        faults.interceptors("generator", "127.0.0.1:2")
    (line,) = logs
    assert (line["log_level"], line["seed"]) == ("warning", 3)
    assert "RAGLAN_FAULTS is ON" in line["event"]
    assert line["faults"] == {"generator": {"latency_ms": 12.5}}


async def test_latency_comes_before_the_call_and_off_its_deadline(
    port: int, servicer: Servicer, plan: Set
) -> None:
    plan({"latency_ms": 200})
    async with connected(port) as channel:
        begun = time.monotonic()
        assert await info(channel) == "cpu"
        assert time.monotonic() - begun >= 0.2
        assert await status(channel, timeout_s=0.1) == "DEADLINE_EXCEEDED"
    assert servicer.calls == 1


async def test_an_error_is_answered_in_the_service_s_place(
    port: int, servicer: Servicer, plan: Set
) -> None:
    plan({"error": "UNAVAILABLE"})
    async with connected(port) as channel:
        assert await status(channel) == "UNAVAILABLE"
        stub = generator_pb2_grpc.GeneratorServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError, match="RAGLAN_FAULTS"):
            async for _ in stub.Generate(ASKED, timeout=5):
                raise AssertionError
    assert servicer.calls == 0


async def test_a_stalled_call_holds_until_its_deadline(
    port: int, servicer: Servicer, plan: Set
) -> None:
    plan({"stall": True})
    async with connected(port) as channel:
        begun = time.monotonic()
        assert await status(channel, timeout_s=0.2) == "DEADLINE_EXCEEDED"
        assert time.monotonic() - begun >= 0.19
    assert servicer.calls == 0


async def test_a_stalled_call_ends_when_it_is_cancelled(port: int, plan: Set) -> None:
    plan({"stall": True})
    async with connected(port) as channel:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await info(channel, timeout_s=None)
        stub = generator_pb2_grpc.GeneratorServiceStub(channel)
        replies = stub.Generate(ASKED, timeout=30)
        asyncio.get_running_loop().call_later(0.1, replies.cancel)
        with pytest.raises(asyncio.CancelledError):
            async for _ in replies:
                raise AssertionError


@pytest.mark.parametrize("after", [0, 1, 5, 10])
async def test_a_cut_stream_gives_so_many_messages_and_breaks(
    after: int, port: int, plan: Set
) -> None:
    plan({"cut_after": after})
    seen: list[str] = []
    async with connected(port) as channel:
        stub = generator_pb2_grpc.GeneratorServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as broken:
            async for event in stub.Generate(ASKED, timeout=5):
                seen.append(event.delta.text)
    assert broken.value.code() is grpc.StatusCode.UNAVAILABLE
    assert seen == [str(number) for number in range(after)]


async def test_the_service_learns_that_its_stream_was_cut(
    port: int, servicer: Servicer, plan: Set
) -> None:
    plan({"cut_after": 3})
    async with connected(port) as channel:
        stub = generator_pb2_grpc.GeneratorServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError):
            async for _ in stub.Generate(
                generator_pb2.GenerateRequest(question="slow end"), timeout=30
            ):
                pass
        async with asyncio.timeout(30):
            await servicer.left_early.wait()


async def test_a_stream_shorter_than_the_cut_ends_well(port: int, plan: Set) -> None:
    plan({"cut_after": 11})
    async with connected(port) as channel:
        stub = generator_pb2_grpc.GeneratorServiceStub(channel)
        assert len([event async for event in stub.Generate(ASKED, timeout=5)]) == 10


class Uploads(ingester_pb2_grpc.IngesterServiceServicer):
    """Counts the messages of an upload."""

    async def Submit(self, requests, context):  # type: ignore[no-untyped-def]
        return ingester_pb2.Job(id=str(len([request async for request in requests])))


async def upload(plan: Set, fault: dict[str, object] | None, timeout_s: float = 5) -> str:
    """The status of an upload of three messages, or how many of them arrived."""
    service = Service(
        name="raglan.v1.IngesterService",
        register=lambda s: ingester_pb2_grpc.add_IngesterServiceServicer_to_server(Uploads(), s),
    )
    server = Server(service, GrpcSettings(shutdown_drain_s=0, shutdown_grace_s=0.1))
    await server.start()

    async def messages() -> AsyncIterator[ingester_pb2.SubmitRequest]:
        for _ in range(3):
            yield ingester_pb2.SubmitRequest(data=b"text")

    if fault is not None:
        plan(fault)
    try:
        async with connected(server.port) as channel:
            stub = ingester_pb2_grpc.IngesterServiceStub(channel)
            return str((await stub.Submit(messages(), timeout=timeout_s)).id)
    except grpc.aio.AioRpcError as error:
        return error.code().name
    finally:
        await server.stop()


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        (None, "3"),
        ({"latency_ms": 1}, "3"),
        ({"error": "UNAVAILABLE"}, "UNAVAILABLE"),
        ({"stall": True}, "DEADLINE_EXCEEDED"),
    ],
)
async def test_uploads_meet_faults_like_any_call(
    plan: Set, fault: dict[str, object] | None, outcome: str
) -> None:
    assert await upload(plan, fault, timeout_s=0.3 if outcome == "DEADLINE_EXCEEDED" else 5) == (
        outcome
    )


async def test_the_percentage_is_kept_and_the_seed_repeats_it(port: int, plan: Set) -> None:
    plan({"error": "INTERNAL", "percent": 30})
    runs: list[list[str]] = []
    for _ in range(2):
        async with connected(port) as channel:
            runs.append([await status(channel) for _ in range(200)])
    assert runs[0] == runs[1]
    assert 40 <= runs[0].count("INTERNAL") <= 80
    assert set(runs[0]) == {"INTERNAL", "OK"}


async def test_health_checks_are_not_touched(port: int, plan: Set) -> None:
    plan({"error": "UNAVAILABLE"})
    async with connected(port) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        reply = await stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
    assert reply.status == health_pb2.HealthCheckResponse.SERVING


async def test_a_file_switches_faults_while_the_process_runs(
    port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "faults.json"
    path.write_text("{}")
    monkeypatch.setenv("RAGLAN_FAULTS", f"@{path}")
    async with connected(port) as channel:
        assert await status(channel) == "OK"
        path.write_text(f'{{"generator@127.0.0.1:{port}": {{"error": "ABORTED"}}}}')
        await until(channel, "ABORTED")
        path.write_text('{"half written')
        await asyncio.sleep(2 * faults._LOOK_EVERY_S)
        assert await status(channel) == "ABORTED"
        path.write_text("{}")
        await until(channel, "OK")


async def until(channel: grpc.aio.Channel, wanted: str) -> None:
    """Wait for a call to end with `wanted`."""
    async with asyncio.timeout(30):
        while await status(channel) != wanted:
            await asyncio.sleep(0.01)


def test_a_plan_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGLAN_FAULTS", "latency")
    with pytest.raises(ValueError, match="RAGLAN_FAULTS is no JSON"):
        faults.interceptors("generator", "127.0.0.1:1")
