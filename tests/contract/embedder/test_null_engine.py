"""The null engine behind the real server, queue and cache: no model file."""

from __future__ import annotations

from collections.abc import AsyncIterator

import metrics_endpoint
import numpy as np
import pytest
from raglan import tensors
from raglan.deadline import Deadline
from raglan.errors import InvalidInput
from raglan.rpc import client
from raglan.rpc.server import Server
from raglan.v1 import common_pb2, embedder_pb2, embedder_pb2_grpc
from raglan_embedder.app import build
from raglan_embedder.settings import EmbedderSettings

Stub = embedder_pb2_grpc.EmbedderServiceStub


async def serving(**changes) -> AsyncIterator[Stub]:
    settings = EmbedderSettings(
        engine="null", model="no/such-model", port=0, shutdown_drain_s=0, **changes
    )
    server = Server(build(settings), settings)
    await server.start()
    async with client.connect(f"127.0.0.1:{server.port}") as channel:
        yield Stub(channel)
    await server.stop()


@pytest.fixture
async def stub():
    async for one in serving():
        yield one


@pytest.fixture
async def replica():
    """Has no cache, so that it computes what the other may know."""
    async for one in serving(cache_mb=0):
        yield one


async def embed(stub: Stub, texts: list[str], **fields) -> embedder_pb2.EmbedResponse:
    request = embedder_pb2.EmbedRequest(texts=texts, **fields)
    return await client.call(stub.Embed, request, deadline=Deadline.after(10))


async def test_replicas_give_one_text_one_vector_whatever_is_beside_it(stub, replica):
    texts = ["a", "naïve café 🙂", "x " * 900, "\0"]
    vectors = tensors.unpack((await embed(stub, texts)).vectors)
    others = [tensors.unpack((await embed(replica, [text])).vectors)[0] for text in texts]
    assert vectors.shape == (4, 384)
    assert np.array_equal(vectors, np.stack(others))
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1] * 4, abs=1e-5)
    assert np.abs(vectors @ vectors.T - np.eye(4)).max() < 0.3


async def test_what_it_cannot_give_is_refused_by_name(stub):
    with pytest.raises(InvalidInput, match="token_vectors asked for, but null"):
        await embed(stub, ["text"], token_vectors=True)


async def test_the_queue_counts_what_it_did(stub):
    reply = await embed(stub, ["two words"], lane=common_pb2.LANE_BULK)
    assert list(reply.token_counts) == [2]
    assert reply.timing.batch_size == 1
    info = await client.call(stub.GetInfo, common_pb2.GetInfoRequest(), deadline=Deadline.after(5))
    assert (info.engine, info.model.id, info.model.dimension) == ("null", "null", 384)
    samples = await metrics_endpoint.scraped(info.metrics_port)
    assert samples["raglan_backlog_seconds"] == 0
