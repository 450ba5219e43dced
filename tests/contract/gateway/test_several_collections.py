"""A question to several collections, through a gateway and a retriever over real sockets."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import gateway_serving
import httpx
import mesh_process
import numpy as np
import pytest
from raglan.rpc.server import Server, Service
from raglan.v1 import retriever_pb2_grpc
from raglan_gateway import collection_profiles
from raglan_retriever.chunks import Chunk
from raglan_retriever.collection import Model
from raglan_retriever.index import Index
from raglan_retriever.query import Fusion, Limits
from raglan_retriever.servicer import RetrieverServicer
from raglan_retriever.settings import RetrieverSettings
from stalling_store import StallingStore

# Edge holds the interpreter while it opens a collection, whatever thread calls it.
pytestmark = pytest.mark.loop_stall_s(1.0)

BUDGET_MS = 5_000
TIMEOUT_MS = 60_000
MODEL = Model("m", "r", 4)


def chunk(name: str, number: int) -> Chunk:
    text = f"Pears of {name}, sort {number}."
    return Chunk(
        chunk_id=f"{name}{number}#0",
        document_id=f"{name}{number}",
        ordinal=0,
        title="",
        text=text,
        start=0,
        end=len(text),
        heading_path=(),
        metadata_json="{}",
    )


@asynccontextmanager
async def retriever(store: StallingStore) -> AsyncIterator[str]:
    index = Index(store, limits=Limits(), language="en")
    servicer = RetrieverServicer(index, fusion=Fusion())
    service = Service(
        name="raglan.v1.RetrieverService",
        register=lambda server: retriever_pb2_grpc.add_RetrieverServiceServicer_to_server(
            servicer, server
        ),
        start=store.open,
        close=store.close,
    )
    server = Server(service, RetrieverSettings(port=0, shutdown_drain_s=0))
    await server.start()
    for name in ("a", "b", "c"):
        await index.create(name, MODEL, 0, 0)
        rows = np.eye(4, dtype=np.float32)[:3]
        await index.upsert(name, MODEL, [chunk(name, number) for number in range(3)], rows)
    yield f"127.0.0.1:{server.port}"
    store.released.set()
    await server.stop()


@pytest.fixture
def store(tmp_path: Path) -> StallingStore:
    return StallingStore(tmp_path / "index")


@pytest.fixture
async def client(store: StallingStore, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the gateway, behind which only the retriever is there."""
    async with retriever(store) as address:
        options: dict[str, Any] = {
            "retriever_address": address,
            "collection_budget_ms": BUDGET_MS,
            "retrieve_budget_ms": 4 * BUDGET_MS,
            "default_collection": "",
            "data_dir": tmp_path / "gateway",
        }
        async with (
            gateway_serving.serving(**options) as (gateway, _),
            httpx.AsyncClient(base_url=gateway.url, timeout=60) as http,
        ):
            yield http


def body(*collections: str, **changes: Any) -> dict[str, Any]:
    asked = {"query": "pears", "collections": collections, "mode": "lexical", "rerank": False}
    return asked | {"timeout_ms": TIMEOUT_MS} | changes


async def test_a_stalled_collection_costs_its_budget_and_is_named(
    client: httpx.AsyncClient, store: StallingStore
) -> None:
    store.stalled = "b"
    began = time.monotonic()
    reply = (await client.post("/v1/search", json=body("a", "b", "c"))).json()
    assert time.monotonic() - began < TIMEOUT_MS / 1e3 / 2
    searched = {each["collection"]: each for each in reply["collections"]}
    assert [searched[name]["passages"] for name in "abc"] == [3, 0, 3]
    assert searched["a"]["took_ms"] < searched["b"]["took_ms"]
    assert searched["a"]["error"] == searched["c"]["error"] == ""
    assert {each["collection"] for each in reply["passages"]} == {"a", "c"}
    (note,) = reply["degraded"]
    assert (note["stage"], note["collection"], note["fallback"]) == ("collection", "b", "left_out")
    assert "Collection 'b' did not answer within" in note["reason"]


async def test_the_next_search_of_a_collection_that_recovered_is_whole(
    client: httpx.AsyncClient, store: StallingStore
) -> None:
    """What was left out is in no cache."""
    store.stalled = "b"
    first = (await client.post("/v1/search", json=body("a", "b"))).json()
    assert len(first["degraded"]) == 1
    store.stalled = ""
    store.released.set()
    again = (await client.post("/v1/search", json=body("a", "b"))).json()
    assert again["degraded"] == []
    assert {each["collection"] for each in again["passages"]} == {"a", "b"}


async def test_a_search_of_which_all_collections_stall_fails_in_time(
    client: httpx.AsyncClient, store: StallingStore
) -> None:
    store.stalled = "b"
    began = time.monotonic()
    reply = await client.post("/v1/search", json=body("b", timeout_ms=1_000))
    assert reply.status_code == 504
    assert time.monotonic() - began < TIMEOUT_MS / 1e3 / 2


async def test_a_collection_that_does_not_exist_is_404(client: httpx.AsyncClient) -> None:
    reply = await client.post("/v1/search", json=body("a", "nowhere"))
    assert reply.status_code == 404
    assert "'nowhere'" in reply.json()["error"]["message"]


async def test_every_form_of_a_reply_says_how_collections_were_searched(
    client: httpx.AsyncClient, store: StallingStore
) -> None:
    store.stalled = "b"
    asked = body("a", "b")
    stream = await client.post("/v1/query", json=asked | {"stream": True})
    shown = dict(mesh_process.events(stream))
    chat = await client.post(
        "/v1/chat/completions",
        json={
            "model": "raglan",
            "messages": [{"role": "user", "content": "pears"}],
            "raglan": {"collections": ["a", "b"], "mode": "lexical", "rerank": False},
        },
    )
    assert chat.status_code == 200, chat.text
    for collections in (
        shown["sources"]["collections"],
        shown["final"]["collections"],
        chat.json()["raglan"]["collections"],
    ):
        assert [each["collection"] for each in collections] == ["a", "b"], json.dumps(collections)
        assert [bool(each["error"]) for each in collections] == [False, True]


async def test_a_collection_s_profile_decides_where_a_request_names_none(
    client: httpx.AsyncClient,
) -> None:
    changed = await client.patch("/v1/collections/a", json={"profile": "fast"})
    assert changed.json()["profile"] == "fast"
    assert (await client.get("/v1/collections/a")).json()["profile"] == "fast"
    asked = {"query": "pears", "mode": "lexical"}

    async def is_reranked(**changes: Any) -> bool:
        """The reranker is away, so a reply that asked for it is degraded."""
        reply = (await client.post("/v1/search", json=asked | changes)).json()
        return any(each["stage"] == "rerank" for each in reply["degraded"])

    assert not await is_reranked(collections=["a"])
    assert await is_reranked(collections=["b"])
    assert await is_reranked(collections=["a", "b"]), "of two that differ, none decides"
    assert await is_reranked(collections=["a"], profile="balanced")
    await client.patch("/v1/collections/b", json={"profile": "fast"})
    assert not await is_reranked(collections=["a", "b"])
    await client.patch("/v1/collections/a", json={"profile": None})
    assert await is_reranked(collections=["a"])


async def test_the_profile_of_a_collection_outlasts_the_retriever(
    store: StallingStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collection_profiles, "FRESH_S", 0.0)
    asked = {"query": "pears", "collections": ["a"], "mode": "lexical", "timeout_ms": TIMEOUT_MS}
    async with AsyncExitStack() as index:
        address = await index.enter_async_context(retriever(store))
        options = {"default_collection": "", "data_dir": tmp_path / "gateway"}
        async with (
            gateway_serving.serving(retriever_address=address, **options) as (gateway, _),
            httpx.AsyncClient(base_url=gateway.url, timeout=60) as client,
        ):
            await client.patch("/v1/collections/a", json={"profile": "fast"})
            first = (await client.post("/v1/search", json=asked)).json()
            assert first["degraded"] == [], "the profile asks for no reranking"
            await index.aclose()
            kept = (await client.post("/v1/search", json=asked)).raise_for_status().json()
            assert kept["passages"] == first["passages"], "one without the profile is another"
            greeting = await client.post("/v1/query", json=asked | {"query": "Hello!"})
            assert greeting.status_code == 200


async def test_a_greeting_to_a_collection_that_does_not_exist_is_404(
    client: httpx.AsyncClient,
) -> None:
    for query in ("Hello!", "pears"):
        for stream in (False, True):
            asked = body("z", query=query, stream=stream)
            reply = await client.post("/v1/query", json=asked)
            assert reply.status_code == 404, (query, stream)
            assert reply.json()["error"]["message"] == "There is no collection 'z'."
    assert (await client.post("/v1/query", json=body("a", query="Hello!"))).status_code == 200


async def test_an_unknown_profile_or_collection_is_refused(client: httpx.AsyncClient) -> None:
    unknown = await client.patch("/v1/collections/a", json={"profile": "quick"})
    assert unknown.status_code == 422
    assert "balanced" in unknown.json()["error"]["message"]
    assert (await client.patch("/v1/collections/z", json={"profile": "fast"})).status_code == 404
    assert (await client.patch("/v1/collections/a", json={})).status_code == 422
