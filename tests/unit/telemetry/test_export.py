"""Spans to a collector: one that takes them, one that hangs, one that is not there."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import ports
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client import CollectorRegistry
from raglan import settings as raglan_settings
from raglan.settings import GrpcSettings, SettingsError
from raglan.telemetry import span_metrics, tracing, variables
from raglan.telemetry.export import CollectorExport


class Collector(ThreadingHTTPServer):
    """Takes spans in; while `hold` is unset, requests hang."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.names: list[str] = []
        self.hold = threading.Event()
        self.hold.set()
        self.asked = threading.Event()
        self.status = 200


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.asked.set()
        self.server.hold.wait(20)
        if self.path == "/v1/traces" and self.server.status == 200:
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    self.server.names += [span.name for span in scope.spans]
        self.send_response(self.server.status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    server = Collector()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.hold.set()
    server.shutdown()
    server.server_close()
    thread.join(5)


def exporting(monkeypatch: pytest.MonkeyPatch, port: int, **more: str) -> tracing.Tracing:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    for name, value in more.items():
        monkeypatch.setenv(name, value)
    return tracing.install("test")


def make(count: int) -> None:
    for number in range(count):
        tracing.begin(f"step {number}", {"a": 1}, parent=None).end()


def force_flush(traces: tracing.Tracing) -> None:
    assert traces.export is not None
    assert traces.export.force_flush()


def until(condition: Callable[[], bool], what: str) -> None:
    ends_at = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < ends_at, what
        time.sleep(0.01)


def test_every_span_goes_to_the_collector_that_the_variable_names(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    traces = exporting(monkeypatch, collector.server_port)
    make(100)
    traces.close()
    assert sorted(collector.names) == sorted(f"step {number}" for number in range(100))
    assert (traces.export.exported, traces.export.dropped) == (100, 0)


def test_a_collector_that_hangs_costs_a_bounded_queue_and_no_time(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    collector.hold.clear()
    traces = exporting(monkeypatch, collector.server_port)
    make(600)
    assert collector.asked.wait(5)
    make(20_000)
    export = traces.export
    assert export.waiting <= 8_192
    assert export.dropped >= 20_600 - 8_192 - 600
    began = time.monotonic()
    traces.close()
    assert time.monotonic() - began < 4, "the end waited for it"
    collector.hold.set()
    for thread in threading.enumerate():
        if thread.name.startswith("OtelBatch"):
            thread.join(5)
            assert not thread.is_alive(), "it goes on sending"


def test_what_became_of_the_spans_is_a_metric(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = CollectorRegistry()
    span_metrics.register(registry)
    collector.status = 400
    traces = exporting(monkeypatch, collector.server_port)
    make(3)
    force_flush(traces)
    collector.status = 200
    make(2)
    force_flush(traces)
    read = registry.get_sample_value
    shown = (
        read("raglan_recent_spans"),
        read("raglan_spans_exported_total"),
        read("raglan_spans_dropped_total", {"reason": "collector"}),
        read("raglan_spans_dropped_total", {"reason": "crowded"}),
    )
    traces.close()
    assert shown == (5, 2, 3, 0)


def test_spans_that_a_collector_refuses_are_dropped_and_counted(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    collector.status = 400
    traces = exporting(monkeypatch, collector.server_port)
    make(10)
    force_flush(traces)
    assert (traces.export.exported, traces.export.dropped) == (0, 10)
    collector.status = 200
    make(5)
    traces.close()
    assert (traces.export.exported, traces.export.dropped) == (5, 10)


def test_a_collector_that_is_not_there_fails_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    traces = exporting(monkeypatch, ports.free_port(), OTEL_EXPORTER_OTLP_TIMEOUT="0.2")
    make(10)
    traces.close()
    until(lambda: traces.export.dropped == 10, "they were counted")


def test_without_the_variable_nothing_is_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in variables.ENDPOINTS:
        monkeypatch.delenv(name, raising=False)
    traces = tracing.install("test")
    assert traces.export is None
    traces.close()


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318", "'collector:4318'; give a URL such as"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://", "give a URL"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:99999", "give a URL"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "ftp://u:hunter2@c", "'c'; give a URL"),
        ("RAGLAN_TRACE_CONTENT", "perhaps", "RAGLAN_TRACE_CONTENT is 'perhaps'; give 1"),
        ("RAGLAN_TRACE_SPANS", "many", "RAGLAN_TRACE_SPANS is 'many'; give a number"),
        ("RAGLAN_TRACE_SPANS", "0", "RAGLAN_TRACE_SPANS is '0'; give a number"),
    ],
)
def test_a_variable_that_cannot_be_meant_ends_the_start_with_a_sentence(
    name: str, value: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        raglan_settings.load(GrpcSettings)
    assert sentence in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_protocol_that_is_not_spoken_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with pytest.raises(SettingsError, match="'grpc'; spans are sent as http/protobuf"):
        raglan_settings.load(GrpcSettings)


def test_a_queue_that_is_full_refuses_what_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    held = threading.Event()

    class Hanging:
        def export(self, spans: Any) -> Any:
            held.wait(10)

        def shutdown(self) -> None:
            held.set()

        def force_flush(self, timeout_millis: int = 0) -> bool:
            return True

    export = CollectorExport(Hanging(), max_waiting=16)  # type: ignore[arg-type]
    traces = tracing.install("test")
    span: Any = tracing.begin("step", parent=None)
    span.end()
    for _ in range(100):
        export.on_end(span)
    assert export.dropped + export.waiting <= 100
    assert export.waiting <= 16
    held.set()
    export.shutdown()
    traces.close()
