"""What a gateway answers once its only retriever is gone, over services without models."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
from raglan.rpc.server import Server
from raglan.telemetry import semconv, tracing
from raglan_embedder.app import build as build_embedder
from raglan_embedder.settings import EmbedderSettings
from raglan_gateway.app import build as build_gateway
from raglan_gateway.settings import GatewaySettings
from raglan_generator.app import build as build_generator
from raglan_generator.settings import GeneratorSettings
from raglan_reranker.app import build as build_reranker
from raglan_reranker.settings import RerankerSettings
from raglan_retriever.app import build as build_retriever
from raglan_retriever.settings import RetrieverSettings

QUICK = {"port": 0, "shutdown_drain_s": 0, "shutdown_grace_s": 0}
ASK = {"query": "Who built the engine?", "collections": ["default"], "top_k": 3}


class Mesh:
    """Null engines, and a gateway before them."""

    def __init__(self) -> None:
        self.servers: dict[str, Server] = {}

    async def start(self, name: str, service: Any, settings: Any) -> str:
        server = Server(service, settings)
        self.servers[name] = server
        await server.start()
        return f"127.0.0.1:{server.port}"


@pytest.fixture
async def mesh() -> AsyncIterator[Mesh]:
    mesh = Mesh()
    yield mesh
    for server in mesh.servers.values():
        await server.stop()


@pytest.fixture
def traces() -> Iterator[tracing.Tracing]:
    installed = tracing.install("gateway")
    yield installed
    installed.close()


@pytest.fixture
async def client(mesh: Mesh) -> AsyncIterator[httpx.AsyncClient]:
    services: tuple[tuple[str, Any, Any], ...] = (
        ("embedder", build_embedder, EmbedderSettings(engine="null", **QUICK)),
        ("retriever", build_retriever, RetrieverSettings(store="null", **QUICK)),
        ("reranker", build_reranker, RerankerSettings(engine="null", **QUICK)),
        ("generator", build_generator, GeneratorSettings(engine="null", **QUICK)),
    )
    addresses = {
        f"{name}_address": await mesh.start(name, build(settings), settings)
        for name, build, settings in services
    }
    app = build_gateway(
        GatewaySettings(
            ingester_address="127.0.0.1:1",
            default_collection="",
            embedding_cache_s=0,
            evidence_cache_s=0,
            answer_cache_s=0,
            **addresses,
        )
    )
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(app.router.lifespan_context(app))
        transport = httpx.ASGITransport(app=app)
        yield await stack.enter_async_context(
            httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=20)
        )


def events(text: str) -> list[tuple[str, Any]]:
    lines = text.splitlines()
    names = [line[7:] for line in lines if line.startswith("event: ")]
    data = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
    return list(zip(names, data, strict=True))


async def test_a_question_answered_before_is_answered_again_and_says_how_old_it_is(
    traces: tracing.Tracing, mesh: Mesh, client: httpx.AsyncClient
) -> None:
    before = (await client.post("/v1/query", json=ASK)).json()
    found = (await client.post("/v1/search", json=ASK)).json()
    assert before["degraded"] == []
    await mesh.servers.pop("retriever").stop()

    again = await client.post("/v1/query", json=ASK)
    assert again.status_code == 200
    (degraded,) = again.json()["degraded"]
    assert (degraded["stage"], degraded["fallback"]) == ("retrieve", "cached_answer")
    assert "s ago" in degraded["reason"]
    assert again.json()["answer"] == before["answer"]
    assert again.json()["id"] != before["id"]
    assert (await client.post("/v1/search", json=ASK)).json()["passages"] == found["passages"]

    spans, _ = traces.recent.of(int(again.json()["trace_id"], 16))
    (first,) = [span for span in spans if span.name == "POST /v1/query"]
    said = first.attributes or {}
    assert (said[semconv.CACHE_LAYER], said[semconv.CACHE_HITS]) == ("kept_answers", 1)
    assert said[semconv.REQUEST_ID] == again.headers["x-request-id"]

    ready = await client.get("/readyz")
    assert (ready.status_code, ready.json()["rung"]) == (503, "kept_answers")


async def test_what_was_never_asked_is_refused_at_once_with_503(
    mesh: Mesh, client: httpx.AsyncClient
) -> None:
    assert (await client.post("/v1/search", json=ASK)).status_code == 200
    await mesh.servers.pop("retriever").stop()
    response = await client.post("/v1/search", json=ASK | {"query": "Something else?"})
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) >= 1
    assert response.elapsed.total_seconds() < 1


async def test_a_kept_answer_streams_as_any_other(mesh: Mesh, client: httpx.AsyncClient) -> None:
    before = events((await client.post("/v1/query", json=ASK | {"stream": True})).text)
    await mesh.servers.pop("retriever").stop()
    after = events((await client.post("/v1/query", json=ASK | {"stream": True})).text)
    names = [name for name, _ in after]
    assert (names[0], names[1], names[-2:]) == ("start", "sources", ["final", "done"])
    text = "".join(data["text"] for name, data in before if name == "delta")
    assert "".join(data["text"] for name, data in after if name == "delta") == text
    assert dict(after)["final"]["degraded"][0]["fallback"] == "cached_answer"


async def test_a_wrong_request_gets_no_kept_answer(mesh: Mesh, client: httpx.AsyncClient) -> None:
    assert (await client.post("/v1/search", json=ASK | {"top_k": 0})).status_code == 422


@pytest.mark.parametrize("stream", [False, True])
async def test_an_unknown_priority_is_refused(client: httpx.AsyncClient, stream: bool) -> None:
    response = await client.post(
        "/v1/query", json=ASK | {"stream": stream}, headers={"X-Raglan-Priority": "vip"}
    )
    assert response.status_code == 422
    assert "critical" in response.json()["error"]["message"]


async def test_without_services_each_rung_answers_as_the_ladder_says(
    mesh: Mesh, client: httpx.AsyncClient
) -> None:
    assert (await client.post("/v1/query", json=ASK)).json()["degraded"] == []
    expected = {"reranker": "fused_order", "embedder": "lexical", "generator": "passages"}
    fallen = set()
    for service, fallback in expected.items():
        await mesh.servers.pop(service).stop()
        fallen.add(fallback)
        reply = (await client.post("/v1/query", json=ASK)).json()
        assert {each["fallback"] for each in reply["degraded"]} >= fallen
        assert reply["answer"]
        assert reply["citations"]
        assert (await client.get("/readyz")).status_code == 200
