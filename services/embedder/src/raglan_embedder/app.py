"""The embedder, put together: the only place that names concrete classes."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from raglan.deadline import Deadline
from raglan.encoders import model as models
from raglan.encoders.device_use import unused_gpu
from raglan.encoders.metrics import EncoderMetrics
from raglan.encoders.model import EncoderModel
from raglan.health import Health
from raglan.rpc.server import Service
from raglan.telemetry import gpu
from raglan.telemetry.metrics import Endpoint
from raglan.v1 import common_pb2, embedder_pb2_grpc

from raglan_embedder import engines
from raglan_embedder.embedding import Embedder, TextLimits
from raglan_embedder.encoding import DeviceEncoder, ModelTokenizing, Tokenizing, batch_limits
from raglan_embedder.engines import Engine, null
from raglan_embedder.servicer import EmbedderServicer
from raglan_embedder.settings import EmbedderSettings

if TYPE_CHECKING:
    from raglan_embedder.remote import RemoteEncoder

WARM_UP_S: Final = 120.0
"""Longest the first runs may take before the start counts as failed."""


def build(settings: EmbedderSettings) -> Service:
    """The service, not yet loaded: `start` reads, exports, compiles and warms up the model."""
    metrics = Endpoint.of(settings)
    counted = EncoderMetrics(metrics.registry, cache="vectors")
    servicer = EmbedderServicer()
    running: list[DeviceEncoder | RemoteEncoder] = []
    stopped = threading.Event()

    async def start() -> None:
        started = time.monotonic()
        encoder = await _encoder(settings, counted, stopped)
        running.append(encoder)
        await encoder.start(deadline=Deadline.after(WARM_UP_S))
        embedder = _embedder(settings, encoder, counted)
        servicer.loaded(
            embedder,
            _facts(settings, encoder, embedder),
            metrics_port=metrics.port,
            seconds=time.monotonic() - started,
        )

    async def close() -> None:
        stopped.set()
        for encoder in running:
            await encoder.close()

    return Service(
        name="raglan.v1.EmbedderService",
        register=lambda server: embedder_pb2_grpc.add_EmbedderServiceServicer_to_server(
            servicer, server
        ),
        start=start,
        close=close,
        health=lambda: running[0].health() if running else Health.SERVING,
        metrics=metrics,
    )


async def _encoder(
    settings: EmbedderSettings, metrics: EncoderMetrics, stopped: threading.Event
) -> DeviceEncoder | RemoteEncoder:
    if settings.engine == "http":
        return await asyncio.to_thread(_remote_encoder, settings)
    model, engine, tokenizing = await asyncio.to_thread(_load, settings, stopped)
    return DeviceEncoder(
        engine,
        model,
        limits=batch_limits(
            engine,
            tokens=settings.max_batch_tokens,
            texts=settings.max_batch_texts,
            waiting=settings.max_waiting_texts,
            bulk_share=settings.bulk_share,
            margin_s=settings.deadline_margin_ms / 1e3,
        ),
        stalled_after_s=settings.stalled_after_s,
        metrics=metrics,
        tokenizing=tokenizing,
    )


def _load(
    settings: EmbedderSettings, stopped: threading.Event
) -> tuple[EncoderModel, Engine, Tokenizing]:
    assert settings.engine != "http", "that one has no model here"
    known = null.MODEL if settings.engine == "null" else models.read(settings.model)
    model = known.capped(settings.max_tokens)
    model = replace(
        model,
        query_prompt=settings.query_prompt or model.query_prompt,
        passage_prompt=settings.passage_prompt or model.passage_prompt,
    )
    model = model.require_pooling(settings.pooling)
    if settings.engine == "null":
        return model, null.load(), null.Words(model.max_tokens)
    engine = engines.load(
        settings.engine,
        model,
        device=settings.device,
        precision=settings.precision,
        streams=settings.streams,
        cache_dir=settings.cache_dir,
        attention=settings.attention,
        compiled=settings.torch_compile,
        stopped=stopped,
    )
    return model, engine, ModelTokenizing.of(model)


def _remote_encoder(settings: EmbedderSettings) -> RemoteEncoder:
    # The HTTP client takes 4 MB that no other engine needs.
    from raglan.http_client import ModelServer

    from raglan_embedder.engines import http
    from raglan_embedder.remote import RemoteEncoder

    server = ModelServer(settings.base_url, called=http.CALLED, api_key=settings.api_key)
    engine = http.HttpEngine(
        server,
        model=settings.model,
        api=settings.api,
        max_batch_texts=settings.max_batch_texts or http.DEFAULT_BATCH_TEXTS,
    )
    return RemoteEncoder(
        engine,
        query_prompt=settings.query_prompt,
        passage_prompt=settings.passage_prompt,
        max_waiting_texts=settings.max_waiting_texts,
    )


def _embedder(
    settings: EmbedderSettings, encoder: DeviceEncoder | RemoteEncoder, metrics: EncoderMetrics
) -> Embedder:
    return Embedder(
        encoder,
        encoder.identity,
        limits=TextLimits(
            texts=settings.max_texts,
            chars=settings.max_text_chars,
            reply_bytes=settings.max_message_bytes,
        ),
        cache_bytes=settings.cache_mb * 1_000_000,
        looked_up=metrics.looked_up,
        tokenizer=encoder.tokenizer,
    )


def _facts(
    settings: EmbedderSettings, encoder: DeviceEncoder | RemoteEncoder, embedder: Embedder
) -> common_pb2.ServiceInfo:
    engine, identity = encoder.engine, embedder.identity
    return common_pb2.ServiceInfo(
        engine=engine.name,
        model=common_pb2.ModelIdentity(
            id=identity.id, revision=identity.revision, dimension=identity.dimension
        ),
        device=engine.device,
        dtype=engine.dtype,
        limits={
            "max_texts": embedder.limits.texts,
            "max_text_chars": embedder.limits.chars,
            **encoder.limits,
        },
        outputs=identity.outputs.names(),
        device_asked=settings.device,
        devices=[use.to_proto() for use in engine.uses],
        problems=unused_gpu(settings.device, settings.engine, engine.device, gpu.driver_version()),
    )
