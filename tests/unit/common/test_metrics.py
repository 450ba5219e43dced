"""What every process shows of itself: formats, exemplars, calls, state, GPUs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from urllib.request import Request, urlopen

import grpc
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as text_format
from raglan.deadline import Deadline
from raglan.errors import NotFound
from raglan.health import Health
from raglan.rpc import client
from raglan.rpc.server import Server, Service
from raglan.settings import GrpcSettings
from raglan.telemetry import context, gpu
from raglan.telemetry import metrics as under_test
from raglan.telemetry.metrics import Durations, Endpoint, OnLoop
from raglan.v1 import common_pb2, embedder_pb2_grpc

OPEN_METRICS = "application/openmetrics-text; version=1.0.0"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def endpoint(registry: CollectorRegistry) -> Iterator[Endpoint]:
    endpoint = Endpoint(registry, "127.0.0.1", 0)
    endpoint.start()
    yield endpoint
    endpoint.stop()


def scraped(port: int, accept: str = "") -> tuple[str, str]:
    """(content type, text)."""
    request = Request(f"http://127.0.0.1:{port}/metrics", headers={"Accept": accept})
    with urlopen(request, timeout=5) as reply:
        return reply.headers["Content-Type"], reply.read().decode()


def exemplars(text: str) -> list[tuple[str, float]]:
    """(trace id, value) of each bucket that has one."""
    return [
        (sample.exemplar.labels["trace_id"], sample.exemplar.value)
        for family in open_metrics(text)
        for sample in family.samples
        if sample.exemplar
    ]


# --- Histograms of durations ----------------------------------------------------------------------


def test_openmetrics_has_exemplars_with_the_trace_id(
    registry: CollectorRegistry, endpoint: Endpoint
) -> None:
    """A scrape that asks for openmetrics gets exemplars with the trace id."""
    durations = Durations("raglan_work_seconds", "Work.", ("kind",), registry)
    with context.incoming(CALLER):
        durations.observe(0.3, "a")
    kind, text = scraped(endpoint.port, OPEN_METRICS)
    assert kind.startswith("application/openmetrics-text")
    assert exemplars(text) == [(TRACE, 0.3)]


def test_a_scrape_that_asks_for_nothing_gets_the_text_format(
    registry: CollectorRegistry, endpoint: Endpoint
) -> None:
    durations = Durations("raglan_work_seconds", "Work.", (), registry)
    with context.incoming(CALLER):
        durations.observe(0.3)
    kind, text = scraped(endpoint.port)
    assert kind.startswith("text/plain")
    (family,) = text_format(text)
    assert "trace_id" not in text
    assert family.samples[-2].value == 1


def test_outside_of_a_request_there_is_no_exemplar(
    registry: CollectorRegistry, endpoint: Endpoint
) -> None:
    Durations("raglan_work_seconds", "Work.", (), registry).observe(0.3)
    assert exemplars(scraped(endpoint.port, OPEN_METRICS)[1]) == []


def test_each_bucket_keeps_its_own_exemplar(
    registry: CollectorRegistry, endpoint: Endpoint
) -> None:
    """A bucket keeps its exemplar for a while and the rare slow one gets its own."""
    durations = Durations("raglan_work_seconds", "Work.", (), registry)
    for seconds in (0.3, 0.4, 30.0):
        with context.incoming(CALLER):
            durations.observe(seconds)
    assert exemplars(scraped(endpoint.port, OPEN_METRICS)[1]) == [(TRACE, 0.3), (TRACE, 30.0)]


def test_a_later_exemplar_replaces_the_earlier(
    registry: CollectorRegistry, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    durations = Durations("raglan_work_seconds", "Work.", (), registry)
    with context.incoming(CALLER):
        durations.observe(0.3)
        monkeypatch.setattr(under_test, "time", SimpleNamespace(monotonic=lambda: 1e12))
        durations.observe(0.4)
    assert exemplars(scraped(endpoint.port, OPEN_METRICS)[1]) == [(TRACE, 0.4)]


@pytest.mark.parametrize("seconds", [0.0, 0.0005, 119.0, 120.0, 1e6])
def test_every_duration_has_its_bucket(registry: CollectorRegistry, seconds: float) -> None:
    Durations("raglan_work_seconds", "Work.", (), registry).observe(seconds)
    inside = registry.get_sample_value("raglan_work_seconds_bucket", {"le": "120.0"})
    assert inside == (seconds <= 120)
    assert registry.get_sample_value("raglan_work_seconds_count") == 1


# --- What belongs to the event loop ---------------------------------------------------------------


async def test_state_of_the_loop_is_read_on_the_loop(
    registry: CollectorRegistry, endpoint: Endpoint
) -> None:
    def read() -> Iterator[GaugeMetricFamily]:
        running = asyncio.current_task() is not None
        yield GaugeMetricFamily("raglan_on_loop", "Whether it is.", value=running)

    registry.register(OnLoop(read))
    _, text = await asyncio.to_thread(scraped, endpoint.port)
    assert "raglan_on_loop 1.0" in text


def test_a_loop_that_is_gone_costs_its_series_and_nothing_else(
    registry: CollectorRegistry, endpoint: Endpoint
) -> None:
    async def register() -> None:
        family = GaugeMetricFamily("raglan_on_loop", "Never seen.", value=1)
        registry.register(OnLoop(lambda: [family]))

    asyncio.run(register())
    Durations("raglan_work_seconds", "Work.", (), registry)
    _, text = scraped(endpoint.port)
    assert "raglan_work_seconds" in text
    assert "raglan_on_loop" not in text


# --- A service ------------------------------------------------------------------------------------


LIMIT_S = 30


class Servicer(embedder_pb2_grpc.EmbedderServiceServicer):
    async def GetInfo(self, request: Any, context: Any) -> common_pb2.ServiceInfo:
        return common_pb2.ServiceInfo()

    async def Embed(self, request: Any, context: Any) -> Any:
        raise NotFound("There is nothing.")


class Served:
    """A service with its registry, and what it says of its health."""

    def __init__(self) -> None:
        self.health = Health.SERVING
        self.metrics = Endpoint(CollectorRegistry(), "127.0.0.1", 0)
        service = Service(
            name="raglan.v1.EmbedderService",
            register=lambda server: embedder_pb2_grpc.add_EmbedderServiceServicer_to_server(
                Servicer(), server
            ),
            health=lambda: self.health,
            metrics=self.metrics,
        )
        self.server = Server(service, GrpcSettings(port=0, shutdown_drain_s=0))

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"raglan_{name}", labels)

    async def until(self, value: float, name: str, **labels: str) -> None:
        """Wait for a value: a call is counted when it has ended here, a moment after its reply."""
        async with asyncio.timeout(LIMIT_S):
            while self.value(name, **labels) != value:
                await asyncio.sleep(0.01)

    def series(self) -> int:
        return sum(len(family.samples) for family in self.metrics.registry.collect())


@pytest.fixture
async def served() -> Any:
    served = Served()
    await served.server.start()
    yield served
    await served.server.stop()


@pytest.fixture
async def channel(served: Served) -> Any:
    async with client.connect(f"127.0.0.1:{served.server.port}") as channel:
        yield channel


async def test_calls_count_by_method_and_status(served: Served, channel: grpc.aio.Channel) -> None:
    stub: Any = embedder_pb2_grpc.EmbedderServiceStub(channel)
    for method in (stub.GetInfo, stub.Embed):
        with contextlib.suppress(NotFound):
            await client.call(method, common_pb2.GetInfoRequest(), deadline=Deadline.after(5))
    count = "rpc_server_duration_seconds_count"
    await served.until(1, count, method="EmbedderService/GetInfo", status="OK")
    await served.until(1, count, method="EmbedderService/Embed", status="NOT_FOUND")
    await served.until(0, "rpc_server_running", method="EmbedderService/Embed")


async def test_unknown_methods_share_one_series(served: Served, channel: grpc.aio.Channel) -> None:
    """Methods that do not exist are one series however many names they have."""

    async def call(method: str) -> None:
        with pytest.raises(grpc.aio.AioRpcError):
            await channel.unary_unary(method)(b"", timeout=5)

    count = "rpc_server_duration_seconds_count"
    await call("/raglan.v1.EmbedderService/Odd")
    await served.until(1, count, method="other", status="UNIMPLEMENTED")
    before = served.series()
    for number in range(50):
        await call(f"/raglan.v1.EmbedderService/Odd{number}")
        await call(f"/odd{number}.Service/Embed")
    await served.until(101, count, method="other", status="UNIMPLEMENTED")
    assert served.series() == before


async def test_a_service_without_progress_shows_as_stalled_until_there_is_some(
    served: Served,
) -> None:
    assert served.value("process_state", state="serving") == 1
    served.health = Health.STALLED
    await served.until(1, "process_state", state="stalled")
    assert served.value("process_state", state="serving") == 0
    served.health = Health.SERVING
    await served.until(1, "process_state", state="serving")


async def test_a_process_shows_build_memory_descriptors_and_loop_lag(
    served: Served,
) -> None:
    """A process shows its build memory descriptors and the lag of its loop."""
    info = next(f for f in served.metrics.registry.collect() if f.name == "raglan_build")
    assert info.samples[0].labels["service"] == "embedder"
    assert (served.value("process_resident_memory_bytes") or 0) > 1e6
    assert (served.value("process_open_fds") or 0) > 0
    async with asyncio.timeout(LIMIT_S):
        while not served.value("event_loop_lag_seconds_count"):
            await asyncio.sleep(0.01)


# --- GPUs -----------------------------------------------------------------------------------------


class Nvml:
    """Two GPUs; the second falls off the bus once `lost` is set."""

    class NVMLError(Exception):
        pass

    def __init__(self, *, driver: bool = True) -> None:
        self.driver = driver
        self.lost = False

    def nvmlInit(self) -> None:
        if not self.driver:
            raise self.NVMLError("no driver")

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetUUID(self, handle: int) -> str:
        return f"GPU-{handle}f00"

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> SimpleNamespace:
        if self.lost and handle == 1:
            raise self.NVMLError("lost")
        return SimpleNamespace(used=(handle + 1) * 10, total=100)

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> SimpleNamespace:
        return SimpleNamespace(gpu=50, memory=1)


def shown(nvml: Nvml, registry: CollectorRegistry, visible: str | None) -> list[str]:
    """The GPUs that a process with CUDA_VISIBLE_DEVICES set to `visible` shows."""
    environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    gpu.register(registry, environ, load=lambda: nvml)
    return [
        sample.labels["gpu"]
        for family in registry.collect()
        if family.name == "raglan_gpu_memory_used_bytes"
        for sample in family.samples
    ]


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, ["GPU-0f00", "GPU-1f00"]),
        ("1", ["GPU-1f00"]),
        ("1,0", ["GPU-1f00", "GPU-0f00"]),
        ("GPU-1", ["GPU-1f00"]),
        ("", []),
        ("-1", []),
        ("0,7,1", ["GPU-0f00"]),
    ],
)
def test_a_process_shows_the_gpus_that_it_may_use(
    registry: CollectorRegistry, visible: str | None, expected: list[str]
) -> None:
    assert shown(Nvml(), registry, visible) == expected


def test_memory_is_in_bytes_and_utilization_a_ratio(registry: CollectorRegistry) -> None:
    shown(Nvml(), registry, "1")
    labels = {"gpu": "GPU-1f00"}
    assert registry.get_sample_value("raglan_gpu_memory_used_bytes", labels) == 20
    assert registry.get_sample_value("raglan_gpu_memory_total_bytes", labels) == 100
    assert registry.get_sample_value("raglan_gpu_utilization_ratio", labels) == 0.5


def test_a_gpu_that_is_lost_costs_its_own_series(registry: CollectorRegistry) -> None:
    nvml = Nvml()
    nvml.lost = True
    assert shown(nvml, registry, None) == ["GPU-0f00"]


def test_without_driver_or_library_there_are_no_series_and_no_error(
    registry: CollectorRegistry,
) -> None:
    def missing() -> Any:
        raise ImportError("no pynvml")

    assert shown(Nvml(driver=False), registry, None) == []
    gpu.register(registry, {}, load=missing)
    assert list(registry.collect()) == []
