"""The null store behind the real index and server."""

from __future__ import annotations

import numpy as np
import pytest
from raglan import tensors
from raglan.deadline import Deadline
from raglan.errors import Conflict
from raglan.rpc import client
from raglan.rpc.server import Server
from raglan.v1 import common_pb2, retriever_pb2, retriever_pb2_grpc
from raglan_retriever.app import build
from raglan_retriever.settings import RetrieverSettings

MODEL = common_pb2.ModelIdentity(id="any", revision="7", dimension=3)


async def serving():
    settings = RetrieverSettings(store="null", port=0, shutdown_drain_s=0)
    server = Server(build(settings), settings)
    await server.start()
    async with client.connect(f"127.0.0.1:{server.port}") as channel:
        yield retriever_pb2_grpc.RetrieverServiceStub(channel)
    await server.stop()


@pytest.fixture
async def stub():
    async for one in serving():
        yield one


@pytest.fixture
async def replica():
    async for one in serving():
        yield one


async def call(method, request):
    return await client.call(method, request, deadline=Deadline.after(10))


def searching(
    mode: retriever_pb2.SearchMode.ValueType, limit: int = 20
) -> retriever_pb2.SearchRequest:
    return retriever_pb2.SearchRequest(
        collections=["whatever"],
        text="What costs how much?",
        mode=mode,
        limit=limit,
        vector=tensors.pack(np.ones((1, 3), np.float32)),
        embedder=MODEL,
    )


@pytest.mark.parametrize(
    "mode",
    [
        retriever_pb2.SEARCH_MODE_HYBRID,
        retriever_pb2.SEARCH_MODE_DENSE,
        retriever_pb2.SEARCH_MODE_LEXICAL,
    ],
)
async def test_replicas_find_the_same_in_any_collection_for_any_model(stub, replica, mode):
    found, other = [await call(each.Search, searching(mode)) for each in (stub, replica)]
    assert [passage.document_id for passage in found.passages] == [
        f"null-{number}" for number in range(1, 21)
    ]
    assert list(found.passages) == list(other.passages)
    assert all(len(passage.text) == passage.end - passage.start for passage in found.passages)


async def test_no_more_is_found_than_there_is(stub):
    found = await call(stub.Search, searching(retriever_pb2.SEARCH_MODE_HYBRID, limit=1000))
    assert len(found.passages) == 50


async def test_making_a_collection_succeeds_again_and_again(stub):
    request = retriever_pb2.CreateCollectionRequest(
        name="mine",
        embedder=MODEL,
        chunking=retriever_pb2.Chunking(max_chars=900, overlap_chars=90),
    )
    for _ in range(2):
        made = await call(stub.CreateCollection, request)
        assert (made.name, made.chunks) == ("mine", 50)


async def test_what_would_change_it_is_refused_with_the_way_out(stub):
    dropping = retriever_pb2.DeleteCollectionRequest(name="mine")
    with pytest.raises(Conflict, match="RAGLAN_RETRIEVER_STORE"):
        await call(stub.DeleteCollection, dropping)
    upserting = retriever_pb2.UpsertRequest(
        collection="mine",
        embedder=common_pb2.ModelIdentity(id="null", revision="1", dimension=384),
        chunks=[retriever_pb2.Chunk(chunk_id="a#0", document_id="a", text="text", end=4)],
        vectors=tensors.pack(np.ones((1, 384), np.float32)),
    )
    with pytest.raises(Conflict, match="RAGLAN_RETRIEVER_STORE"):
        await call(stub.Upsert, upserting)
