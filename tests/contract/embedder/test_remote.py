"""The embedder over a model server: cache, limits and Matryoshka as with a model of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import http_model_server
import numpy as np
import pytest
import pytest_asyncio
from raglan.deadline import Deadline
from raglan.errors import DeadlineExceeded, InvalidInput, Overloaded, Unavailable
from raglan.health import Health
from raglan.http_client import ModelServer
from raglan.rpc import client
from raglan.rpc.server import Server
from raglan.scheduling import Lane
from raglan.v1 import common_pb2, embedder_pb2, embedder_pb2_grpc
from raglan_embedder.app import build
from raglan_embedder.embedding import Embedder, Kind, TextLimits
from raglan_embedder.engines.http import CALLED, HttpEngine
from raglan_embedder.outputs import Outputs
from raglan_embedder.remote import BULK_REQUESTS, RemoteEncoder
from raglan_embedder.settings import EmbedderSettings


@pytest.fixture(scope="module")
def server() -> Iterator[http_model_server.ModelServer]:
    def lengths(texts: list[str]) -> np.ndarray:
        return np.array([[len(text), 1, 0] for text in texts], np.float32)

    with http_model_server.serving(embed=lengths) as running:
        yield running


class Embedders:
    """Makes embedders over one server and closes them."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._encoders: list[RemoteEncoder] = []

    def encoder(self, how: str = "good", *, max_batch_texts: int = 32) -> RemoteEncoder:
        server = ModelServer(f"{self._url}/{how}/v1", called=CALLED)
        engine = HttpEngine(server, model="m", max_batch_texts=max_batch_texts)
        engine.dimension = 3
        self._encoders.append(RemoteEncoder(engine, query_prompt="query: ", max_waiting_texts=64))
        return self._encoders[-1]

    def __call__(self, how: str = "good", *, max_batch_texts: int = 32) -> Embedder:
        encoder = self.encoder(how, max_batch_texts=max_batch_texts)
        return Embedder(
            encoder,
            encoder.identity,
            limits=TextLimits(texts=64, chars=100),
            cache_bytes=10_000,
            looked_up=lambda hits, misses: None,
        )

    async def close(self) -> None:
        for encoder in self._encoders:
            await encoder.close()


@pytest_asyncio.fixture
async def embedders(server: http_model_server.ModelServer) -> AsyncIterator[Embedders]:
    made = Embedders(server.url)
    yield made
    await made.close()


async def test_texts_come_back_as_vectors_in_their_order(embedders: Embedders) -> None:
    batch = await embedders().embed(["a", "abc"], deadline=Deadline.after(10))
    assert batch.vectors[:, 0] / batch.vectors[:, 1] == pytest.approx([1, 3])
    assert batch.timing.compute_ns > 0
    assert batch.timing.batch_size == 2


async def test_prompts_go_before_texts_and_known_texts_are_not_sent_again(
    embedders: Embedders, server: http_model_server.ModelServer
) -> None:
    embedder = embedders()
    server.requests.clear()
    for texts in (["a", "b"], ["b", "c"], ["a", "c"]):
        await embedder.embed(texts, deadline=Deadline.after(10), kind=Kind.QUERY)
    sent = [text for request in server.requests for text in request["input"]]
    assert sent == ["query: a", "query: b", "query: c"]


async def test_a_smaller_dimension_is_the_start_made_unit_again(embedders: Embedders) -> None:
    batch = await embedders().embed(["abc"], deadline=Deadline.after(10), dimension=1)
    assert batch.vectors.tolist() == [[1.0]]


async def test_what_the_server_does_not_give_is_refused(embedders: Embedders) -> None:
    with pytest.raises(InvalidInput, match="sparse asked for"):
        await embedders().embed(["a"], deadline=Deadline.after(10), outputs=Outputs.SPARSE)


async def test_a_failure_of_the_server_reaches_the_caller(embedders: Embedders) -> None:
    with pytest.raises(Overloaded):
        await embedders("429").embed(["a"], deadline=Deadline.after(10))


async def test_a_deadline_that_has_passed_sends_nothing(
    embedders: Embedders, server: http_model_server.ModelServer
) -> None:
    server.requests.clear()
    with pytest.raises(DeadlineExceeded):
        await embedders().embed(["a"], deadline=Deadline.after(0))
    assert server.requests == []


async def test_a_caller_that_leaves_gives_the_request_up(
    embedders: Embedders, server: http_model_server.ModelServer
) -> None:
    encoder = embedders.encoder("hang")
    futures = encoder.submit(
        await encoder.prepare(["a", "b"], Lane.INTERACTIVE, start=0),
        Outputs.DENSE,
        deadline=Deadline.after(10),
        lane=Lane.INTERACTIVE,
    )
    async with asyncio.timeout(30):
        while not server.at_once:
            await asyncio.sleep(0.01)
        futures[0].cancel()
        await asyncio.sleep(0)
        assert encoder._running
        futures[1].cancel()
        while encoder._running:
            await asyncio.sleep(0.01)


async def test_bulk_waits_where_the_server_is_crowded_and_sends_nothing_twice(
    embedders: Embedders, server: http_model_server.ModelServer
) -> None:
    embedder = embedders("crowded", max_batch_texts=2)
    server.requests.clear()
    server.failures_left = 3
    texts = [f"text {number}" for number in range(8)]
    batch = await embedder.embed(texts, deadline=Deadline.after(20), lane=Lane.BULK)
    assert batch.vectors.shape == (8, 3)
    assert len(server.requests) == 4 + 3


async def test_what_was_finished_before_a_refusal_is_kept(
    embedders: Embedders, server: http_model_server.ModelServer
) -> None:
    embedder = embedders("crowded", max_batch_texts=1)
    await embedder.embed(["first"], deadline=Deadline.after(10))
    server.failures_left = 1
    with pytest.raises(Overloaded):
        await embedder.embed(["first", "second"], deadline=Deadline.after(10))
    server.requests.clear()
    await embedder.embed(["first", "second"], deadline=Deadline.after(10))
    assert [request["input"] for request in server.requests] == [["second"]]


async def test_bulk_leaves_connections_to_queries() -> None:
    with http_model_server.serving() as server:
        made = Embedders(server.url)
        texts = [f"text {number}" for number in range(20)]
        embedder = made("slow", max_batch_texts=1)
        await embedder.embed(texts, deadline=Deadline.after(20), lane=Lane.BULK)
        await made.close()
    assert server.most_at_once <= BULK_REQUESTS


async def test_more_than_may_wait_is_refused(embedders: Embedders) -> None:
    encoder = embedders.encoder("hang")
    deadline = Deadline.after(10)
    prepared = await encoder.prepare(["a"] * 60, Lane.BULK, start=0)
    encoder.submit(prepared, Outputs.DENSE, deadline=deadline, lane=Lane.BULK)
    with pytest.raises(Overloaded, match="limit of 64 .*MAX_WAITING_TEXTS"):
        encoder.check(5, deadline=deadline, lane=Lane.BULK)
    encoder.check(5, deadline=deadline, lane=Lane.INTERACTIVE)


async def test_a_server_that_does_not_know_base64_is_asked_for_numbers(
    embedders: Embedders, server: http_model_server.ModelServer
) -> None:
    encoder = embedders.encoder("plain")
    await encoder.start(deadline=Deadline.after(10))
    assert "encoding_format" not in server.requests[-1]


async def test_health_is_that_of_the_server(
    embedders: Embedders, server: http_model_server.ModelServer
) -> None:
    encoder = embedders.encoder("starting")
    server.failures_left = 0
    await encoder.start(deadline=Deadline.after(10))
    assert encoder.health() is Health.SERVING
    server.failures_left = 4
    for _ in range(3):
        with pytest.raises(Unavailable):
            await encoder.engine.embed(["a"], deadline=Deadline.after(10))
    assert encoder.health() is Health.AWAY
    async with asyncio.timeout(20):
        while encoder.health() is not Health.SERVING:
            await asyncio.sleep(0.01)
    assert server.failures_left == 0


async def test_closing_gives_up_what_is_on_its_way(embedders: Embedders) -> None:
    encoder = embedders.encoder("hang")
    (future,) = encoder.submit(
        await encoder.prepare(["a"], Lane.INTERACTIVE, start=0),
        Outputs.DENSE,
        deadline=Deadline.after(10),
        lane=Lane.INTERACTIVE,
    )
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await encoder.close()
    assert future.cancelled()


async def test_the_service_answers_from_a_model_server(
    server: http_model_server.ModelServer,
) -> None:
    chosen = EmbedderSettings(
        port=0,
        shutdown_drain_s=0,
        engine="http",
        base_url=f"{server.url}/good/v1",
        model="some-model",
        query_prompt="query: ",
    )
    running = Server(build(chosen), chosen)
    await running.start()
    try:
        async with client.connect(f"127.0.0.1:{running.port}") as channel:
            stub = embedder_pb2_grpc.EmbedderServiceStub(channel)
            request = embedder_pb2.EmbedRequest(texts=["abc"], kind=1)
            reply = await client.call(stub.Embed, request, deadline=Deadline.after(10))
            info = await client.call(
                stub.GetInfo, common_pb2.GetInfoRequest(), deadline=Deadline.after(10)
            )
    finally:
        await running.stop()
    assert server.requests[-1]["input"] == ["query: abc"]
    assert (reply.model.id, reply.vectors.dim) == ("some-model", 3)
    # The prompt shapes the vectors, so it is part of what they are known by.
    assert reply.model.revision not in ("", "remote")
    assert (info.engine, info.device, list(info.outputs)) == ("http", "remote", ["dense"])
    assert info.model.dimension == 3


async def test_the_http_engine_needs_an_address() -> None:
    service = build(EmbedderSettings(engine="http"))
    with pytest.raises(InvalidInput, match="RAGLAN_EMBEDDER_BASE_URL is ''"):
        await service.start()
    await service.close()
