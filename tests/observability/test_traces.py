"""The traces of real requests: complete and right however they end, whatever comes with them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from typing import Any, Final

import httpx
import mesh_process
import ports
import pytest
import trace_expectations
import trace_requests
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span
from trace_requests import Kind, Mixed, Phase, Result

PROTOBUF: Final = {"content-type": "application/x-protobuf"}
PART: Final = 0.01
"""Of the 2,000 requests of `make bench-mesh ONLY=traces`; of each kind at least one."""
LIMIT_S: Final = 10

HEDGED: Final = Phase(
    (Kind("hedged", 20, "/v1/search"),),
    {"embedder#0": {"latency_ms": 150}, "reranker#0": {"latency_ms": 150}},
)


class Running:
    """The mesh, what was uploaded to it, and where it receives spans."""

    def __init__(self, requests: Mixed, receiver: str) -> None:
        self.requests = requests
        self.upload: Result = requests.upload(40)
        self.receiver = receiver

    def searched(self, **options: Any) -> httpx.Response:
        """A search that goes well."""
        with self.requests.mesh.client() as client:
            reply = client.post("/v1/search", json={"query": "What does a stage cost?"}, **options)
        assert reply.status_code == 200, reply.text
        return reply

    def trace(self, trace_id: str) -> dict[str, Any]:
        """The trace, once nothing of it is missing."""

        def read() -> dict[str, Any] | None:
            with self.requests.mesh.client() as client:
                found: dict[str, Any] = client.get(f"/v1/traces/{trace_id}").json()
            return found if found.get("complete") else None

        document: dict[str, Any] = mesh_process.until(read, within_s=LIMIT_S, what="the trace")
        return document


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    port = ports.free_port()
    folder = tmp_path_factory.mktemp("traces")
    with trace_requests.mixed(folder, RAGLAN_TRACER_OTLP_PORT=str(port)) as requests:
        yield Running(requests, f"http://127.0.0.1:{port}/v1/traces")


def test_an_upload_is_one_trace_from_its_request_to_the_index(running: Running) -> None:
    assert running.upload.problems == []


async def test_every_kind_of_request_has_a_complete_trace(
    running: Running,
) -> None:
    """Requests of every kind have complete traces over the declared edges."""
    results = [
        result
        for phase in trace_requests.phases()
        for result in await running.requests.run(phase, PART)
    ]
    assert [(each.outcome.kind, each.problems) for each in results if each.problems] == []
    seen = [trace_expectations.edges(each.trace["spans"]) for each in [running.upload, *results]]
    assert set().union(*seen) == trace_expectations.DECLARED
    assert {each.outcome.left for each in results} == {True, False}
    for fact in ("error", "degraded"):
        assert any(each.trace[fact] for each in results), fact


async def test_a_span_that_is_missing_or_has_another_parent_or_status_is_noticed(
    running: Running,
) -> None:
    queries = Phase((Kind("query", 1, "/v1/query"),))
    (result,) = await running.requests.run(queries)
    assert result.problems == []
    spans = result.trace["spans"]
    for number, span in enumerate(spans):
        for changed in (
            [],
            [span | {"parent_span_id": "00f067aa0ba902b7"}],
            [span | {"status": {"ok": "error"}.get(span["status"], "ok")}],
        ):
            if not changed and (span["service"], span["name"]) == ("reranker", "batch"):
                continue  # how many batches a reranking takes is its own affair
            trace = result.trace | {"spans": [*spans[:number], *changed, *spans[number + 1 :]]}
            assert trace_expectations.problems(result.outcome, trace), (span["name"], changed)


async def test_requests_that_are_hedged_have_complete_traces(running: Running) -> None:
    ends_at = time.monotonic() + 3 * LIMIT_S
    while time.monotonic() < ends_at:
        results = await running.requests.run(HEDGED)
        assert [each.problems for each in results if each.problems] == []
        if any(each.trace["hedged"] for each in results):
            return
    raise AssertionError("none of them was hedged")


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"garbage",
        b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
        b"00-0AF7651916CD43DD8448EB211C80319C-B7AD6B7169203331-01",
        b"ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        b"00-00000000000000000000000000000000-b7ad6b7169203331-01",
        b"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        b"\xff\xfe" * 40,
        b"-" * 30_000,
    ],
)
def test_a_malformed_traceparent_begins_a_trace_of_the_gateways_own(
    running: Running, header: bytes
) -> None:
    reply = running.searched(headers=[(b"traceparent", header)])
    trace_id = reply.headers["traceparent"].split("-")[1]
    assert trace_id == reply.json()["trace_id"]
    assert trace_id.encode() not in header
    (root,) = [each for each in running.trace(trace_id)["spans"] if each["kind"] == "server"][:1]
    assert root["parent_span_id"] is None


@pytest.mark.parametrize("name", ["baggage", "tracestate"])
def test_30_kilobytes_of_what_travels_with_a_trace_do_not_travel(
    running: Running, name: str
) -> None:
    trace_id, span_id = secrets.token_hex(16), secrets.token_hex(8)
    long = "key=" + "v" * 30_000
    headers = {"traceparent": f"00-{trace_id}-{span_id}-01", name: long}
    assert running.searched(headers=headers).json()["trace_id"] == trace_id
    assert "v" * 100 not in str(running.trace(trace_id))
    running.searched()


@pytest.mark.parametrize("body", [b"\xff" * 1000, b"", b"{" * 1000])
def test_garbage_at_the_receiver_harms_no_query(running: Running, body: bytes) -> None:
    reply = httpx.post(running.receiver, content=body, headers={"content-type": "text/html"})
    assert reply.status_code == 400
    assert b"Content-Type" in reply.content
    reply = httpx.post(running.receiver, content=body, headers=PROTOBUF)
    assert reply.status_code == (400 if body else 200)
    running.searched()


def test_10000_spans_sent_into_the_trace_of_a_request_leave_it_readable(running: Running) -> None:
    trace_id = running.searched().json()["trace_id"]
    now = time.time_ns()
    spans = [
        Span(
            trace_id=bytes.fromhex(trace_id),
            span_id=number.to_bytes(8, "big"),
            name="theirs",
            start_time_unix_nano=now,
            end_time_unix_nano=now + 1,
        )
        for number in range(1, 10_001)
    ]
    sent = ExportTraceServiceRequest(
        resource_spans=[ResourceSpans(scope_spans=[ScopeSpans(spans=spans)])]
    )
    reply = httpx.post(running.receiver, content=sent.SerializeToString(), headers=PROTOBUF)
    assert reply.status_code == 200
    running.searched()
    with running.requests.mesh.client() as client:
        found = client.get(f"/v1/traces/{trace_id}").json()
    assert len(found["spans"]) <= 2_000
    assert found["dropped"] + len(found["spans"]) > 10_000
    assert {"gateway", "embedder", "retriever"} <= {each["service"] for each in found["spans"]}


def test_a_trace_that_does_not_exist_is_not_found_and_says_what_there_is(running: Running) -> None:
    with running.requests.mesh.client() as client:
        reply = client.get(f"/v1/traces/{secrets.token_hex(16)}")
    assert reply.status_code == 404
    assert reply.json()["error"]["type"] == "not_found"
    running.searched()
