"""Several generators side by side: chosen by profile, the next one asked where one fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
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

PROFILES = """
[profiles.large]
instructions = "Be polite."
generator = ["large", "default"]
"""
ASK = {"query": "Who built the engine?", "mode": "lexical", "rerank": False}


class Retriever(retriever_pb2_grpc.RetrieverServiceServicer):
    async def Search(self, request: Any, context: Any) -> Any:
        passage = common_pb2.Passage(chunk_id="a", document_id="a", text="Nothing.", end=8)
        return retriever_pb2.SearchResponse(passages=[passage])


class Generator(generator_pb2_grpc.GeneratorServiceServicer):
    def __init__(self, name: str) -> None:
        self.name = name
        self.asked: list[Any] = []

    async def Generate(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.asked.append(request)
        yield generator_pb2.GenerateEvent(delta=generator_pb2.Delta(text="Nothing."))
        finished = generator_pb2.Finished(reason=generator_pb2.FINISH_REASON_STOP, model=self.name)
        yield generator_pb2.GenerateEvent(finished=finished)


async def serve(name: str, register: Any) -> Server:
    server = Server(Service(name, register), GrpcSettings(shutdown_drain_s=0, shutdown_grace_s=0))
    await server.start()
    return server


async def generator(name: str) -> tuple[Generator, Server]:
    made = Generator(name)

    def register(server: Any) -> None:
        generator_pb2_grpc.add_GeneratorServiceServicer_to_server(made, server)

    return made, await serve("raglan.v1.GeneratorService", register)


async def test_a_profile_chooses_its_generator_and_the_next_answers_where_it_is_away(
    tmp_path: Path,
) -> None:
    path = tmp_path / "profiles.toml"
    await asyncio.to_thread(path.write_text, PROFILES)
    default, default_server = await generator("default")
    large, large_server = await generator("large")
    retriever_server = await serve(
        "raglan.v1.RetrieverService",
        lambda server: retriever_pb2_grpc.add_RetrieverServiceServicer_to_server(
            Retriever(), server
        ),
    )
    addresses = {
        "retriever_address": f"127.0.0.1:{retriever_server.port}",
        "generator_address": f"127.0.0.1:{default_server.port}",
        "generators": f"large=127.0.0.1:{large_server.port}",
    }
    settings = GatewaySettings(
        **{**gateway_serving.NOWHERE, **addresses},
        profiles_file=path,
        data_dir=tmp_path,
        default_collection="",
    )
    async with AsyncExitStack() as stack:
        for server in (default_server, retriever_server):
            stack.push_async_callback(server.stop)
        app = build(settings)
        await stack.enter_async_context(app.router.lifespan_context(app))
        client = await stack.enter_async_context(
            httpx.AsyncClient(
                transport=httpx.ASGITransport(app=app), base_url="http://localhost", timeout=20
            )
        )

        async def ask(**body: Any) -> Any:
            reply = await client.post("/v1/query", json={**ASK, "collections": ["c"], **body})
            assert reply.status_code == 200, reply.text
            return reply.json()

        assert (await ask())["model"] == "default"
        assert (await ask(profile="large"))["model"] == "large"
        assert [each.instructions for each in large.asked] == ["Be polite."]
        assert [each.instructions for each in default.asked] == [""]
        await large_server.stop()
        again = await ask(profile="large")
        assert (again["model"], again["degraded"]) == ("default", [])
        assert default.asked[-1].instructions == "Be polite."
        refused = await client.post("/v1/query", json={**ASK, "profile": "none"})
        assert refused.status_code == 422
