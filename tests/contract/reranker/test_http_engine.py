"""The `http` engine against a server with a real cross-encoder, and one that misbehaves."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import http_model_server
import numpy as np
import pytest
import pytest_asyncio
import random_models
from numpy.typing import NDArray
from pydantic import SecretStr
from raglan.deadline import Deadline
from raglan.encoders import cross_encoder
from raglan.encoders import model as models
from raglan.encoders.tokenizer import PairTokenizers
from raglan.errors import (
    DeadlineExceeded,
    Internal,
    InvalidInput,
    Overloaded,
    RaglanError,
    Unavailable,
)
from raglan.http_client import ModelServer
from raglan.rpc import client
from raglan.rpc.server import Server
from raglan.v1 import reranker_pb2, reranker_pb2_grpc
from raglan_reranker.app import build
from raglan_reranker.engines.http import CALLED, Api, HttpReranking
from raglan_reranker.settings import RerankerSettings

QUERY = "how does a plant turn light to sugar"
PASSAGES = ["the plant turns light to sugar", "a retry budget", "word " * 30, "日本語", "what"]


class Model:
    """A random cross-encoder, for the server and for comparison."""

    def __init__(self, folder: Path, cache: Path) -> None:
        model = models.read(str(random_models.cross_encoder(folder)))
        self._tokenizers = PairTokenizers(model.path, model.max_tokens)
        (self._score,) = cross_encoder.load(
            "onnx", model, device="cpu", precision="f32", streams=1, cache_dir=cache
        ).streams
        self._one_caller = threading.Lock()

    def __call__(self, query: str, passages: list[str]) -> list[float]:
        with self._one_caller:
            return self._score(self._tokenizers.pairs(query, passages)).tolist()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, model_cache: Path) -> Model:
    return Model(tmp_path_factory.mktemp("cross"), model_cache)


@pytest.fixture(scope="module")
def server(model: Model) -> Iterator[http_model_server.ModelServer]:
    with http_model_server.serving(score=model) as running:
        yield running


Engines = Callable[..., HttpReranking]


@pytest_asyncio.fixture
async def engines() -> AsyncIterator[Engines]:
    """Makes engines on an address of the server."""
    async with AsyncExitStack() as stack:

        def make(url: str, how: str = "good", api: Api = "cohere", **options: Any) -> HttpReranking:
            key = SecretStr(http_model_server.KEY)
            server = ModelServer(f"{url}/{how}", called=CALLED, api_key=key)
            engine = HttpReranking(server, model="a-reranker", api=api, **options)
            stack.push_async_callback(engine.close)
            return engine

        yield make


async def score(
    engine: HttpReranking, passages: list[str], within_s: float = 10
) -> NDArray[np.float64]:
    prepared = engine.prepare(QUERY, passages)
    scores, timing, _ = await engine.score(
        prepared, len(passages), deadline=Deadline.after(within_s)
    )
    assert timing.compute_ns > 0
    return scores


@pytest.mark.parametrize("api", ["cohere", "tei"])
@pytest.mark.parametrize("together", [2, 32])
async def test_scores_are_the_servers_in_the_order_of_the_passages(
    server: http_model_server.ModelServer,
    model: Model,
    engines: Engines,
    api: Api,
    together: int,
) -> None:
    engine = engines(server.url, api=api, max_batch_texts=together)
    await engine.start(deadline=Deadline.after(10))
    found = await score(engine, PASSAGES)
    expected = await asyncio.to_thread(model, QUERY, PASSAGES)
    assert found == pytest.approx(expected, abs=1e-5)
    assert np.ptp(found) > 0.05


async def test_only_the_first_passages_are_sent(
    server: http_model_server.ModelServer, engines: Engines
) -> None:
    engine = engines(server.url)
    prepared = engine.prepare(QUERY, PASSAGES)
    scores, timing, _ = await engine.score(prepared, 2, deadline=Deadline.after(10))
    sent = server.requests[-1]
    assert (sent["documents"], sent["top_n"], sent["model"]) == (PASSAGES[:2], 2, "a-reranker")
    assert server.headers[-1]["authorization"] == f"Bearer {http_model_server.KEY}"
    assert (len(scores), timing.batch_size) == (2, 2)


def test_a_long_passage_is_taken_to_cost_more(engines: Engines) -> None:
    engine = engines("http://127.0.0.1:1")
    short, long = engine.prepare("a query", ["short", "long " * 100]).passage_tokens
    assert 1 <= short < long


async def test_a_start_waits_for_the_server_to_come_up(
    server: http_model_server.ModelServer, engines: Engines
) -> None:
    server.failures_left = 1
    await engines(server.url, "starting").start(deadline=Deadline.after(10))
    assert server.failures_left == 0


@pytest.mark.parametrize("api", ["cohere", "tei"])
@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ("401", Internal, "RAGLAN_RERANKER_API_KEY"),
        ("422", InvalidInput, "a reason"),
        ("429", Overloaded, "overloaded"),
        ("500", Unavailable, r"failed \(500\)"),
        ("html", Unavailable, "did not answer in JSON"),
        ("cut", Unavailable, "closed the connection"),
        ("wrong-count", Internal, "one for each of 2 passages"),
        ("twice", Internal, "one for each of 2 passages"),
        ("nan", Internal, "not a finite number"),
        ("other-form", Internal, "RAGLAN_RERANKER_API"),
    ],
)
async def test_a_server_that_misbehaves_is_reported_as_what_it_is(
    server: http_model_server.ModelServer,
    engines: Engines,
    how: str,
    error: type[RaglanError],
    message: str,
    api: Api,
) -> None:
    with pytest.raises(error, match=message) as failed:
        await score(engines(server.url, how, api), ["one", "two"])
    assert type(failed.value) is error
    if how == "429":
        assert failed.value.retry_after_s == 7


async def test_a_server_that_hangs_costs_no_more_than_the_deadline(
    server: http_model_server.ModelServer, engines: Engines
) -> None:
    async with asyncio.timeout(2):
        with pytest.raises(DeadlineExceeded, match="before the reranking server had answered"):
            await score(engines(server.url, "hang"), ["text"], within_s=0.2)


async def test_the_service_ranks_by_a_model_server(
    server: http_model_server.ModelServer, model: Model
) -> None:
    chosen = RerankerSettings(
        port=0, shutdown_drain_s=0, engine="http", base_url=f"{server.url}/good", model="m", blend=1
    )
    running = Server(build(chosen), chosen)
    await running.start()
    try:
        async with client.connect(f"127.0.0.1:{running.port}") as channel:
            stub = reranker_pb2_grpc.RerankerServiceStub(channel)
            request = reranker_pb2.RerankRequest(query=QUERY)
            request.candidates.extend(reranker_pb2.Candidate(text=text) for text in PASSAGES)
            reply = await client.call(stub.Rerank, request, deadline=Deadline.after(10))
    finally:
        await running.stop()
    expected = await asyncio.to_thread(model, QUERY, PASSAGES)
    order = sorted(range(len(PASSAGES)), key=lambda at: -expected[at])
    assert [ranked.index for ranked in reply.ranked] == order
    assert reply.ranked[0].raw_score == pytest.approx(max(expected), abs=1e-5)
    assert (reply.model.id, reply.model.revision) == ("m", "")


async def test_the_http_engine_needs_an_address() -> None:
    service = build(RerankerSettings(engine="http"))
    with pytest.raises(InvalidInput, match="RAGLAN_RERANKER_BASE_URL is ''"):
        await service.start()
    await service.close()
