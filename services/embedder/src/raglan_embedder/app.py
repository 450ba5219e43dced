"""The embedder, put together: the only place that names concrete classes."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Final

import raglan
import structlog
from prometheus_client import CollectorRegistry
from raglan.deadline import Deadline
from raglan.encoders import model as models
from raglan.encoders.metrics import EncoderMetrics
from raglan.encoders.model import EncoderModel
from raglan.health import Health
from raglan.rpc.server import Service
from raglan.telemetry.metrics import Endpoint
from raglan.v1 import common_pb2, embedder_pb2_grpc

from raglan_embedder import engines
from raglan_embedder.embedding import Embedder, Identity, Kind, TextLimits
from raglan_embedder.encoding import DeviceEncoder, batch_limits
from raglan_embedder.engines import Engine
from raglan_embedder.servicer import EmbedderServicer
from raglan_embedder.settings import EmbedderSettings

log: Final = structlog.get_logger()

WARM_UP_S: Final = 120.0
"""Longest the first runs may take before the start counts as failed."""


def build(settings: EmbedderSettings) -> Service:
    """The service, not yet loaded: `start` reads, exports, compiles and warms up the model."""
    registry = CollectorRegistry()
    counted = EncoderMetrics(registry)
    metrics = Endpoint(registry, settings.host, settings.metrics_port)
    servicer = EmbedderServicer(settings.max_message_bytes)
    running: list[DeviceEncoder] = []

    async def start() -> None:
        started = time.monotonic()
        model, engine = await asyncio.to_thread(_load, settings)
        encoder = _encoder(settings, model, engine, counted)
        running.append(encoder)
        await encoder.warm_up(deadline=Deadline.after(WARM_UP_S))
        embedder = Embedder(
            encoder,
            _identity(model, engine),
            limits=TextLimits(texts=settings.max_texts, chars=settings.max_text_chars),
            cache_bytes=settings.cache_mb * 1_000_000,
            looked_up=counted.looked_up,
        )
        servicer.loaded(embedder, _info(encoder, embedder, metrics.port))
        log.info(
            "model loaded",
            model=model.id,
            revision=model.revision,
            engine=engine.name,
            device=engine.device,
            dtype=engine.dtype,
            streams=len(engine.streams),
            seconds=round(time.monotonic() - started, 2),
        )

    async def close() -> None:
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


def _load(settings: EmbedderSettings) -> tuple[EncoderModel, Engine]:
    model = models.read(settings.model).capped(settings.max_tokens)
    engine = engines.load(
        settings.engine,
        model,
        device=settings.device,
        precision=settings.precision,
        streams=settings.streams,
        cache_dir=settings.cache_dir,
    )
    return model, engine


def _encoder(
    settings: EmbedderSettings, model: EncoderModel, engine: Engine, metrics: EncoderMetrics
) -> DeviceEncoder:
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
    )


def _identity(model: EncoderModel, engine: Engine) -> Identity:
    return Identity(
        id=model.id,
        revision=model.revision,
        dtype=engine.dtype,
        dimension=model.dimension,
        outputs=engine.outputs,
        prompts={
            Kind.UNSTATED: model.default_prompt,
            Kind.QUERY: model.query_prompt,
            Kind.PASSAGE: model.passage_prompt,
        },
    )


def _info(encoder: DeviceEncoder, embedder: Embedder, metrics_port: int) -> common_pb2.ServiceInfo:
    engine, identity, batches = encoder.engine, embedder.identity, encoder.limits
    return common_pb2.ServiceInfo(
        service="embedder",
        version=raglan.__version__,
        engine=engine.name,
        model=common_pb2.ModelIdentity(
            id=identity.id, revision=identity.revision, dimension=identity.dimension
        ),
        device=engine.device,
        dtype=engine.dtype,
        limits={
            "max_texts": embedder.limits.texts,
            "max_text_chars": embedder.limits.chars,
            "max_text_tokens": encoder.model.max_tokens,
            "max_batch_tokens": batches.batch_tokens,
            "max_batch_texts": batches.batch_items,
            "max_waiting_texts": batches.waiting_items,
            "streams": len(engine.streams),
        },
        outputs=identity.outputs.names(),
        pid=os.getpid(),
        metrics_port=metrics_port,
    )
