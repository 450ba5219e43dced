"""A trace recorder in the process of the test, over replicas that really serve, and its gateway."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, TracesData
from raglan.rpc.endpoint import Endpoint, Reach
from raglan.v1 import embedder_pb2_grpc, traces_pb2, traces_pb2_grpc
from raglan_tracer import otlp
from raglan_tracer.collection import Collector, Reply
from raglan_tracer.recorder import FoundTrace, TraceRecorder
from raglan_tracer.sampler import TailSampler
from raglan_tracer.spans import each
from raglan_tracer.store import TraceStore

LIMIT_S = 10


def resource(service: str) -> Resource:
    name = KeyValue(key="service.name", value=AnyValue(string_value=service))
    return Resource(attributes=[name])


def span(trace_id: bytes, number: int, parent: int = 0, **fields: Any) -> Span:
    return Span(
        trace_id=trace_id,
        span_id=number.to_bytes(8, "big"),
        parent_span_id=parent.to_bytes(8, "big") if parent else b"",
        name=fields.pop("name", f"step {number}"),
        start_time_unix_nano=time.time_ns(),
        end_time_unix_nano=time.time_ns() + 1_000,
        **fields,
    )


def data(service: str, *spans: Span) -> TracesData:
    of_service = ResourceSpans(resource=resource(service), scope_spans=[ScopeSpans(spans=spans)])
    return TracesData(resource_spans=[of_service])


def sent(service: str, *spans: Span) -> list[otlp.SentSpan]:
    """Spans as the receiver hands them over."""
    read, refused = otlp.read_spans(data(service, *spans).SerializeToString(), otlp.PROTOBUF)
    assert refused == 0
    return read


class Replica(traces_pb2_grpc.TraceServiceServicer):
    """Has spans, and answers for them as told."""

    def __init__(self, service: str) -> None:
        self.service = service
        self.spans: list[Span] = []
        self.asked: list[list[bytes]] = []
        self.delay_s = 0.0
        self.junk = b""
        self.incomplete = False

    async def Collect(self, request: Any, context: Any) -> Any:
        self.asked.append(list(request.trace_ids))
        await asyncio.sleep(self.delay_s)
        wanted = set(request.trace_ids)
        mine = [each for each in self.spans if each.trace_id in wanted]
        return traces_pb2.CollectResponse(
            spans=self.junk or data(self.service, *mine).SerializeToString(),
            incomplete=request.trace_ids if self.incomplete else [],
        )


class Bench:
    """A recorder, two replicas that it asks, and a gateway that delivers its spans, from a list."""

    def __init__(self, traces: TraceRecorder, replicas: Sequence[Replica], own: list[Span]) -> None:
        self.traces = traces
        self.embedder, self.retriever = replicas
        self.own = own
        self._wanted: set[bytes] = set()

    def end(self, **facts: Any) -> bytes:
        """A request ends, its spans here and at both replicas."""
        number = random.getrandbits(128) or 1
        trace_id = number.to_bytes(16, "big")
        self.own.append(span(trace_id, 1, name="POST /v1/query"))
        self.embedder.spans.append(span(trace_id, 2, parent=1))
        self.retriever.spans.append(span(trace_id, 3, parent=1))
        self.report(trace_id, **facts)
        return trace_id

    def report(self, trace_id: bytes, **facts: Any) -> None:
        """The gateway reports how a request ended."""
        known: dict[str, Any] = {"route": "/v1/query", "status": 500, "elapsed_s": 0.1}
        outcome = traces_pb2.RequestOutcome(trace_id=trace_id, **known | facts)
        if self.traces.record_outcome(outcome):
            self._wanted.add(trace_id)

    async def find(self, trace_id: bytes) -> FoundTrace | None:
        """What the gateway is given of a trace that somebody looks at."""
        return await self.traces.find(trace_id, self._own([trace_id]))

    async def deliver(self) -> None:
        """Deliver the spans that the recorder wants of the gateway."""
        wanted, self._wanted = self._wanted, set()
        await self.traces.add_reported(self._own([*wanted, *self.traces.due_soon()]))

    def _own(self, trace_ids: Sequence[bytes]) -> Reply:
        wanted = [each for each in self.own if each.trace_id in trace_ids]
        return Reply(data("gateway", *wanted), frozenset())

    async def delivering(self) -> None:
        """Deliver again and again, until cancelled."""
        while True:
            await self.deliver()
            await asyncio.sleep(0.005)

    async def stored(self, trace_id: bytes, spans: int) -> FoundTrace:
        async def find() -> FoundTrace | None:
            found = (await self.traces.store.get([trace_id])).get(trace_id)
            return FoundTrace(*found) if found and found[0].spans >= spans else None

        async with asyncio.timeout(LIMIT_S):
            while (found := await find()) is None:
                await asyncio.sleep(0.01)
        return found


def names(found: FoundTrace | None) -> set[str]:
    assert found is not None
    return {each_span.name for _, each_span in each(TracesData.FromString(found.spans))}


@asynccontextmanager
async def bench(path: Path | None = None, **options: Any) -> AsyncIterator[Bench]:
    replicas = [Replica("embedder"), Replica("retriever")]
    own: list[Span] = []
    servers, endpoints = [], []
    for replica in replicas:
        server = grpc.aio.server()
        traces_pb2_grpc.add_TraceServiceServicer_to_server(replica, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        servers.append(server)
        endpoints.append(
            Endpoint(
                replica.service,
                f"127.0.0.1:{port}",
                embedder_pb2_grpc.EmbedderServiceStub,
                lambda endpoint: None,
            )
        )

    traces = TraceRecorder(
        TraceStore(path, newest=100, max_bytes=1 << 24),
        TailSampler(options.pop("share", 0)),
        Collector(lambda: endpoints, ask_s=options.pop("ask_s", 1)),
        max_spans=options.pop("max_spans", 200),
        **options,
    )
    await traces.start()
    try:
        async with asyncio.timeout(LIMIT_S):
            while any(each.reach is not Reach.SERVING for each in endpoints):
                await asyncio.sleep(0.01)
        gateway = Bench(traces, replicas, own)
        delivering = asyncio.create_task(gateway.delivering())
        yield gateway
        delivering.cancel()
        await asyncio.wait((delivering,))
        await gateway.deliver()
    finally:
        await traces.close()
        for endpoint in endpoints:
            await endpoint.close()
        for server in servers:
            await server.stop(None)
