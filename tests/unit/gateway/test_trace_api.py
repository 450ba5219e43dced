"""`/v1/traces`: its shapes, its filters, its refusals."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import gateway_traces
import httpx
import pytest
from fastapi import FastAPI
from gateway_traces import Bench, span
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from raglan_gateway.api import traces as routes
from raglan_gateway.api.error_handlers import install_error_handlers
from raglan_gateway.traces import keeping, kept


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "TICK_S", 0.02)
    monkeypatch.setattr(kept, "FIRST_S", 0.02)
    monkeypatch.setattr(kept, "AGAIN_S", 0.02)


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[tuple[Bench, httpx.AsyncClient]]:
    async with gateway_traces.bench(**options) as mesh:
        app = FastAPI()
        install_error_handlers(app)
        app.include_router(routes.router(mesh.traces))
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            yield mesh, client


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


async def test_a_recent_trace_that_is_not_kept_can_be_had_by_its_id() -> None:
    async with serving() as (mesh, client):
        trace_id = mesh.end(status=200)
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
