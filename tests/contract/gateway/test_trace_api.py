"""`/v1/traces` and the reports of a gateway, over a tracer that really serves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import tracer_bench
from fastapi import FastAPI
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from raglan.rpc.pool import EndpointPool
from raglan.rpc.server import Server, Service
from raglan.telemetry import tracing
from raglan.v1 import traces_pb2, traces_pb2_grpc
from raglan_gateway.api import traces as routes
from raglan_gateway.api.error_handlers import install_error_handlers
from raglan_gateway.traces import reporter
from raglan_gateway.traces.reporter import TraceReporter
from raglan_tracer import pending, recorder
from raglan_tracer.servicer import TracerServicer
from raglan_tracer.settings import TracerSettings
from tracer_bench import LIMIT_S, Bench, span


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "TICK_S", 0.02)
    monkeypatch.setattr(pending, "FIRST_S", 0.02)
    monkeypatch.setattr(pending, "AGAIN_S", 0.02)
    monkeypatch.setattr(reporter, "EVERY_S", 0.02)


@pytest.fixture
def gateway() -> Iterator[None]:
    """This process makes spans as a gateway does."""
    installed = tracing.install("gateway")
    yield
    installed.close()


async def tracer(mesh: Bench, port: int = 0) -> Server:
    servicer = TracerServicer(mesh.traces, metrics_port=lambda: 0)
    service = Service(
        "raglan.v1.TracerService",
        lambda server: traces_pb2_grpc.add_TracerServiceServicer_to_server(servicer, server),
    )
    server = Server(service, TracerSettings(port=port, shutdown_drain_s=0, shutdown_grace_s=0))
    await server.start()
    return server


def client_of(pool: EndpointPool | None, reports: TraceReporter | None = None) -> httpx.AsyncClient:
    app = FastAPI()
    install_error_handlers(app)
    app.include_router(routes.router(pool, reports or TraceReporter(pool)))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://localhost")


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[tuple[Bench, httpx.AsyncClient]]:
    async with (
        tracer_bench.bench(**options) as mesh,
        reaching(mesh) as pool,
        client_of(pool) as client,
    ):
        yield mesh, client


@asynccontextmanager
async def reaching(mesh: Bench) -> AsyncIterator[EndpointPool]:
    server = await tracer(mesh)
    address = f"127.0.0.1:{server.port}"
    pool = EndpointPool("tracer", address, traces_pb2_grpc.TracerServiceStub)
    try:
        yield pool
    finally:
        await pool.close()
        await server.stop()


def ended(**facts: Any) -> traces_pb2.RequestOutcome:
    """A request that has ended, its span among those of this process."""
    root = tracing.begin("POST /v1/query", parent=None)
    tracing.end(root)
    trace_id = root.get_span_context().trace_id.to_bytes(16, "big")
    known: dict[str, Any] = {"route": "/v1/query", "status": 500, "elapsed_s": 0.1}
    return traces_pb2.RequestOutcome(trace_id=trace_id, **known | facts)


@pytest.mark.usefixtures("gateway")
async def test_an_outcome_that_is_kept_brings_the_gateways_spans() -> None:
    async with tracer_bench.bench() as mesh, reaching(mesh) as pool:
        reports = TraceReporter(pool)
        reports.start()
        kept, other = ended(), ended(status=200)
        mesh.embedder.spans.append(span(kept.trace_id, 2))
        for outcome in (kept, other):
            reports.record(outcome)
        found = await mesh.stored(kept.trace_id, spans=2)
        assert tracer_bench.names(found) == {"POST /v1/query", "step 2"}
        assert (found.summary.status, found.summary.route) == (500, "/v1/query")
        await reports.close()
        assert other.trace_id not in await mesh.traces.store.get([other.trace_id])


@pytest.mark.usefixtures("gateway")
async def test_a_gateway_that_ends_reports_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporter, "EVERY_S", 60)
    async with tracer_bench.bench() as mesh, reaching(mesh) as pool:
        reports = TraceReporter(pool)
        reports.start()
        outcome = ended()
        reports.record(outcome)
        await reports.close()
        assert tracer_bench.names(await mesh.stored(outcome.trace_id, spans=1))


@pytest.mark.usefixtures("gateway")
async def test_outcomes_wait_for_a_tracer_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporter, "_REPORT_S", 0.2)
    async with tracer_bench.bench() as mesh:
        server = await tracer(mesh)
        port = server.port
        await server.stop()
        pool = EndpointPool("tracer", f"127.0.0.1:{port}", traces_pb2_grpc.TracerServiceStub)
        reports = TraceReporter(pool)
        reports.start()
        outcomes = [ended() for _ in range(3)]
        for outcome in outcomes:
            reports.record(outcome)
        async with asyncio.timeout(LIMIT_S):
            while reports.works:
                await asyncio.sleep(0.01)
        server = await tracer(mesh, port)
        for outcome in outcomes:
            await mesh.stored(outcome.trace_id, spans=1)
        await reports.close()
        await pool.close()
        await server.stop()


@pytest.mark.usefixtures("gateway")
async def test_a_trace_is_looked_at_as_its_request_has_ended_or_runs() -> None:
    async with tracer_bench.bench() as mesh, reaching(mesh) as pool:
        reports = TraceReporter(pool)
        async with client_of(pool, reports) as client:
            outcome = ended(caller_sampled=True, status=200)
            reports.begin(outcome)
            path = f"/v1/traces/{outcome.trace_id.hex()}"
            assert not (await client.get(path)).json()["complete"], "its request still runs"
            reports.record(outcome)
            found = (await client.get(path)).json()
            assert "wanted" in found["reasons"], "it was reported before it was looked at"


async def test_outcomes_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = EndpointPool("tracer", "127.0.0.1:1", traces_pb2_grpc.TracerServiceStub)
    reports = TraceReporter(pool)
    for _ in range(2 * reporter.MAX_WAITING):
        reports.record(traces_pb2.RequestOutcome(trace_id=b"x" * 16))
    assert reports.waiting == reporter.MAX_WAITING
    await reports.close()
    await pool.close()


async def test_without_a_tracer_traces_are_not_supported() -> None:
    async with client_of(None) as client:
        for path in ("/v1/traces", f"/v1/traces/{'ab' * 16}"):
            reply = await client.get(path)
            assert reply.status_code == 501
            assert "RAGLAN_GATEWAY_TRACER_ADDRESS" in reply.json()["error"]["message"]


async def test_a_tracer_that_is_away_is_unavailable() -> None:
    pool = EndpointPool("tracer", "127.0.0.1:1", traces_pb2_grpc.TracerServiceStub)
    async with client_of(pool) as client:
        for path in ("/v1/traces", f"/v1/traces/{'ab' * 16}"):
            reply = await client.get(path)
            assert reply.status_code == 503
            assert "tracer" in reply.json()["error"]["message"]
    await pool.close()


async def test_a_trace_larger_than_a_message_is_sent_in_pieces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("raglan_tracer.servicer._CHUNK_BYTES", 100)
    async with serving() as (mesh, client):
        trace_id = mesh.end()
        await mesh.stored(trace_id, spans=3)
        reply = await client.get(f"/v1/traces/{trace_id.hex()}")
    assert len(reply.content) == int(reply.headers["content-length"]) > 1_000
    assert reply.json()["span_count"] == 3


async def test_a_trace_has_the_documented_shape() -> None:
    async with serving() as (mesh, client):
        trace_id = mesh.end()
        await mesh.stored(trace_id, spans=3)
        reply = await client.get(f"/v1/traces/{trace_id.hex()}")
        body = reply.json()
        routes.Trace.model_validate(body)
        schema = (await client.get("/openapi.json")).json()
    assert reply.headers["content-type"] == "application/json"
    assert body["trace_id"] == trace_id.hex()
    assert {
        "span_id", "parent_span_id", "service", "name", "start_ns", "end_ns", "status",
        "attributes", "events", "links",
    } <= set(body["spans"][0])  # fmt: skip
    assert [(each["service"], each["parent_span_id"]) for each in body["spans"]] == [
        ("gateway", None),
        ("embedder", f"{1:016x}"),
        ("retriever", f"{1:016x}"),
    ]
    assert "Trace" in schema["components"]["schemas"]


async def test_every_kind_of_attribute_can_be_shown() -> None:
    values = {
        "text": AnyValue(string_value="a\0b"),
        "yes": AnyValue(bool_value=True),
        "many": AnyValue(int_value=2**62),
        "none": AnyValue(double_value=float("nan")),
        "less": AnyValue(double_value=float("-inf")),
        "raw": AnyValue(bytes_value=b"\xff\0"),
        "list": AnyValue(array_value=ArrayValue(values=[AnyValue(int_value=1), AnyValue()])),
        "tree": AnyValue(
            kvlist_value=KeyValueList(values=[KeyValue(key="a", value=AnyValue(int_value=2))])
        ),
        "nothing": AnyValue(),
    }
    attributes = [KeyValue(key=key, value=value) for key, value in values.items()]
    async with serving() as (mesh, client):
        trace_id = mesh.end()
        mesh.own[0] = span(
            trace_id,
            1,
            attributes=attributes,
            events=[Span.Event(name="it happened", time_unix_nano=5, attributes=attributes)],
            links=[Span.Link(trace_id=b"\2" * 16, span_id=b"\3" * 8, attributes=attributes)],
            status=Status(code=Status.STATUS_CODE_ERROR, message="why"),
        )
        await mesh.stored(trace_id, spans=3)
        body = (await client.get(f"/v1/traces/{trace_id.hex()}")).json()
    first = next(each for each in body["spans"] if each["service"] == "gateway")
    shown = {
        "text": "a\0b", "yes": True, "many": 2**62, "none": "nan", "less": "-inf", "raw": "ff00",
        "list": [1, None], "tree": {"a": 2}, "nothing": None,
    }  # fmt: skip
    assert first["attributes"] == shown
    assert first["events"] == [{"name": "it happened", "time_ns": 5, "attributes": shown}]
    assert first["links"] == [{"trace_id": "02" * 16, "span_id": "03" * 8, "attributes": shown}]
    assert (first["status"], first["status_message"]) == ("error", "why")


@pytest.mark.usefixtures("gateway")
async def test_a_recent_trace_that_is_not_kept_can_be_had_by_its_id() -> None:
    async with serving() as (mesh, client):
        trace_id = ended(status=200).trace_id
        mesh.embedder.spans.append(span(trace_id, 2))
        mesh.retriever.spans.append(span(trace_id, 3))
        reply = await client.get(f"/v1/traces/{trace_id.hex().upper()}")
        assert reply.status_code == 200
        assert reply.json()["span_count"] == 3
        assert reply.json()["reasons"] == ["looked_at"]


@pytest.mark.parametrize("trace_id", ["x", "0" * 31, "0" * 33, "g" * 32, "..%2f" * 4, "é" * 32])
async def test_what_is_no_trace_id_is_refused(trace_id: str) -> None:
    async with serving() as (_, client):
        reply = await client.get(f"/v1/traces/{trace_id}")
    assert reply.status_code in (404, 422)
    assert reply.status_code == 422 or "%2f" in trace_id
    assert reply.json()["error"]["message"]


async def test_a_trace_that_nobody_knows_is_not_found() -> None:
    async with serving() as (mesh, client):
        for unknown in ("0" * 32, "ab" * 16):
            reply = await client.get(f"/v1/traces/{unknown}")
            assert reply.status_code == 404
            assert unknown in reply.json()["error"]["message"]
        assert mesh.traces.waiting == 0


async def test_the_list_is_filtered_and_paged() -> None:
    async with serving() as (mesh, client):
        ids = []
        for number in range(6):
            trace_id = mesh.end(
                status=500 if number % 2 else 200,
                degraded=True,
                elapsed_s=number,
                route=f"/{number}",
            )
            await mesh.stored(trace_id, spans=3)
            ids.append(trace_id.hex())

        async def listed(**wanted: Any) -> list[str]:
            reply = await client.get("/v1/traces", params=wanted)
            assert reply.status_code == 200, reply.text
            return [each["trace_id"] for each in reply.json()["traces"]]

        assert await listed() == ids[::-1]
        assert await listed(status=500) == [ids[5], ids[3], ids[1]]
        assert await listed(route="/2") == [ids[2]]
        assert await listed(min_duration_ms=3_500) == [ids[5], ids[4]]
        assert await listed(degraded=False) == []
        assert await listed(error=True, limit=1) == [ids[5]]
        page = (await client.get("/v1/traces", params={"limit": 4})).json()
        assert await listed(before=page["next_before"]) == [ids[1], ids[0]]
        assert page["in_memory"]


@pytest.mark.parametrize(
    "wanted",
    [
        {"limit": 0}, {"limit": 1_001}, {"limit": "x"}, {"status": 99}, {"min_duration_ms": -1},
        {"min_duration_ms": "nan"}, {"before": 0}, {"before": 2**63}, {"degraded": "perhaps"},
        {"route": "x" * 201},
    ],
)  # fmt: skip
async def test_a_filter_that_makes_no_sense_is_refused(wanted: dict[str, Any]) -> None:
    async with serving() as (_, client):
        reply = await client.get("/v1/traces", params=wanted)
    assert reply.status_code == 422
    assert next(iter(wanted)) in reply.json()["error"]["message"]
