"""The embedder as its callers meet it: a real gRPC server, the real model, OpenVINO or ONNX."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import pytest_asyncio
from raglan import tensors
from raglan.deadline import Deadline
from raglan.errors import InvalidInput, PayloadTooLarge, RaglanError, Unavailable
from raglan.rpc import client
from raglan.rpc.server import Server
from raglan.v1 import common_pb2, embedder_pb2, embedder_pb2_grpc
from raglan_embedder.app import build
from raglan_embedder.settings import EmbedderSettings

pytestmark = pytest.mark.asyncio(loop_scope="module")

TEXT = "A retry budget bounds how much of the load may be retries. "


def settings(model_cache: Path, **changes: Any) -> EmbedderSettings:
    return EmbedderSettings(
        port=0, cache_dir=model_cache, shutdown_drain_s=0, streams=2, max_texts=64, **changes
    )


class Caller:
    """One open channel to one running embedder."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = embedder_pb2_grpc.EmbedderServiceStub(channel)

    async def embed(
        self, texts: list[str], *, within_s: float = 30, **fields: Any
    ) -> embedder_pb2.EmbedResponse:
        request = embedder_pb2.EmbedRequest(texts=texts, **fields)
        deadline = Deadline.after(within_s)
        reply: embedder_pb2.EmbedResponse = await client.call(
            self._stub.Embed, request, deadline=deadline, to="the embedder"
        )
        return reply

    async def info(self) -> common_pb2.ServiceInfo:
        info: common_pb2.ServiceInfo = await client.call(
            self._stub.GetInfo, common_pb2.GetInfoRequest(), deadline=Deadline.after(5)
        )
        return info


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def embedder(model_cache: Path) -> AsyncIterator[Caller]:
    chosen = settings(model_cache)
    server = Server(build(chosen), chosen)
    await server.start()
    async with client.connect(f"127.0.0.1:{server.port}") as channel:
        yield Caller(channel)
    await server.stop()


async def test_a_call_answers_with_vectors_identity_counts_and_timing(embedder: Caller) -> None:
    fresh = "a text whose vector no other test has cached"
    reply = await embedder.embed(["hello world", TEXT, fresh], kind=1, lane=1)
    vectors = tensors.unpack(reply.vectors)
    assert vectors.shape == (3, 384)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1, 1], abs=1e-5)
    assert reply.model.id == "sentence-transformers/all-MiniLM-L6-v2"
    assert (reply.model.revision, reply.model.dimension) == ("9ca8eb488ac9", 384)
    assert list(reply.token_counts) == [4, 17, 12]
    assert reply.timing.compute_ns > 0
    assert reply.timing.tokenize_ns > 0
    assert 1 <= reply.timing.batch_size <= 3
    assert reply.timing.batch_tokens >= 12


async def test_a_reply_says_how_well_each_text_is_read_and_what_was_cut(embedder: Caller) -> None:
    texts = ["The bridge is closed in winter.", "Мост зимой закрыт.", "word " * 300]
    for _ in range(2):  # computed, then from the cache
        reply = await embedder.embed(texts)
        assert list(reply.truncated_tokens) == [0, 0, 300 - 254]
        assert list(reply.readability) == [1.0, 0.0, 1.0]


async def test_order_is_kept_over_many_batches(embedder: Caller) -> None:
    texts = [f"passage {number} " * (1 + number % 30) for number in range(60)]
    whole = tensors.unpack((await embedder.embed(texts, lane=2)).vectors)
    for number in (0, 29, 30, 59):
        alone = tensors.unpack((await embedder.embed([texts[number]])).vectors)
        assert whole[number] @ alone[0] >= 0.99999


async def test_a_smaller_dimension_is_the_start_made_unit_again(embedder: Caller) -> None:
    reply = await embedder.embed([TEXT], dimension=128)
    whole = tensors.unpack((await embedder.embed([TEXT])).vectors)[0]
    short = tensors.unpack(reply.vectors)[0]
    assert reply.model.dimension == 128
    assert short == pytest.approx(whole[:128] / np.linalg.norm(whole[:128]), abs=1e-6)


async def test_info_describes_what_runs(embedder: Caller) -> None:
    info = await embedder.info()
    assert (info.service, info.engine, info.device) == ("embedder", "openvino", "cpu")
    assert info.dtype == "int8"
    assert info.pid == os.getpid()
    assert info.model.dimension == 384
    assert info.limits["max_texts"] == 64
    assert info.limits["max_text_chars"] == 100_000
    assert info.limits["max_text_tokens"] == 256


async def test_bad_input_is_refused_with_the_limit_named(embedder: Caller) -> None:
    cases: list[tuple[list[str], dict[str, Any], type[RaglanError], str]] = [
        ([], {}, InvalidInput, "texts is empty"),
        (["good", ""], {}, InvalidInput, r"texts\[1\] is empty"),
        (["  \n\t\u3000"], {}, InvalidInput, r"texts\[0\] is empty or white space"),
        (["x"] * 65, {}, InvalidInput, "65 texts; the limit is 64"),
        (["x"] * 10_000, {}, InvalidInput, "10000 texts; the limit is 64"),
        (["x" * 1_000_000], {}, PayloadTooLarge, "1000000 characters; the limit is 100000"),
        (["x"], {"dimension": 385}, InvalidInput, "dimension is 385; .* has 384"),
    ]
    for texts, fields, error, message in cases:
        with pytest.raises(error, match=message):
            await embedder.embed(texts, **fields)
    assert (await embedder.embed(["and it serves on"])).vectors.rows == 1


async def test_odd_text_is_embedded(embedder: Caller) -> None:
    texts = ["\0", "a\0b", "🙂" * 5000, "z" * 100_000, "日本語", "\ufeff"]
    vectors = tensors.unpack((await embedder.embed(texts)).vectors)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(len(texts)), abs=1e-5)


async def test_before_the_model_is_loaded_calls_are_told_to_come_back(model_cache: Path) -> None:
    service = build(settings(model_cache))
    server = grpc.aio.server()
    service.register(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with client.connect(f"127.0.0.1:{port}") as channel:
        stub = embedder_pb2_grpc.EmbedderServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError, match="still loading"):
            await stub.Embed(embedder_pb2.EmbedRequest(texts=["x"]), timeout=5)
    await server.stop(0)


@pytest.mark.parametrize(
    ("changes", "error", "reason"),
    [
        ({"model": "/no/such/model"}, Unavailable, "one of three ways"),
        ({"device": "cuda:0"}, InvalidInput, "openvino engine runs on the CPU"),
        ({"device": "cuda:99", "engine": "torch"}, Unavailable, "device is 'cuda:99'"),
        ({"precision": "f16"}, InvalidInput, "precision is 'f16'"),
        ({"precision": "bf16", "engine": "onnx"}, InvalidInput, "precision is 'bf16'"),
    ],
)
async def test_a_start_that_cannot_be_served_is_refused_with_a_reason(
    model_cache: Path, changes: dict[str, Any], error: type[RaglanError], reason: str
) -> None:
    service = build(settings(model_cache, **changes))
    with pytest.raises(error, match=reason):
        await service.start()
    await service.close()


def has_begun_to_convert(cache: Path) -> bool:
    return any(cache.glob("*/*.lock"))


async def test_a_stop_during_a_conversion_is_heeded_at_once(tmp_path: Path) -> None:
    service = build(settings(tmp_path))
    starting = asyncio.ensure_future(service.start())
    async with asyncio.timeout(100):
        while not has_begun_to_convert(tmp_path):
            await asyncio.sleep(0.01)
    await service.close()
    with pytest.raises(Unavailable, match="was abandoned"):
        await starting


async def test_serving_on_a_cpu_needs_no_torch_and_reaches_for_nothing_outside(
    model_cache: Path,
) -> None:
    program = f"""
import asyncio, sys
from pathlib import Path

reached = []
watched = ("socket.getaddrinfo", "socket.connect", "os.fork", "subprocess.Popen")
sys.addaudithook(lambda event, args: reached.append(event) if event in watched else None)

from raglan_embedder.app import build
from raglan_embedder.settings import EmbedderSettings

service = build(EmbedderSettings(cache_dir=Path({str(model_cache)!r})))

async def start_and_close():
    await service.start()
    await service.close()

asyncio.run(start_and_close())
loaded = {{"torch", "transformers", "sentence_transformers"}} & set(sys.modules)
sys.exit(f"imported {{loaded}}, did {{reached}}" if loaded or reached else 0)
"""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
