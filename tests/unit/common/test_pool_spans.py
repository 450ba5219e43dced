"""How the attempts of a call are told apart in its trace when the pool gives one of them up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode
from raglan import errors
from raglan.deadline import Deadline
from raglan.rpc.endpoint import Reach
from raglan.rpc.pool import EndpointPool
from raglan.rpc.server import Server, Service
from raglan.settings import GrpcSettings
from raglan.telemetry import context as request_context
from raglan.telemetry import semconv, tracing
from raglan.v1 import generator_pb2, generator_pb2_grpc, reranker_pb2, reranker_pb2_grpc

TRACE = "0af7651916cd43dd8448eb211c80319c"
LIMIT_S = 10


class Reranker(reranker_pb2_grpc.RerankerServiceServicer):
    """Takes as long as the next of `delays_s` says, and no time after the last."""

    def __init__(self, delays_s: list[float]) -> None:
        self.delays_s = delays_s

    async def Rerank(self, request: Any, context: Any) -> Any:
        await asyncio.sleep(self.delays_s.pop(0) if self.delays_s else 0)
        return reranker_pb2.RerankResponse()


class Generator(generator_pb2_grpc.GeneratorServiceServicer):
    """Says so much, and then nothing."""

    replies = 0

    async def Generate(self, request: Any, context: Any) -> Any:
        for _ in range(self.replies):
            yield generator_pb2.GenerateEvent(delta=generator_pb2.Delta(text="a"))
        await asyncio.sleep(60)


@pytest.fixture(autouse=True)
def traces() -> Iterator[tracing.Tracing]:
    installed = tracing.install("test")
    yield installed
    installed.close()


@asynccontextmanager
async def pool_of(
    servicers: list[Any], add: Callable[..., None], stub: Any
) -> AsyncIterator[EndpointPool]:
    servers = []
    for servicer in servicers:
        service = Service(
            name="raglan.v1.TestService", register=lambda s, each=servicer: add(each, s)
        )
        servers.append(Server(service, GrpcSettings(shutdown_drain_s=0, shutdown_grace_s=0)))
        await servers[-1].start()
    addresses = ",".join(f"127.0.0.1:{server.port}" for server in servers)
    pool = EndpointPool("test", addresses, stub)
    try:
        async with asyncio.timeout(LIMIT_S):
            while any(each.reach is not Reach.SERVING for each in pool.replicas.all):
                await asyncio.sleep(0.01)
        yield pool
    finally:
        await pool.close()
        for server in servers:
            await server.stop()


def attempts(traces: tracing.Tracing) -> dict[str, ReadableSpan]:
    """The calls of the trace, by why they were sent."""
    spans, _ = traces.recent.of(int(TRACE, 16))
    return {
        str((span.attributes or {})[semconv.ATTEMPT]): span
        for span in spans
        if span.kind is SpanKind.CLIENT
    }


def in_trace() -> request_context.incoming:
    return request_context.incoming({"traceparent": f"00-{TRACE}-b7ad6b7169203331-00"})


@pytest.mark.parametrize("faster", ["first", "hedge"])
async def test_who_was_slower_of_two_is_overtaken_and_no_error(
    traces: tracing.Tracing, faster: str
) -> None:
    delays_s: list[float] = []
    ask = reranker_pb2.RerankRequest(query="?")
    async with pool_of(
        [Reranker(delays_s), Reranker(delays_s)],
        reranker_pb2_grpc.add_RerankerServiceServicer_to_server,
        reranker_pb2_grpc.RerankerServiceStub,
    ) as pool:
        for _ in range(40):
            await pool.call("Rerank", ask, deadline=Deadline.after(LIMIT_S), hedge=True)
        delays_s += [0.3, 5] if faster == "first" else [5, 0.3]
        with in_trace():
            await pool.call("Rerank", ask, deadline=Deadline.after(LIMIT_S), hedge=True)
    found = attempts(traces)
    slower = {"first": "hedge", "hedge": "first"}[faster]
    assert found[faster].status.status_code is StatusCode.OK
    assert found[slower].status.status_code is StatusCode.UNSET
    assert (found[slower].attributes or {})[semconv.ATTEMPT_OVERTAKEN] is True


@pytest.mark.parametrize("replies", [0, 2])
async def test_a_stream_that_is_silent_for_too_long_ran_out_of_time(
    traces: tracing.Tracing, replies: int
) -> None:
    generator = Generator()
    generator.replies = replies
    async with pool_of(
        [generator],
        generator_pb2_grpc.add_GeneratorServiceServicer_to_server,
        generator_pb2_grpc.GeneratorServiceStub,
    ) as pool:
        with in_trace():
            stream = pool.stream(
                "Generate",
                generator_pb2.GenerateRequest(question="?"),
                deadline=Deadline.after(LIMIT_S),
                first_by=Deadline.after(0.2 if not replies else LIMIT_S),
                gap_s=0.1,
            )
            with pytest.raises(errors.DeadlineExceeded):
                async with aclosing(stream) as events:
                    async for _ in events:
                        pass
    found = attempts(traces)["first"]
    assert found.status.status_code is StatusCode.ERROR
    assert (found.attributes or {})[semconv.RPC_STATUS] == "DEADLINE_EXCEEDED"
    assert (found.attributes or {})[semconv.ERROR_TYPE] == "deadline_exceeded"


async def test_a_reader_who_leaves_in_time_is_no_timeout(traces: tracing.Tracing) -> None:
    generator = Generator()
    generator.replies = 2
    async with pool_of(
        [generator],
        generator_pb2_grpc.add_GeneratorServiceServicer_to_server,
        generator_pb2_grpc.GeneratorServiceStub,
    ) as pool:
        with in_trace():
            stream = pool.stream(
                "Generate",
                generator_pb2.GenerateRequest(question="?"),
                deadline=Deadline.after(LIMIT_S),
                gap_s=LIMIT_S,
            )
            async with aclosing(stream) as events:
                await anext(events)
    found = attempts(traces)["first"]
    assert (found.attributes or {})[semconv.RPC_STATUS] == "CANCELLED"
