"""The null engine behind the real server: no model file, no server to ask."""

from __future__ import annotations

import pytest
from raglan.deadline import Deadline
from raglan.errors import DeadlineExceeded
from raglan.rpc import client
from raglan.rpc.server import Server
from raglan.v1 import common_pb2, generator_pb2, generator_pb2_grpc
from raglan_generator.app import build
from raglan_generator.settings import GeneratorSettings


@pytest.fixture
async def stub():
    settings = GeneratorSettings(
        engine="null", port=0, null_tokens=3, null_first_token_ms=200, shutdown_drain_s=0
    )
    server = Server(build(settings), settings)
    await server.start()
    async with client.connect(f"127.0.0.1:{server.port}") as channel:
        yield generator_pb2_grpc.GeneratorServiceStub(channel)
    await server.stop()


def asking(**fields) -> generator_pb2.GenerateRequest:
    passage = common_pb2.Passage(text="Because.", start=0, end=8)
    return generator_pb2.GenerateRequest(question="Why?", passages=[passage], **fields)


async def test_it_answers_over_the_wire(stub):
    replies = client.stream(stub.Generate, asking(), deadline=Deadline.after(10))
    events = [event async for event in replies]
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds == ["delta", "delta", "delta", "citation", "finished"]
    assert events[-1].finished.model == "null"


async def test_the_callers_limit_on_the_first_token_holds(stub):
    replies = client.stream(stub.Generate, asking(first_token_ms=20), deadline=Deadline.after(10))
    with pytest.raises(DeadlineExceeded):
        await anext(replies)
