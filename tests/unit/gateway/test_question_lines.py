"""A question of several lines reaches the model as it was asked, and the search in one line."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import gateway_serving
import httpx
from raglan.rpc.server import Server, Service
from raglan.settings import GrpcSettings
from raglan.v1 import (
    common_pb2,
    generator_pb2,
    generator_pb2_grpc,
    retriever_pb2,
    retriever_pb2_grpc,
)
from raglan_gateway.app import build
from raglan_gateway.settings import GatewaySettings

QUESTION = "What is wrong here?\n\n    def f():\n        return  1\n\n- first\n- second"


class Retriever(retriever_pb2_grpc.RetrieverServiceServicer):
    def __init__(self) -> None:
        self.asked: list[str] = []

    async def Search(self, request: Any, context: Any) -> Any:
        self.asked.append(request.text)
        passage = common_pb2.Passage(chunk_id="a", document_id="a", text="Nothing.")
        return retriever_pb2.SearchResponse(passages=[passage])


class Generator(generator_pb2_grpc.GeneratorServiceServicer):
    def __init__(self) -> None:
        self.asked: list[str] = []

    async def Generate(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.asked.append(request.question)
        finished = generator_pb2.Finished(reason=generator_pb2.FINISH_REASON_STOP)
        yield generator_pb2.GenerateEvent(delta=generator_pb2.Delta(text="Nothing."))
        yield generator_pb2.GenerateEvent(finished=finished)


async def served(stack: AsyncExitStack, name: str, register: Any) -> str:
    server = Server(Service(name, register), GrpcSettings(shutdown_drain_s=0, shutdown_grace_s=0))
    await server.start()
    stack.push_async_callback(server.stop)
    return f"127.0.0.1:{server.port}"


async def test_the_model_reads_the_lines_of_a_question() -> None:
    retriever, generator = Retriever(), Generator()
    async with AsyncExitStack() as stack:
        addresses = {
            "retriever_address": await served(
                stack,
                "raglan.v1.RetrieverService",
                lambda s: retriever_pb2_grpc.add_RetrieverServiceServicer_to_server(retriever, s),
            ),
            "generator_address": await served(
                stack,
                "raglan.v1.GeneratorService",
                lambda s: generator_pb2_grpc.add_GeneratorServiceServicer_to_server(generator, s),
            ),
        }
        app = build(GatewaySettings(**(gateway_serving.NOWHERE | addresses)))
        await stack.enter_async_context(app.router.lifespan_context(app))
        transport = httpx.ASGITransport(app=app)
        client = await stack.enter_async_context(
            httpx.AsyncClient(transport=transport, base_url="http://localhost")
        )
        async with asyncio.timeout(20):
            while True:
                states = (await client.get("/readyz")).json()["dependencies"]
                if states["retriever"] == states["generator"] == "serving":
                    break
                await asyncio.sleep(0.01)
        for text in (QUESTION, f"\n {QUESTION}\n"):
            reply = await client.post("/v1/query", json={"query": text})
            assert reply.json()["answer"] == "Nothing."
    assert generator.asked == [QUESTION] * 2
    assert set(retriever.asked) == {" ".join(QUESTION.split())}
