"""The service as it is run, its engine behind gRPC."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
import ports
import psutil
import pytest
import pytest_asyncio
from answers import until
from grpc_health.v1 import health_pb2, health_pb2_grpc
from raglan.v1 import common_pb2, generator_pb2, generator_pb2_grpc

pytestmark = pytest.mark.asyncio(loop_scope="module")

TEXT = "Raglan pins devices. The reranker runs on the second GPU of the machine."
REQUEST = generator_pb2.GenerateRequest(
    question="Where does the reranker run?",
    passages=[common_pb2.Passage(text=TEXT, start=0, end=len(TEXT))],
    max_tokens=2_000,
)


@dataclass
class Running:
    """`python -m raglan_generator` with the tiny model."""

    process: asyncio.subprocess.Process
    channel: grpc.aio.Channel
    log: Path
    metrics_port: int

    def said(self) -> str:
        """Its log, for the message of a failure."""
        return self.log.read_text()

    @property
    def stub(self) -> generator_pb2_grpc.GeneratorServiceStub:
        return generator_pb2_grpc.GeneratorServiceStub(self.channel)

    async def metric(self, name: str) -> float:
        async with httpx.AsyncClient() as client:
            page = await client.get(f"http://127.0.0.1:{self.metrics_port}/metrics")
        found = re.search(rf"^{name} (\S+)$", page.text, re.MULTILINE)
        assert found, page.text
        return float(found[1])

    async def serving(self) -> bool:
        stub = health_pb2_grpc.HealthStub(self.channel)
        try:
            reply = await stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
        except grpc.aio.AioRpcError:
            return False
        return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)


@asynccontextmanager
async def started(model: Path, log: Path) -> AsyncIterator[Running]:
    """A process of its own, once it is SERVING; killed at the end of the block."""
    port, metrics_port = ports.free_port(), ports.free_port()
    settings = {
        "ENGINE": "vllm",
        "MODEL": str(model),
        "PORT": str(port),
        "METRICS_PORT": str(metrics_port),
        "DTYPE": "bfloat16",
        "ENFORCE_EAGER": "true",
    }
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "raglan_generator",
            env=os.environ
            | {f"RAGLAN_GENERATOR_{name}": value for name, value in settings.items()},
            stdout=output,
            stderr=output,
        )
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            running = Running(process, channel, log, metrics_port)
            async with asyncio.timeout(240):
                while not await running.serving():
                    assert process.returncode is None, running.said()
                    await asyncio.sleep(0.2)
            yield running
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(
    model_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Running]:
    """For all tests; the last of them ends it."""
    async with started(model_folder, tmp_path_factory.mktemp("service") / "log") as running:
        yield running


async def test_an_answer_streams_over_grpc_and_ends(service: Running) -> None:
    request = generator_pb2.GenerateRequest()
    request.CopyFrom(REQUEST)
    request.max_tokens = 50
    kinds = [
        event.WhichOneof("event") async for event in service.stub.Generate(request, timeout=30)
    ]
    assert kinds[0] == "delta"
    assert kinds[-1] == "finished"


async def test_a_client_that_leaves_frees_the_engine_within_half_a_second(
    service: Running,
) -> None:
    for _ in range(5):
        call = service.stub.Generate(REQUEST, timeout=60)
        await call.read()
        await until_metric(service, "raglan_generator_running", 1, within_s=5)
        call.cancel()
        await until_metric(service, "raglan_generator_running", 0, within_s=0.5)


async def test_the_service_names_its_engine(service: Running) -> None:
    info = await service.stub.GetInfo(common_pb2.GetInfoRequest(), timeout=5)
    assert info.engine == "vllm"
    assert info.limits["max_model_len"] == 4_096


async def test_a_service_that_is_told_to_stop_finishes_its_answers(service: Running) -> None:
    family = engine_of(service)
    request = generator_pb2.GenerateRequest()
    request.CopyFrom(REQUEST)
    request.max_tokens = 1_000
    kinds = []
    async for event in service.stub.Generate(request, timeout=60):
        if not kinds:
            service.process.terminate()
        kinds.append(event.WhichOneof("event"))
    assert kinds[-1] == "finished"
    async with asyncio.timeout(20):
        assert await service.process.wait() == 0, service.said()
    await until(lambda: not any(child.is_running() for child in family), "its engine is gone")


@pytest.mark.parametrize("victim", ["engine", "service"])
async def test_neither_outlives_the_other(model_folder: Path, tmp_path: Path, victim: str) -> None:
    async with started(model_folder, tmp_path / "log") as service:
        family = engine_of(service)
        if victim == "service":
            service.process.kill()
        else:
            next(child for child in family if "EngineCore" in child.name()).kill()
        async with asyncio.timeout(20):
            status = await service.process.wait()
        assert status == (-signal.SIGKILL if victim == "service" else 1)
        await until(lambda: not any(child.is_running() for child in family), "all of it is gone")


def engine_of(service: Running) -> list[psutil.Process]:
    """The engine's processes."""
    family = psutil.Process(service.process.pid).children(recursive=True)
    assert any("EngineCore" in child.name() for child in family), family
    return family


async def until_metric(service: Running, name: str, value: float, *, within_s: float) -> None:
    async with asyncio.timeout(within_s):
        while await service.metric(name) != value:
            await asyncio.sleep(0.01)
