"""The `http` engine against a server that computes with the real model, and one that misbehaves."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, cast

import http_model_server
import numpy as np
import pytest
import pytest_asyncio
from numpy.typing import NDArray
from pydantic import SecretStr
from raglan.deadline import Deadline
from raglan.encoders import sessions
from raglan.encoders.heads import Heads
from raglan.encoders.model import EncoderModel
from raglan.encoders.tokenizer import Tokenizers
from raglan.errors import (
    DeadlineExceeded,
    Internal,
    InvalidInput,
    Overloaded,
    PayloadTooLarge,
    RaglanError,
    Unavailable,
)
from raglan.http_client import HttpLimits, ModelServer
from raglan_embedder import outputs
from raglan_embedder.engines.http import CALLED, Api, HttpEngine
from raglan_embedder.outputs import EncodeItem

TEXTS = ["a retry budget", "日本語のテキスト", "naïve café 🙂", "word " * 300, "x"]


class Model:
    """The real MiniLM, for the server and for comparison."""

    def __init__(self, minilm: EncoderModel, cache: Path) -> None:
        self._tokenizers = Tokenizers(minilm.path, minilm.max_tokens)
        (self._run,) = sessions.load(
            "onnx", minilm, device="cpu", precision="f32", streams=1, cache_dir=cache
        ).streams
        self._one_caller = threading.Lock()

    def __call__(self, texts: list[str]) -> NDArray[np.float32]:
        batch = [EncodeItem(ids) for ids in self._tokenizers.ids(texts)]
        with self._one_caller:
            found = outputs.encode(self._run, batch, pooling="mean", heads=Heads())
        return np.stack([cast("NDArray[np.float32]", each.dense) for each in found])


@pytest.fixture(scope="module")
def model(minilm: EncoderModel, model_cache: Path) -> Model:
    return Model(minilm, model_cache)


@pytest.fixture(scope="module")
def real(model: Model) -> Iterator[http_model_server.ModelServer]:
    # Three times as long: the engine normalises.
    with http_model_server.serving(embed=lambda texts: 3 * model(texts)) as server:
        yield server


@pytest.fixture
def fake() -> Iterator[http_model_server.ModelServer]:
    with http_model_server.serving() as server:
        yield server


Engines = Callable[..., HttpEngine]


@pytest_asyncio.fixture
async def engines() -> AsyncIterator[Engines]:
    """Makes engines on an address of the server."""
    async with AsyncExitStack() as stack:

        def make(
            url: str,
            how: str = "good",
            api: Api = "openai",
            limits: HttpLimits | None = None,
            **options: Any,
        ) -> HttpEngine:
            base_url = f"{url}/{how}/v1" if api == "openai" else f"{url}/{how}"
            key = SecretStr(http_model_server.KEY)
            server = ModelServer(base_url, called=CALLED, api_key=key, limits=limits)
            engine = HttpEngine(server, model="" if api == "tei" else "minilm", api=api, **options)
            engine.dimension = 3
            stack.push_async_callback(engine.close)
            return engine

        yield make


async def embed(engine: HttpEngine, texts: list[str], within_s: float = 10) -> NDArray[np.float32]:
    return await engine.embed(texts, deadline=Deadline.after(within_s))


@pytest.mark.parametrize(
    ("how", "api"), [("good", "openai"), ("base64", "openai"), ("shuffled", "openai"), ("g", "tei")]
)
async def test_vectors_are_the_servers_made_unit_in_the_order_of_the_texts(
    real: http_model_server.ModelServer, model: Model, engines: Engines, how: str, api: Api
) -> None:
    engine = engines(real.url, how, api, max_batch_texts=2)
    await engine.start(deadline=Deadline.after(10))
    found = await embed(engine, TEXTS)
    expected = await asyncio.to_thread(model, TEXTS)
    assert engine.dimension == 384
    assert found.dtype == np.float32
    assert found == pytest.approx(expected, abs=1e-5)
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(len(TEXTS)), abs=1e-6)


async def test_the_model_is_known_by_what_tei_says_of_it(
    fake: http_model_server.ModelServer, engines: Engines
) -> None:
    engine = engines(fake.url, "good", "tei")
    await engine.start(deadline=Deadline.after(10))
    assert (engine.model_id, engine.revision, engine.dimension) == ("a/model", "0123456789ab", 3)
    assert (engine.name, engine.device, engine.dtype) == ("http", "remote", "float16")


async def test_a_server_without_a_model_revision_gets_remote(
    fake: http_model_server.ModelServer, engines: Engines
) -> None:
    """A server that says nothing of its model gives it the revision remote."""
    engine = engines(fake.url)
    await engine.start(deadline=Deadline.after(10))
    assert (engine.model_id, engine.revision, engine.dimension) == ("minilm", "remote", 3)


async def test_a_start_waits_for_the_server_to_come_up(
    fake: http_model_server.ModelServer, engines: Engines
) -> None:
    fake.failures_left = 1
    engine = engines(fake.url, "starting")
    await engine.start(deadline=Deadline.after(10))
    assert engine.dimension == 3


async def test_a_start_gives_up_at_its_deadline_and_says_why(engines: Engines) -> None:
    engine = engines("http://127.0.0.1:1")
    with pytest.raises(Unavailable, match=r"cannot be reached \(RAGLAN_EMBEDDER_BASE_URL\)"):
        await engine.start(deadline=Deadline.after(1))


async def test_many_texts_are_split_over_few_concurrent_requests(
    fake: http_model_server.ModelServer, engines: Engines
) -> None:
    """Many texts go in several requests of which few are on their way at once."""
    engine = engines(fake.url, "slow", limits=HttpLimits(connections=2), max_batch_texts=3)
    assert (await embed(engine, ["text"] * 20)).shape == (20, 3)
    assert sorted(len(request["input"]) for request in fake.requests) == [2, 3, 3, 3, 3, 3, 3]
    assert fake.most_at_once == 2


async def test_more_requests_than_may_wait_are_refused_at_once(
    fake: http_model_server.ModelServer, engines: Engines
) -> None:
    limits = HttpLimits(connections=1, waiting=1)
    engine = engines(fake.url, "slow", limits=limits, max_batch_texts=1)
    with pytest.raises(Overloaded, match="2 requests .* on their way") as refused:
        await embed(engine, ["text"] * 3)
    assert refused.value.retry_after_s


async def test_the_key_goes_to_the_server_and_into_no_message(
    fake: http_model_server.ModelServer, engines: Engines
) -> None:
    engine = engines(fake.url, "400")
    with pytest.raises(InvalidInput) as refused:
        await embed(engine, ["text"])
    assert fake.headers[-1]["authorization"] == f"Bearer {http_model_server.KEY}"
    assert refused.value.message == "The embedding server refused the request: a reason, and ***"
    assert http_model_server.KEY not in repr(vars(engine._server))


async def test_a_proxy_of_the_environment_is_not_used(
    fake: http_model_server.ModelServer, engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert (await embed(engines(fake.url), ["text"])).shape == (1, 3)


@pytest.mark.parametrize("api", ["openai", "tei"])
@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ("400", InvalidInput, "a reason"),
        ("401", Internal, "RAGLAN_EMBEDDER_API_KEY"),
        ("404", Internal, "RAGLAN_EMBEDDER_MODEL"),
        ("413", PayloadTooLarge, "a reason"),
        ("418", Internal, "answered 418"),
        ("422", InvalidInput, "a reason"),
        ("424", Unavailable, r"failed \(424\)"),
        ("429", Overloaded, "overloaded"),
        ("500", Unavailable, r"failed \(500\)"),
        ("503", Unavailable, r"failed \(503\)"),
        ("redirect", Internal, "answered 307"),
        ("html", Unavailable, "did not answer in JSON"),
        ("cut", Unavailable, "closed the connection"),
        ("huge", Internal, "over 1000000 bytes"),
        ("wrong-count", Internal, "1 vectors for 2 texts"),
        ("nan", Internal, "not finite"),
        ("null", Internal, "not finite"),
        ("infinite", Internal, "not finite"),
        ("ragged", Internal, "of one length"),
        ("empty", Internal, "rows of numbers"),
        ("words", Internal, "rows of numbers"),
    ],
)
async def test_a_server_that_misbehaves_is_reported_as_what_it_is(
    fake: http_model_server.ModelServer,
    engines: Engines,
    how: str,
    error: type[RaglanError],
    message: str,
    api: Api,
) -> None:
    engine = engines(fake.url, how, api, HttpLimits(answer_bytes=1_000_000))
    with pytest.raises(error, match=message) as failed:
        await embed(engine, ["one", "two"])
    assert type(failed.value) is error
    if how in ("429", "503"):
        assert failed.value.retry_after_s == 7


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("bad-base64", "rows of numbers"),
        ("twice", "indices"),
        ("other-form", "RAGLAN_EMBEDDER_API"),
    ],
)
async def test_an_answer_in_another_form_is_refused(
    fake: http_model_server.ModelServer, engines: Engines, how: str, message: str
) -> None:
    with pytest.raises(Internal, match=message):
        await embed(engines(fake.url, how), ["one", "two"])


async def test_a_dimension_that_changes_is_refused(
    fake: http_model_server.ModelServer, engines: Engines
) -> None:
    engine = engines(fake.url)
    engine.dimension = 4
    with pytest.raises(Internal, match="now gives 3 dimensions; it gave 4"):
        await embed(engine, ["text"])


async def test_a_server_that_hangs_costs_no_more_than_the_deadline(
    fake: http_model_server.ModelServer, engines: Engines
) -> None:
    async with asyncio.timeout(2):
        with pytest.raises(DeadlineExceeded, match="before the embedding server had answered"):
            await embed(engines(fake.url, "hang"), ["text"], within_s=0.2)


async def test_a_server_that_hangs_costs_no_more_than_the_time_limit(
    fake: http_model_server.ModelServer, engines: Engines
) -> None:
    engine = engines(fake.url, "hang", limits=HttpLimits(total_s=0.2))
    with pytest.raises(Unavailable, match="did not answer within 0.2 s"):
        await embed(engine, ["text"])


async def test_after_a_failure_the_engine_serves_on(
    fake: http_model_server.ModelServer, engines: Engines
) -> None:
    engine = engines(fake.url, "starting", limits=HttpLimits(connections=1))
    fake.failures_left = 1
    with pytest.raises(Unavailable):
        await embed(engine, ["text"])
    assert (await embed(engine, ["text"])).shape == (1, 3)


async def test_a_request_that_is_too_large_is_not_sent(
    fake: http_model_server.ModelServer, engines: Engines
) -> None:
    engine = engines(fake.url, limits=HttpLimits(request_bytes=1_000))
    fake.requests.clear()
    with pytest.raises(PayloadTooLarge, match="is sent at most 1000"):
        await embed(engine, ["x" * 2_000])
    assert fake.requests == []


@pytest.mark.parametrize("url", ["", "127.0.0.1:80", "ftp://host", "http://", "http://[::1"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match="RAGLAN_EMBEDDER_BASE_URL is"):
        ModelServer(url, called=CALLED)
