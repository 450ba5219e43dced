"""Search texts by the gRPC service, over a server that behaves and one that does not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from raglan.deadline import Deadline
from raglan.errors import DeadlineExceeded, InvalidInput, NotSupported, Unavailable
from raglan.rpc import client
from raglan.rpc.server import Server
from raglan.v1 import generator_pb2, generator_pb2_grpc
from raglan_generator.app import build
from raglan_generator.settings import GeneratorSettings

ASKED = generator_pb2.RewriteRequest(
    kind=generator_pb2.REWRITE_KIND_MULTI_QUERY, question="How do I pin it?", count=3, tenant="t"
)


async def served(**options: Any) -> Server:
    settings = GeneratorSettings(port=0, shutdown_drain_s=0, shutdown_grace_s=0, **options)
    server = Server(build(settings), settings)
    await server.start()
    return server


@pytest.fixture
async def stub(llm) -> AsyncIterator[generator_pb2_grpc.GeneratorServiceAsyncStub]:
    server = await served(engine="openai", base_url=llm.base_url, model="tiny")
    channel = client.connect(f"127.0.0.1:{server.port}")
    yield generator_pb2_grpc.GeneratorServiceStub(channel)
    await channel.close()
    await server.stop()


async def rewritten(stub, request=ASKED, seconds: float = 20) -> generator_pb2.RewriteResponse:
    return await client.call(stub.Rewrite, request, deadline=Deadline.after(seconds))


async def test_the_model_writes_texts_under_the_tenants_salt(stub, llm) -> None:
    async def script(exchange) -> None:
        await exchange.stream("<think>Two will do.</think>1. pin the ", "reranker\n2. pin a device")

    llm.script = script
    reply = await rewritten(stub)
    assert list(reply.texts) == ["pin the reranker", "pin a device"]
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (11, 7)
    [exchange] = llm.exchanges
    assert exchange.body["temperature"] == 0
    assert exchange.body["cache_salt"]
    user = exchange.body["messages"][-1]["content"]
    assert json.loads(user) == {"question": "How do I pin it?"}


@pytest.mark.parametrize("engine", ["extractive", "null"])
async def test_without_a_language_model_it_says_so(engine: str) -> None:
    server = await served(engine=engine)
    channel = client.connect(f"127.0.0.1:{server.port}")
    with pytest.raises(NotSupported, match=f"The {engine} generator has no language model"):
        await rewritten(generator_pb2_grpc.GeneratorServiceStub(channel))
    await channel.close()
    await server.stop()


async def test_a_stalled_server_is_left_at_the_deadline(stub, llm, frame) -> None:
    async def script(exchange) -> None:
        await exchange.begin()
        await exchange.chunk(frame("pin the"))
        await exchange.left()

    llm.script = script
    with pytest.raises(DeadlineExceeded):
        await rewritten(stub, seconds=0.5)
    await asyncio.wait_for(llm.closed.wait(), 5)


async def test_a_connection_that_breaks_off_is_an_error(stub, llm, frame) -> None:
    async def script(exchange) -> None:
        await exchange.begin()
        await exchange.chunk(frame("pin the reranker\npin"))
        exchange.writer.transport.abort()

    llm.script = script
    with pytest.raises(Unavailable):
        await rewritten(stub)


async def test_a_model_that_does_not_stop_is_stopped(stub, llm, frame) -> None:
    async def script(exchange) -> None:
        await exchange.begin()
        while True:
            await exchange.chunk(frame("another line\n" * 100))

    llm.script = script
    with pytest.raises(Unavailable, match="more than 8000 characters"):
        await rewritten(stub)
    await asyncio.wait_for(llm.closed.wait(), 5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"question": " "}, "empty"),
        ({"kind": 0}, "kind is 0"),
        ({"count": 9}, "count is 9; the limit is 8"),
        ({"question": "x" * 8_001}, "MAX_QUESTION_CHARS"),
    ],
)
async def test_what_is_wrong_is_named(stub, changes: dict[str, Any], message: str) -> None:
    request = generator_pb2.RewriteRequest(kind=1, question="Why?")
    for name, value in changes.items():
        setattr(request, name, value)
    with pytest.raises(InvalidInput, match=message):
        await rewritten(stub, request)
