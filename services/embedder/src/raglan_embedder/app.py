"""The embedder, put together: the only place that names concrete classes."""

from __future__ import annotations

import asyncio
import time
from typing import Final

import structlog
from raglan.deadline import Deadline
from raglan.encoders import model as models
from raglan.encoders.model import EncoderModel
from raglan.encoders.queue import BatchLimits
from raglan.rpc.server import Service
from raglan.v1 import embedder_pb2_grpc

from raglan_embedder import engines
from raglan_embedder.embedding import Embedder, TextLimits
from raglan_embedder.engines import Engine
from raglan_embedder.servicer import EmbedderServicer
from raglan_embedder.settings import EmbedderSettings

log: Final = structlog.get_logger()

WARM_UP_S: Final = 120.0
"""Longest the first runs may take before the start counts as failed."""


def build(settings: EmbedderSettings) -> Service:
    """The service, not yet loaded: `start` reads, exports, compiles and warms up the model."""
    servicer = EmbedderServicer()

    async def start() -> None:
        started = time.monotonic()
        model, engine = await asyncio.to_thread(_load, settings)
        embedder = _embedder(settings, model, engine)
        try:
            await embedder.warm_up(deadline=Deadline.after(WARM_UP_S))
        except BaseException:
            await embedder.close()
            raise
        servicer.embedder = embedder
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
        if servicer.embedder is not None:
            await servicer.embedder.close()

    return Service(
        name="raglan.v1.EmbedderService",
        register=lambda server: embedder_pb2_grpc.add_EmbedderServiceServicer_to_server(
            servicer, server
        ),
        start=start,
        close=close,
    )


def _load(settings: EmbedderSettings) -> tuple[EncoderModel, Engine]:
    model = models.read(settings.model)
    engine = engines.load(
        settings.engine,
        model,
        device=settings.device,
        precision=settings.precision,
        streams=settings.streams,
        cache_dir=settings.cache_dir,
    )
    return model, engine


def _embedder(settings: EmbedderSettings, model: EncoderModel, engine: Engine) -> Embedder:
    on_cpu = engine.device == "cpu"
    return Embedder(
        engine,
        model,
        limits=TextLimits(texts=settings.max_texts, chars=settings.max_text_chars),
        batches=BatchLimits(
            tokens=settings.max_batch_tokens or (512 if on_cpu else 16_384),
            items=settings.max_batch_texts or (8 if on_cpu else 256),
        ),
        max_waiting=settings.max_waiting_texts,
    )
