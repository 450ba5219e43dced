"""Calls to a Qdrant server, and their deadlines."""

from __future__ import annotations

from typing import Any, cast

import pytest
from qdrant_client import AsyncQdrantClient
from raglan.deadline import Deadline
from raglan.errors import NotFound
from raglan.rpc.dependency import Dependency
from raglan.v1 import common_pb2
from raglan_retriever.index import Index
from raglan_retriever.query import Fusion, Limits, Query
from raglan_retriever.servicer import RetrieverServicer
from raglan_retriever.stores.qdrant import QdrantStore
from raglan_retriever.stores.store import Search


@pytest.mark.loop_stall_s(2.0)  # the server computes in this process
async def test_a_qdrant_server_is_told_how_long_the_caller_waits(
    qdrant_http: tuple[str, list[tuple[str, str]]],
) -> None:
    url, seen = qdrant_http
    store = QdrantStore(AsyncQdrantClient(url, check_compatibility=False))
    Deadline.after(2.5).adopt()
    with pytest.raises(NotFound):
        await store.search("none", [Search([0.0, 1.0], 3)], None)
    await store.close()
    assert seen[-1] == ("POST", "/collections/none/points/query/batch?timeout=3")


@pytest.mark.loop_stall_s(2.0)  # the server computes in this process
async def test_a_search_reads_the_description_of_its_collection_once(
    qdrant_http, chunk, vectors, model
) -> None:
    url, seen = qdrant_http
    store = QdrantStore(AsyncQdrantClient(url, check_compatibility=False))
    index = Index(store, limits=Limits(), language="en")
    await index.create("c", model, 0, 0)
    await index.upsert("c", model, [chunk("d#0", "gate valves")], vectors(1), [0.9])
    seen.clear()
    query = Query(("c",), "hybrid", 1, "gate", vectors(1)[0], model, readability=0.9)
    assert (await index.search(query)).found
    await store.close()
    paths = sorted((method, path.partition("?")[0]) for method, path in seen)
    assert paths == [
        ("GET", "/collections/c"),
        ("POST", "/collections/c/points"),
        ("POST", "/collections/c/points/query/batch"),
        ("POST", "/collections/raglan.revisions/points"),
    ]


@pytest.mark.loop_stall_s(2.0)  # the server computes in this process
async def test_a_retriever_reports_whether_its_qdrant_answers(
    qdrant_http: tuple[str, list[tuple[str, str]]],
) -> None:
    url, seen = qdrant_http
    for address, reachable in ((url, True), ("http://127.0.0.1:1", False)):
        store = QdrantStore(AsyncQdrantClient(address, check_compatibility=False))
        behind = Dependency("qdrant", store.open)
        index = Index(store, limits=Limits(), language="en")
        servicer = RetrieverServicer(index, fusion=Fusion(), dependencies=[behind])
        info = await servicer.GetInfo(common_pb2.GetInfoRequest(), cast("Any", None))
        (found,) = info.dependencies
        assert (found.name, found.reachable) == ("qdrant", reachable)
        assert ("RAGLAN_RETRIEVER_QDRANT_URL" in found.problem) is not reachable
        await behind.close()
        await store.close()
    assert seen == [("GET", "/collections")]
