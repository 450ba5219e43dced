"""The OTLP receiver: what it takes, and that nothing sent to it does harm."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from google.protobuf import json_format
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped] # has no stubs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, TracesData
from raglan.cross_origin import CrossOriginPolicy
from raglan.errors import InvalidInput, PayloadTooLarge
from raglan_tracer import otlp, receiver
from raglan_tracer.receiver import Listener, Receiver

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PROTOBUF = {"content-type": otlp.PROTOBUF}
JSON = {"content-type": otlp.JSON}


def export(count: int = 1) -> ExportTraceServiceRequest:
    spans = [
        Span(trace_id=bytes.fromhex(TRACE_ID), span_id=n.to_bytes(8, "big"), name=f"step {n}")
        for n in range(1, count + 1)
    ]
    of_one = ResourceSpans(scope_spans=[ScopeSpans(spans=spans)])
    return ExportTraceServiceRequest(resource_spans=[of_one])


LOOPBACK = CrossOriginPolicy(listens_on="127.0.0.1")


class Taken:
    """Takes spans in, but those named "refuse"."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    async def __call__(self, sent: Sequence[otlp.SentSpan]) -> int:
        spans = [each.span for each in sent]
        self.spans += [span for span in spans if span.name != "refuse"]
        return sum(span.name == "refuse" for span in spans)


@asynccontextmanager
async def receiving(taken: Taken | None = None) -> AsyncIterator[httpx.AsyncClient]:
    app = Receiver(taken or Taken(), LOOPBACK, clock=lambda: 0.0).app
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


async def test_protobuf_json_and_gzip_are_taken() -> None:
    taken = Taken()
    plain = export().SerializeToString()
    as_json = {
        "resourceSpans": [
            {
                "resource": {
                    "attributes": [{"key": "service.name", "value": {"stringValue": "client"}}]
                },
                "scopeSpans": [
                    {
                        "spans": [
                            {
                                "traceId": TRACE_ID,
                                "spanId": "00f067aa0ba902b7",
                                "parentSpanId": "",
                                "name": "by hand",
                                "kind": 3,
                                "startTimeUnixNano": "1544712660000000000",
                                "endTimeUnixNano": 1544712661000000000,
                                "status": {"code": 2},
                                "laterField": [1],
                            }
                        ]
                    }
                ],
            }
        ]
    }
    async with receiving(taken) as client:
        first = await client.post("/v1/traces", content=plain, headers=PROTOBUF)
        second = await client.post("/v1/traces", json=as_json)
        third = await client.post(
            "/v1/traces",
            content=gzip.compress(plain),
            headers=PROTOBUF | {"content-encoding": "gzip"},
        )
    assert [reply.status_code for reply in (first, second, third)] == [200] * 3
    assert ExportTraceServiceResponse.FromString(first.content) == ExportTraceServiceResponse()
    assert second.json() == {}
    assert [span.name for span in taken.spans] == ["step 1", "by hand", "step 1"]
    assert {span.trace_id.hex() for span in taken.spans} == {TRACE_ID}
    assert taken.spans[1].span_id.hex() == "00f067aa0ba902b7"


async def test_what_is_refused_of_a_request_is_said() -> None:
    request = export(3)
    request.resource_spans[0].scope_spans[0].spans[1].name = "refuse"
    async with receiving() as client:
        reply = await client.post(
            "/v1/traces", content=request.SerializeToString(), headers=PROTOBUF
        )
    said = ExportTraceServiceResponse.FromString(reply.content).partial_success
    assert (reply.status_code, said.rejected_spans) == (200, 1)
    assert said.error_message


@pytest.mark.parametrize(
    ("content", "headers", "named"),
    [
        (b"\xff" * 50, PROTOBUF, "ExportTraceServiceRequest"),
        (b"{", JSON, "Expecting property name"),
        (b"[]", JSON, "ExportTraceServiceRequest"),
        (b"null", JSON, "ExportTraceServiceRequest"),
        (b"\xff\xfe\xfd", JSON, "ExportTraceServiceRequest"),
        (b'{"resourceSpans": 3}', JSON, "ExportTraceServiceRequest"),
        (b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"xyz"}]}]}]}', JSON, "traceId"),
        (b"[" * 100_000, JSON, "nested"),
        (b'{"a":' * 50_000 + b"1" + b"}" * 50_000, JSON, "nested"),
        (b"not gzip", PROTOBUF | {"content-encoding": "gzip"}, "gzip"),
        (
            gzip.compress(b"x" * 999, mtime=0)[:-9],
            PROTOBUF | {"content-encoding": "gzip"},
            "middle",
        ),
        (gzip.compress(b"", mtime=0) + b"more", PROTOBUF | {"content-encoding": "gzip"}, "goes on"),
        (b"", PROTOBUF | {"content-encoding": "br"}, "br"),
        (b"", {"content-type": "text/plain"}, "text/plain"),
        (b"", {}, "Content-Type"),
    ],
)
async def test_garbage_is_refused_with_a_sentence(
    content: bytes, headers: dict[str, str], named: str
) -> None:
    async with receiving() as client:
        reply = await client.post("/v1/traces", content=content, headers=headers)
    assert reply.status_code == 400
    is_json = headers.get("content-type") == otlp.JSON
    said = (
        json_format.Parse(reply.content, Status()) if is_json else Status.FromString(reply.content)
    )
    assert named in said.message
    assert said.code == 3


async def test_what_unpacks_to_too_much_is_refused_before_it_is_unpacked() -> None:
    bomb = await asyncio.to_thread(gzip.compress, b"\0" * (50 << 20))
    async with receiving() as client:
        reply = await client.post(
            "/v1/traces", content=bomb, headers=PROTOBUF | {"content-encoding": "gzip"}
        )
    assert reply.status_code == 413
    assert str(receiver.MAX_BYTES) in Status.FromString(reply.content).message


async def test_a_body_over_the_limit_is_refused_announced_or_not() -> None:
    async def unannounced() -> AsyncIterator[bytes]:
        for _ in range(10):
            yield b"x" * (receiver.MAX_BYTES // 5)

    async with receiving() as client:
        for content in (b"x" * (receiver.MAX_BYTES + 1), unannounced()):
            reply = await client.post("/v1/traces", content=content, headers=PROTOBUF)
            assert reply.status_code == 413


async def test_spans_a_second_and_spans_a_request_are_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken = Taken()
    body = export(5_000).SerializeToString()
    async with receiving(taken) as client:
        replies = [
            await client.post("/v1/traces", content=body, headers=PROTOBUF) for _ in range(6)
        ]
        many = export(otlp.MAX_SPANS + 1).SerializeToString()
        too_many = await client.post("/v1/traces", content=many, headers=PROTOBUF)
    assert [reply.status_code for reply in replies] == [200] * 4 + [429] * 2
    assert replies[-1].headers["retry-after"] == "1"
    assert len(taken.spans) == 20_000
    assert too_many.status_code == 413


async def test_more_requests_at_a_time_than_the_limit_are_told_to_come_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(receiver, "REQUESTS", 2)
    going_on = asyncio.Event()
    arrived = 0

    async def slow() -> AsyncIterator[bytes]:
        nonlocal arrived
        arrived += 1
        await going_on.wait()
        yield export().SerializeToString()

    async with receiving() as client:
        held = [
            asyncio.create_task(client.post("/v1/traces", content=slow(), headers=PROTOBUF))
            for _ in range(2)
        ]
        async with asyncio.timeout(5):
            while arrived < 2:
                await asyncio.sleep(0)
        refused = await client.post("/v1/traces", content=b"", headers=PROTOBUF)
        going_on.set()
        assert [(await each).status_code for each in held] == [200, 200]
    assert refused.status_code == 503


async def test_a_body_that_does_not_come_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiver, "_BODY_S", 0.05)

    async def never() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.sleep(60)

    async with receiving() as client:
        reply = await client.post("/v1/traces", content=never(), headers=PROTOBUF)
    assert reply.status_code == 400


@given(st.binary(max_size=300), st.sampled_from([otlp.PROTOBUF, otlp.JSON]))
def test_any_bytes_are_read_or_refused(body: bytes, kind: str) -> None:
    with contextlib.suppress(InvalidInput):
        otlp.read_spans(body, kind)


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["resourceSpans", "scopeSpans", "spans", "traceId", "spanId", "attributes", "key",
             "value", "stringValue", "arrayValue", "values", "links", "status", "code", "x"]
        ),
        inner,
        max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


@given(ANY_JSON)
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_any_json_is_read_or_refused(document: Any) -> None:
    spans = {"resourceSpans": [{"scopeSpans": [{"spans": [document]}]}]}
    for body in (document, spans):
        with contextlib.suppress(InvalidInput):
            otlp.read_spans(json.dumps(body).encode(), otlp.JSON)


@given(st.binary(max_size=2_000), st.integers(0, 3_000))
def test_what_was_packed_is_unpacked_whole_or_not_at_all(body: bytes, limit: int) -> None:
    packed = gzip.compress(body)
    if len(body) <= limit:
        assert otlp.unpacked(packed, "gzip", limit) == body
    else:
        with pytest.raises(PayloadTooLarge):
            otlp.unpacked(packed, "gzip", limit)


async def test_it_listens_where_it_was_told_and_takes_over_when_the_address_is_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(receiver, "_LISTEN_AGAIN_S", 0.02)
    taken = Taken()
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        listener = Listener(Receiver(taken, LOOPBACK), "127.0.0.1", port)
        listener.start()
        await asyncio.sleep(0.05)
        assert listener.address is None
    try:
        async with asyncio.timeout(5):
            while listener.address is None:
                await asyncio.sleep(0.01)
        assert listener.address == ("127.0.0.1", port)
        async with httpx.AsyncClient() as client:
            reply = await client.post(
                f"http://127.0.0.1:{port}/v1/traces",
                content=export().SerializeToString(),
                headers=PROTOBUF,
            )
            other = await client.get(f"http://127.0.0.1:{port}/v1/query")
        assert (reply.status_code, other.status_code) == (200, 404)
        assert len(taken.spans) == 1
    finally:
        await listener.close()


async def test_a_listener_that_never_got_its_address_closes() -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        listener = Listener(Receiver(Taken(), LOOPBACK), "127.0.0.1", holder.getsockname()[1])
        listener.start()
        await asyncio.sleep(0)
        async with asyncio.timeout(1):
            await listener.close()


async def test_a_rebound_page_writes_no_spans() -> None:
    taken = Taken()
    async with receiving(taken) as client:
        body = export().SerializeToString()
        headers = {"content-type": "application/x-protobuf", "host": "evil.example:4319"}
        response = await client.post("/v1/traces", content=body, headers=headers)
    assert response.status_code == 403
    assert taken.spans == []


def many(fields: bytes) -> bytes:
    return fields * (receiver.MAX_BYTES // len(fields))


def in_span(fields: bytes) -> bytes:
    """A request of spans that hold `fields`, as many times as a span may be long."""
    span = fields * (60_000 // len(fields))
    scope = b"\x12" + _varint(len(span)) + span
    resource = b"\x12" + _varint(len(scope)) + scope
    whole = b"\x0a" + _varint(len(resource)) + resource
    return whole * (receiver.MAX_BYTES // len(whole))


def _varint(value: int) -> bytes:
    return bytes((value & 0x7F | 0x80, value >> 7 & 0x7F | 0x80, value >> 14))


SHARED_RESOURCE = ResourceSpans(
    resource={"attributes": [{"key": "x", "value": {"string_value": "x" * 60_000}}]},
    scope_spans=[
        ScopeSpans(
            spans=[
                Span(trace_id=n.to_bytes(16, "big"), span_id=n.to_bytes(8, "big"))
                for n in range(1, 10_001)
            ]
        )
    ],
)


@pytest.mark.parametrize(
    ("body", "kind", "named"),
    [
        (many(b"\x0a\x00"), otlp.PROTOBUF, "resources"),
        (b"\x0a\xfe\x7f" + b"\x12\x00" * 8_191, otlp.PROTOBUF, "scopes"),
        (many(b'{"resourceSpans":[' + b"{}," * 1_000 + b"{}]}"), otlp.JSON, "objects"),
        (b'{"resourceSpans":[' + b"{}," * 200_000 + b"{}]}", otlp.JSON, "resources"),
    ],
)
def test_what_is_many_for_its_bytes_is_refused_by_count(body: bytes, kind: str, named: str) -> None:
    with pytest.raises(PayloadTooLarge, match=named):
        otlp.read_spans(body, kind)


@pytest.mark.parametrize(
    "fields",
    [
        b"\x4a\x00",  # attributes
        b"\x5a\x00",  # events
        b"\x6a\x00",  # links
        b"\x4a\x06\x12\x04\x2a\x02\x0a\x00",  # attributes, each a list of one
    ],
)
def test_a_span_of_many_empty_parts_is_refused(fields: bytes) -> None:
    spans, refused = otlp.read_spans(in_span(fields), otlp.PROTOBUF)
    assert spans == []
    assert refused > 10


HELD_MB = 100
"""Far above what two requests of 4 MB may take here; without bounds they take 450 to 2,400."""

READ = """
import re, sys
from pathlib import Path
from raglan.errors import PayloadTooLarge
from raglan_tracer import otlp
from raglan_tracer.span_buffer import SpanBuffer

body = sys.stdin.buffer.read()
held = SpanBuffer(2_000)

def most():
    return int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])
before = most()
for _ in range(2):
    try:
        for sent in otlp.read_spans(body, otlp.PROTOBUF)[0]:
            held.add_span(*sent)
    except PayloadTooLarge:
        pass
print((most() - before) // 1024)
"""


@pytest.mark.parametrize(
    "body",
    [
        many(b"\x0a\x00"),
        many(b"\x0a\x02\x12\x00"),
        in_span(b"\x4a\x00"),
        TracesData(resource_spans=[SHARED_RESOURCE]).SerializeToString(),
    ],
    ids=["resources", "scopes", "attributes", "a large resource of many traces"],
)
def test_a_request_takes_no_more_memory_than_is_counted(body: bytes) -> None:
    ran = subprocess.run([sys.executable, "-c", READ], input=body, capture_output=True, check=True)
    assert int(ran.stdout) < HELD_MB
