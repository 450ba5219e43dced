"""The embedder under load, failure and repetition: a real gRPC server over the real model."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import metrics_endpoint
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry
from raglan import tensors
from raglan.deadline import Deadline
from raglan.encoders.metrics import EncoderMetrics
from raglan.encoders.model import EncoderModel
from raglan.errors import DeadlineExceeded, InvalidInput, Overloaded, RaglanError, Unavailable
from raglan.health import Health
from raglan.rpc import client
from raglan.rpc.server import Server, Service
from raglan.scheduling import DeviceLost
from raglan.v1 import common_pb2, embedder_pb2, embedder_pb2_grpc
from raglan_embedder import app, engines
from raglan_embedder.embedding import Embedder, TextLimits
from raglan_embedder.encoding import DeviceEncoder, ModelTokenizing, batch_limits
from raglan_embedder.engines import Engine
from raglan_embedder.outputs import EncodeItem, TextVectors
from raglan_embedder.servicer import EmbedderServicer
from raglan_embedder.settings import EmbedderSettings

POISON = "this text breaks the kernel"


def settings(model_cache: Path, **changes: Any) -> EmbedderSettings:
    return EmbedderSettings(
        port=0, cache_dir=model_cache, shutdown_drain_s=0, precision="f32", streams=2, **changes
    )


@asynccontextmanager
async def served(
    chosen: EmbedderSettings, service: Service | None = None
) -> AsyncIterator[tuple[Server, grpc.aio.Channel]]:
    server = Server(service or app.build(chosen), chosen)
    try:
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            yield server, channel
    finally:
        await server.stop()


async def embed(
    channel: grpc.aio.Channel, texts: Sequence[str], *, within_s: float = 30, **fields: Any
) -> embedder_pb2.EmbedResponse:
    request = embedder_pb2.EmbedRequest(texts=texts, **fields)
    stub = embedder_pb2_grpc.EmbedderServiceStub(channel)
    reply: embedder_pb2.EmbedResponse = await client.call(
        stub.Embed, request, deadline=Deadline.after(within_s), to="the embedder"
    )
    return reply


async def status(channel: grpc.aio.Channel) -> str:
    stub = health_pb2_grpc.HealthStub(channel)
    reply = await stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status))


async def until_status(channel: grpc.aio.Channel, wanted: str) -> None:
    async with asyncio.timeout(30):
        while await status(channel) != wanted:
            await asyncio.sleep(0.01)


async def scraped(server: Server) -> dict[str, float]:
    assert server.service.metrics is not None
    return await metrics_endpoint.scraped(server.service.metrics.port)


async def test_a_text_seen_before_skips_inference(model_cache: Path) -> None:
    async with served(settings(model_cache)) as (server, channel):
        first = await embed(channel, ["the retry budget", "another"])
        before = await scraped(server)
        again = await embed(channel, ["another", "the retry budget"])
        after = await scraped(server)
    rows = tensors.unpack(first.vectors)
    assert np.array_equal(tensors.unpack(again.vectors), rows[::-1])
    assert list(again.token_counts) == list(first.token_counts)[::-1]
    assert (again.timing.compute_ns, again.timing.batch_size) == (0, 0)
    batches = [
        sum(
            value for name, value in seen.items() if name.startswith("raglan_encoder_batches_total")
        )
        for seen in (before, after)
    ]
    assert batches[0] == batches[1]
    assert after["raglan_cache_lookups_total,layer=vectors,outcome=hit"] == 2


async def test_a_query_and_a_passage_of_the_same_words_are_not_confused(
    model_cache: Path, tmp_path: Path, minilm: EncoderModel
) -> None:
    for file in minilm.path.iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "config_sentence_transformers.json").unlink(missing_ok=True)
    (tmp_path / "config_sentence_transformers.json").write_text(
        '{"prompts": {"query": "query: ", "passage": "passage: "}}'
    )
    async with served(settings(model_cache, model=str(tmp_path))) as (_, channel):
        query = await embed(channel, ["light"], kind=embedder_pb2.INPUT_KIND_QUERY)
        passage = await embed(channel, ["light"], kind=embedder_pb2.INPUT_KIND_PASSAGE)
        spelt = await embed(channel, ["query: light"])
    assert not np.array_equal(tensors.unpack(query.vectors), tensors.unpack(passage.vectors))
    assert np.array_equal(tensors.unpack(query.vectors), tensors.unpack(spelt.vectors))


async def test_metrics_tell_where_the_time_went(model_cache: Path) -> None:
    async with served(settings(model_cache)) as (server, channel):
        await embed(channel, [f"passage {n} " * 20 for n in range(64)], lane=common_pb2.LANE_BULK)
        seen = await scraped(server)
    for name in ("queue", "compute", "tokenize"):
        assert seen[f"raglan_encoder_{name}_seconds_count,lane=bulk"] > 0, name
        assert seen[f"raglan_encoder_{name}_seconds_sum,lane=bulk"] > 0, name
    assert seen["raglan_encoder_batch_padded_tokens_sum,lane=bulk"] >= 64 * 40
    assert seen["raglan_encoder_batches_total,closed=item_cap,lane=bulk"] > 0
    assert seen["raglan_backlog_seconds"] == 0
    assert seen["raglan_encoder_waiting_texts,lane=bulk"] == 0


@pytest.mark.parametrize("lane", [common_pb2.LANE_INTERACTIVE, common_pb2.LANE_BULK])
async def test_what_cannot_be_done_in_time_is_refused_at_once(
    minilm: EncoderModel, model_cache: Path, lane: common_pb2.Lane
) -> None:
    """A batch takes 0.3 s at least, so 60 texts take more than 4 s on the fastest machine."""
    running = threading.Event()

    def slow(batch: Sequence[EncodeItem]) -> None:
        running.set()
        time.sleep(0.3)

    async with (
        encoder_over(minilm, model_cache, slow) as (_, embedder),
        served(settings(model_cache), over(embedder)) as (_, channel),
    ):
        ahead, late = (
            [f"{name} {number} " * 60 for number in range(60)] for name in ("ahead", "late")
        )
        first = asyncio.create_task(embed(channel, ahead, within_s=100, lane=lane))
        assert await asyncio.to_thread(running.wait, 20)
        took = []
        for _ in range(5):
            asked = time.monotonic()
            with pytest.raises(Overloaded) as refused:
                await embed(channel, late, within_s=2, lane=lane)
            took.append(time.monotonic() - asked)
            assert (refused.value.retry_after_s or 0) > 0
        first.cancel()
    assert sorted(took)[2] < 1, took


async def test_a_batch_with_poison_fails_alone_and_the_server_serves_on(
    minilm: EncoderModel, model_cache: Path
) -> None:
    async with encoder_over(minilm, model_cache, poisoned) as (encoder, embedder):
        good = await embedder.embed(["a good text"], deadline=Deadline.after(10))
        with pytest.raises(RaglanError, match="failed on a text"):
            await embedder.embed([POISON], deadline=Deadline.after(10))
        again = await embedder.embed(["another good text"], deadline=Deadline.after(10))
        assert good.vectors.shape == again.vectors.shape == (1, 384)
        assert encoder.health() is Health.SERVING


async def test_a_deadline_that_passes_is_reported_and_the_server_serves_on(
    minilm: EncoderModel, model_cache: Path
) -> None:
    hold = threading.Event()

    def held(batch: Sequence[EncodeItem]) -> None:
        assert hold.wait(60)

    async with (
        encoder_over(minilm, model_cache, held) as (_, embedder),
        served(settings(model_cache), over(embedder)) as (_, channel),
    ):
        with pytest.raises(DeadlineExceeded):
            await embed(channel, ["late"], within_s=0.5)
        hold.set()
        assert (await embed(channel, ["and it serves on"])).vectors.rows == 1


async def test_a_device_that_hangs_is_not_serving_until_it_goes_on(
    minilm: EncoderModel, model_cache: Path
) -> None:
    hold = threading.Event()

    def hanging(batch: Sequence[EncodeItem]) -> None:
        assert hold.wait(20)

    async with encoder_over(minilm, model_cache, hanging, stalled_after_s=0.3) as (encoder, e):
        chosen = settings(model_cache)
        service = Service("x", lambda server: None, health=encoder.health)
        async with served(chosen, service) as (server, channel):
            assert await status(channel) == "SERVING"
            stuck = asyncio.create_task(e.embed(["stuck"], deadline=Deadline.after(20)))
            await until_status(channel, "NOT_SERVING")
            hold.set()
            await stuck
            await until_status(channel, "SERVING")
            assert not server.dead.is_set()


async def test_a_lost_device_ends_the_service(minilm: EncoderModel, model_cache: Path) -> None:
    def lost(batch: Sequence[EncodeItem]) -> None:
        raise DeviceLost("the driver is gone")

    async with encoder_over(minilm, model_cache, lost) as (encoder, embedder):
        service = Service("x", lambda server: None, health=encoder.health)
        async with served(settings(model_cache), service) as (server, channel):
            with pytest.raises(Unavailable, match="device is lost"):
                await embedder.embed(["a text"], deadline=Deadline.after(10))
            await until_status(channel, "NOT_SERVING")
            async with asyncio.timeout(5):
                await server.dead.wait()


async def test_two_devices_are_two_processes_behind_one_queue(model_cache: Path) -> None:
    chosen = settings(model_cache, engine="onnx", device="cpu,cpu", cache_mb=0)
    async with served(chosen) as (_, channel):
        texts = [f"passage {number} " * (1 + number % 30) for number in range(40)]
        reply = await embed(channel, texts)
        alone = await embed(channel, [texts[7]])
    rows = tensors.unpack(reply.vectors)
    assert rows.shape == (40, 384)
    assert rows[7] @ tensors.unpack(alone.vectors)[0] >= 0.99999


@pytest.mark.parametrize(
    ("device", "error", "reason"),
    [
        ("cuda:98,cuda:99", Unavailable, "device is 'cuda:9[89]', but torch"),
        ("cuda:1,cuda:1", InvalidInput, "name each GPU once"),
    ],
)
async def test_a_list_with_a_gpu_that_is_missing_stops_the_start(
    model_cache: Path, device: str, error: type[RaglanError], reason: str
) -> None:
    service = app.build(settings(model_cache, engine="torch", device=device))
    with pytest.raises(error, match=reason):
        await service.start()
    await service.close()


def over(embedder: Embedder) -> Service:
    servicer = EmbedderServicer()
    servicer.loaded(embedder, common_pb2.ServiceInfo(), metrics_port=0, seconds=0)
    return Service(
        "raglan.v1.EmbedderService",
        lambda server: embedder_pb2_grpc.add_EmbedderServiceServicer_to_server(servicer, server),
    )


def poisoned(batch: Sequence[EncodeItem]) -> None:
    if any(len(text.ids) == 7 for text in batch):
        raise RuntimeError("a kernel failed")


@asynccontextmanager
async def encoder_over(
    model: EncoderModel,
    model_cache: Path,
    before: Callable[[Sequence[EncodeItem]], None],
    *,
    stalled_after_s: float = 30,
) -> AsyncIterator[tuple[DeviceEncoder, Embedder]]:
    """The real engine; `before` is called with each batch first."""
    loaded = await asyncio.to_thread(
        engines.load,
        "onnx",
        model,
        device="cpu",
        precision="f32",
        streams=1,
        cache_dir=model_cache,
    )

    def run(batch: Sequence[EncodeItem]) -> Sequence[TextVectors]:
        before(batch)
        return loaded.streams[0](batch)

    engine = Engine("onnx", (run,), "cpu", "f32")
    metrics = EncoderMetrics(CollectorRegistry(), cache="scores")
    limits = batch_limits(engine, tokens=0, texts=0, waiting=100, bulk_share=0.2, margin_s=0.0)
    encoder = DeviceEncoder(
        engine,
        model,
        limits=limits,
        stalled_after_s=stalled_after_s,
        metrics=metrics,
        tokenizing=await asyncio.to_thread(ModelTokenizing.of, model),
    )
    try:
        yield (
            encoder,
            Embedder(
                encoder,
                encoder.identity,
                limits=TextLimits(100, 1_000),
                cache_bytes=0,
                looked_up=metrics.looked_up,
            ),
        )
    finally:
        await encoder.close()
