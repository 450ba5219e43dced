"""The spans of a call, over a real server on loopback: whose child, and how it ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import grpc
import pytest
from opentelemetry.proto.trace.v1 import trace_pb2
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode
from raglan import errors
from raglan.deadline import Deadline
from raglan.rpc import client
from raglan.rpc.server import Server, Service
from raglan.settings import GrpcSettings
from raglan.telemetry import context as request_context
from raglan.telemetry import semconv, tracing
from raglan.v1 import (
    common_pb2,
    embedder_pb2,
    embedder_pb2_grpc,
    generator_pb2,
    generator_pb2_grpc,
    traces_pb2,
    traces_pb2_grpc,
)

SECRET = "what Mrs Miller asked"
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


class Embedder(embedder_pb2_grpc.EmbedderServiceServicer):
    def __init__(self, error: BaseException | None, seconds: float) -> None:
        self.error, self.seconds = error, seconds
        self.began = asyncio.Event()

    async def Embed(self, request: Any, context: Any) -> Any:
        self.began.set()
        await asyncio.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        return embedder_pb2.EmbedResponse()

    async def GetInfo(self, request: Any, context: Any) -> Any:
        return common_pb2.ServiceInfo()


class Generator(generator_pb2_grpc.GeneratorServiceServicer):
    """Two replies, then what the question says."""

    async def Generate(self, request: Any, context: Any) -> Any:
        for text in "ab":
            yield generator_pb2.GenerateEvent(delta=generator_pb2.Delta(text=text))
        if request.question == "fail":
            raise errors.Unavailable("the engine is gone")
        if request.question == "crash":
            raise KeyError(SECRET)
        if request.question == "hang":
            await asyncio.sleep(30)


class Mesh:
    def __init__(self, channel: grpc.aio.Channel, embedder: Embedder) -> None:
        self.embedder = embedder
        self.embed = embedder_pb2_grpc.EmbedderServiceStub(channel)
        self.generator = generator_pb2_grpc.GeneratorServiceStub(channel)
        self.traces: Any = traces_pb2_grpc.TraceServiceStub(channel)

    async def ask(self, seconds: float = 5) -> Any:
        request = embedder_pb2.EmbedRequest(texts=[SECRET])
        return await client.call(self.embed.Embed, request, deadline=Deadline.after(seconds))

    async def read(self, question: str, *, replies: int = 99, seconds: float = 5) -> int:
        request = generator_pb2.GenerateRequest(question=question)
        seen = 0
        async with aclosing(
            client.stream(self.generator.Generate, request, deadline=Deadline.after(seconds))
        ) as events:
            async for _ in events:
                seen += 1
                if seen == replies:
                    break
        return seen


@pytest.fixture
def traces() -> Iterator[tracing.Tracing]:
    installed = tracing.install("test")
    yield installed
    installed.close()


@asynccontextmanager
async def mesh(error: BaseException | None = None, seconds: float = 0) -> AsyncIterator[Mesh]:
    embedder = Embedder(error, seconds)

    def register(server: grpc.aio.Server) -> None:
        embedder_pb2_grpc.add_EmbedderServiceServicer_to_server(embedder, server)
        generator_pb2_grpc.add_GeneratorServiceServicer_to_server(Generator(), server)

    service = Service(name="raglan.v1.EmbedderService", register=register)
    server = Server(service, GrpcSettings(shutdown_drain_s=0, shutdown_grace_s=0.1))
    await server.start()
    channel = client.connect(f"127.0.0.1:{server.port}")
    try:
        yield Mesh(channel, embedder)
    finally:
        await channel.close()
        await server.stop()


async def both(traces: tracing.Tracing) -> tuple[ReadableSpan, ReadableSpan]:
    """The client's and the server's span, once both have ended."""
    ends_at = time.monotonic() + 5
    while time.monotonic() < ends_at:
        found = {span.kind: span for span in traces.recent.of(int(TRACE, 16))[0]}
        if {SpanKind.CLIENT, SpanKind.SERVER} <= found.keys():
            return found[SpanKind.CLIENT], found[SpanKind.SERVER]
        await asyncio.sleep(0.01)
    raise AssertionError(f"only {[(s.kind, s.name) for s in traces.recent.of(int(TRACE, 16))[0]]}")


def in_trace() -> request_context.incoming:
    return request_context.incoming({"traceparent": f"00-{TRACE}-{PARENT}-00"})


def how(span: ReadableSpan) -> tuple[StatusCode, Any, Any]:
    attributes = span.attributes or {}
    code = attributes.get(semconv.RPC_STATUS)
    return span.status.status_code, code, attributes.get(semconv.ERROR_TYPE)


OK = (StatusCode.OK, "OK", None)


async def test_a_call_is_a_span_on_each_end_and_the_servers_is_the_child(
    traces: tracing.Tracing,
) -> None:
    async with mesh() as running:
        with in_trace():
            await running.ask(60)
        called, served = await both(traces)
    assert called.name == served.name == "raglan.v1.EmbedderService/Embed"
    assert called.parent is not None
    assert f"{called.parent.span_id:016x}" == PARENT
    assert served.parent is not None
    assert served.parent.span_id == called.context.span_id
    assert how(called) == how(served) == OK
    for span in (called, served):
        assert 30_000 < span.attributes[semconv.DEADLINE_REMAINING_MS] <= 60_000
        assert span.start_time < span.end_time


@pytest.mark.parametrize("error_class", errors.TABLE)
async def test_every_error_of_ours_is_the_status_of_both_ends(
    error_class: type[errors.RaglanError], traces: tracing.Tracing
) -> None:
    wire = errors.TABLE[error_class]
    async with mesh(error_class("a sentence")) as running:
        with in_trace(), pytest.raises(errors.RaglanError):
            await running.ask()
        called, served = await both(traces)
    assert how(served) == (StatusCode.ERROR, wire.status, wire.type)
    if error_class is not errors.Cancelled:  # which the caller sees as a service that left
        assert how(called) == (StatusCode.ERROR, wire.status, wire.type)
    assert served.status.description == (
        "" if issubclass(error_class, errors.InvalidInput) else "a sentence"
    )


async def test_a_crash_is_internal_and_shows_nothing_of_its_cause(traces: tracing.Tracing) -> None:
    async with mesh(ValueError(SECRET)) as running:
        with in_trace(), pytest.raises(errors.Internal):
            await running.ask()
        called, served = await both(traces)
    assert how(called) == (StatusCode.ERROR, "INTERNAL", "internal")
    assert how(served) == (StatusCode.ERROR, "INTERNAL", "ValueError")
    assert SECRET not in repr((called.to_json(), served.to_json()))


async def test_a_deadline_that_passes_is_that_on_both_ends(traces: tracing.Tracing) -> None:
    async with mesh(seconds=30) as running:
        with in_trace(), pytest.raises(errors.DeadlineExceeded):
            await running.ask(seconds=0.1)
        called, served = await both(traces)
    assert how(called) == (StatusCode.ERROR, "DEADLINE_EXCEEDED", "deadline_exceeded")
    assert how(served) == (StatusCode.ERROR, "DEADLINE_EXCEEDED", "deadline_exceeded")


async def test_a_unary_call_whose_caller_leaves_is_cancelled_on_both_ends(
    traces: tracing.Tracing,
) -> None:
    async with mesh(seconds=30) as running:
        with in_trace():
            asking = asyncio.create_task(running.ask())
            await running.embedder.began.wait()
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
        called, served = await both(traces)
    assert how(called) == (StatusCode.ERROR, "CANCELLED", "cancelled")
    assert how(served) == (StatusCode.ERROR, "CANCELLED", "cancelled")


async def test_a_stream_that_is_read_to_its_end_is_ok_and_counts_its_replies(
    traces: tracing.Tracing,
) -> None:
    async with mesh() as running:
        with in_trace():
            assert await running.read("all") == 2
        called, served = await both(traces)
    assert how(called) == how(served) == OK
    assert called.attributes[semconv.REPLIES] == 2
    assert called.attributes[semconv.FIRST_REPLY_MS] > 0


async def test_a_stream_whose_reader_leaves_is_cancelled_on_both_ends(
    traces: tracing.Tracing,
) -> None:
    async with mesh() as running:
        with in_trace():
            assert await running.read("hang", replies=1) == 1
        called, served = await both(traces)
    assert how(called) == (StatusCode.ERROR, "CANCELLED", "cancelled")
    assert how(served) == (StatusCode.ERROR, "CANCELLED", "cancelled")


@pytest.mark.parametrize(
    ("question", "status", "type_"),
    [("fail", "UNAVAILABLE", "unavailable"), ("crash", "INTERNAL", "KeyError")],
)
async def test_a_stream_that_breaks_in_the_middle_is_an_error_on_both_ends(
    question: str, status: str, type_: str, traces: tracing.Tracing
) -> None:
    async with mesh() as running:
        with in_trace(), pytest.raises(errors.RaglanError):
            await running.read(question)
        called, served = await both(traces)
    assert how(served) == (StatusCode.ERROR, status, type_)
    assert how(called)[:2] == (StatusCode.ERROR, status)


async def test_a_stream_that_outlasts_the_deadline_is_that_on_both_ends(
    traces: tracing.Tracing,
) -> None:
    async with mesh() as running:
        with in_trace(), pytest.raises(errors.DeadlineExceeded):
            await running.read("hang", seconds=0.2)
        called, served = await both(traces)
    assert how(called) == (StatusCode.ERROR, "DEADLINE_EXCEEDED", "deadline_exceeded")
    assert how(served) == (StatusCode.ERROR, "DEADLINE_EXCEEDED", "deadline_exceeded")


async def test_a_service_that_is_gone_is_unavailable_to_its_caller(
    traces: tracing.Tracing,
) -> None:
    channel = client.connect("127.0.0.1:1")
    with in_trace(), pytest.raises(errors.Unavailable):
        await Mesh(channel, Embedder(None, 0)).ask()
    await channel.close()
    (called,), _ = traces.recent.of(int(TRACE, 16))
    assert how(called) == (StatusCode.ERROR, "UNAVAILABLE", "unavailable")


async def test_a_call_outside_of_a_trace_begins_one_at_the_server_alone(
    traces: tracing.Tracing,
) -> None:
    async with mesh() as running:
        await running.ask()
    assert len(traces.recent) == 1


async def test_what_a_service_says_of_itself_makes_no_spans(traces: tracing.Tracing) -> None:
    async with mesh() as running:
        with in_trace():
            await client.call(
                running.embed.GetInfo, common_pb2.GetInfoRequest(), deadline=Deadline.after(5)
            )
            await collected(running, bytes.fromhex(TRACE))
    assert len(traces.recent) == 0


async def test_text_leaves_in_no_span_by_default(traces: tracing.Tracing) -> None:
    async with mesh() as running:
        with in_trace():
            await running.ask()
        spans = await both(traces)
    assert SECRET not in "".join(span.to_json() for span in spans)


# --- Traces handed out ----------------------------------------------------------------------------


async def collected(running: Mesh, *trace_ids: bytes) -> traces_pb2.CollectResponse:
    request = traces_pb2.CollectRequest(trace_ids=trace_ids)
    return await client.call(running.traces.Collect, request, deadline=Deadline.after(5))


def spans_in(reply: traces_pb2.CollectResponse) -> list[trace_pb2.Span]:
    data = trace_pb2.TracesData.FromString(reply.spans)
    return [
        span
        for resource in data.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


async def test_the_spans_of_a_trace_are_handed_out_and_those_of_others_are_not(
    traces: tracing.Tracing,
) -> None:
    async with mesh() as running:
        with in_trace():
            await running.ask()
        with request_context.incoming({"traceparent": f"00-{TRACE[::-1]}-{PARENT}-01"}):
            await running.ask()
        await both(traces)
        reply = await collected(running, bytes.fromhex(TRACE), bytes(15) + b"\1")
    spans = spans_in(reply)
    assert {span.trace_id.hex() for span in spans} == {TRACE}
    assert sorted(span.kind for span in spans) == [
        trace_pb2.Span.SPAN_KIND_SERVER,
        trace_pb2.Span.SPAN_KIND_CLIENT,
    ]
    assert list(reply.incomplete) == []


async def test_a_reply_that_is_full_names_the_traces_that_did_not_fit(
    traces: tracing.Tracing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raglan.rpc.server.MAX_REPLY_BYTES", 1_500)
    async with mesh() as running:
        with in_trace():
            for _ in range(200):
                tracing.begin("step", parent=tracing.context()).end()
            await running.ask()
            await both(traces)
        reply = await collected(running, bytes.fromhex(TRACE))
    assert len(reply.spans) <= 1_500
    assert list(reply.incomplete) == [bytes.fromhex(TRACE)]


@pytest.mark.parametrize(
    ("trace_ids", "sentence"),
    [
        ([b"short"], "has 5 bytes"),
        ([bytes([i, j] * 8) for i in range(2) for j in range(200)], "limit is 256"),
    ],
)
async def test_ids_that_are_none_or_too_many_are_refused(
    trace_ids: list[bytes], sentence: str, traces: tracing.Tracing
) -> None:
    async with mesh() as running:
        with pytest.raises(errors.InvalidInput, match=sentence):
            await collected(running, *trace_ids)


async def test_a_trace_of_many_spans_does_not_hold_the_loop(traces: tracing.Tracing) -> None:
    with in_trace():
        for _ in range(2_100):
            tracing.begin("step", {"a": "b", "c": 1}, parent=tracing.context()).end()
    async with mesh() as running:
        reply = await collected(running, bytes.fromhex(TRACE))
    assert len(spans_in(reply)) == 2_000
    assert list(reply.incomplete) == [bytes.fromhex(TRACE)]
