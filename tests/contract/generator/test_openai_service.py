"""The openai engine behind the gRPC service: what the caller sees and what leaving does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest
from raglan.deadline import Deadline
from raglan.errors import Overloaded, Unavailable
from raglan.rpc import client
from raglan.rpc.server import Server
from raglan.v1 import common_pb2, generator_pb2, generator_pb2_grpc
from raglan_generator.app import build
from raglan_generator.settings import GeneratorSettings

TEXT = "The reranker runs on the second GPU."
ASKED = generator_pb2.GenerateRequest(
    question="Where does the reranker run?",
    passages=[common_pb2.Passage(text=TEXT, end=len(TEXT))],
)


@pytest.fixture
async def stub(llm) -> AsyncIterator[generator_pb2_grpc.GeneratorServiceAsyncStub]:
    settings = GeneratorSettings(
        port=0,
        shutdown_drain_s=0,
        shutdown_grace_s=0,
        engine="openai",
        base_url=llm.base_url,
        model="tiny",
        max_concurrency=1,
    )
    server = Server(build(settings), settings)
    await server.start()
    channel = client.connect(f"127.0.0.1:{server.port}")
    yield generator_pb2_grpc.GeneratorServiceStub(channel)
    await channel.close()
    await server.stop()


@pytest.fixture
def hanging(llm, frame) -> None:
    """The LLM server says two words and then nothing."""

    async def script(exchange) -> None:
        await exchange.begin()
        await exchange.chunk(frame("The reranker"))
        await exchange.left()

    llm.script = script


def asking(stub, seconds: float = 20):
    return aclosing(client.stream(stub.Generate, ASKED, deadline=Deadline.after(seconds)))


@pytest.mark.usefixtures("hanging")
async def test_a_caller_who_leaves_closes_the_upstream_connection(stub, llm) -> None:
    async with asking(stub) as events:
        assert (await anext(events)).delta.text == "The reranker"
    await asyncio.wait_for(llm.closed.wait(), 0.5)


@pytest.mark.usefixtures("hanging")
async def test_answers_over_the_limit_are_refused_at_once(stub) -> None:
    async with asking(stub) as events:
        await anext(events)
        with pytest.raises(Overloaded, match="MAX_CONCURRENCY") as caught:
            async with asking(stub) as others:
                await anext(others)
    assert caught.value.retry_after_s == 1


async def test_an_overloaded_llm_passes_its_delay_on(stub, llm) -> None:
    async def script(exchange) -> None:
        await exchange.respond(429, b"{}", "retry-after: 3")

    llm.script = script
    with pytest.raises(Overloaded) as caught:
        async with asking(stub) as events:
            await anext(events)
    assert caught.value.retry_after_s == 3


async def test_a_broken_stream_ends_in_a_status_not_in_text(stub, llm, frame) -> None:
    async def script(exchange) -> None:
        await exchange.begin()
        await exchange.chunk(frame("The reranker") + b"data: {")
        exchange.writer.close()

    llm.script = script
    said = ""
    with pytest.raises(Unavailable):
        async with asking(stub) as events:
            async for event in events:
                said += event.delta.text
    assert said == "The reranker"


async def test_get_info_names_the_model(stub) -> None:
    info = await client.call(stub.GetInfo, common_pb2.GetInfoRequest(), deadline=Deadline.after(5))
    assert (info.engine, info.model.id, info.device) == ("openai", "tiny", "remote")
