"""Sentences that situate passages, over a server that behaves and one that does not."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from raglan.deadline import Deadline
from raglan.errors import InvalidInput, NotSupported, Unavailable
from raglan.rpc import client
from raglan.rpc.server import Server
from raglan.v1 import generator_pb2, generator_pb2_grpc
from raglan_generator.app import build
from raglan_generator.settings import GeneratorSettings

ASKED = generator_pb2.SituateRequest(
    title="Pumps",
    document="The P7 is a bilge pump. It has to be vented.",
    passage="It has to be vented.",
    tenant="t",
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


async def situated(stub, request=ASKED) -> generator_pb2.SituateResponse:
    return await client.call(stub.Situate, request, deadline=Deadline.after(20))


async def test_the_model_is_shown_document_and_passage_as_data(stub, llm) -> None:
    async def script(exchange) -> None:
        await exchange.stream("<think>Which pump?</think>", '"It is about venting\nthe P7."')

    llm.script = script
    reply = await situated(stub)
    assert reply.sentence == "It is about venting the P7."
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (11, 7)
    [exchange] = llm.exchanges
    assert exchange.body["temperature"] == 0
    assert exchange.body["cache_salt"]
    user = json.loads(exchange.body["messages"][-1]["content"])
    assert list(user) == ["title", "document", "passage"]
    assert user == {name: getattr(ASKED, name) for name in user}


@pytest.mark.parametrize("written", ["", "...", "word " * 200])
async def test_what_is_no_sentence_is_an_error(stub, llm, written: str) -> None:
    async def script(exchange) -> None:
        await exchange.stream(written)

    llm.script = script
    with pytest.raises(Unavailable, match="situated no passage|wrote nothing|empty"):
        await situated(stub)


async def test_a_sentence_that_was_cut_is_an_error(stub, llm) -> None:
    async def script(exchange) -> None:
        await exchange.stream("It is about the", reason="length")

    llm.script = script
    with pytest.raises(Unavailable, match="more than a sentence"):
        await situated(stub)


@pytest.mark.parametrize("name", ["document", "passage"])
async def test_both_are_needed(stub, name: str) -> None:
    request = generator_pb2.SituateRequest()
    request.CopyFrom(ASKED)
    setattr(request, name, " ")
    with pytest.raises(InvalidInput, match="give both"):
        await situated(stub, request)


@pytest.mark.parametrize("engine", ["extractive", "null"])
async def test_without_a_language_model_it_says_so(engine: str) -> None:
    server = await served(engine=engine)
    channel = client.connect(f"127.0.0.1:{server.port}")
    with pytest.raises(NotSupported, match=f"The {engine} generator has no language model"):
        await situated(generator_pb2_grpc.GeneratorServiceStub(channel))
    await channel.close()
    await server.stop()
