"""The reranker, put together: the only place that names concrete classes."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Final

import structlog
from raglan.cache import Cache
from raglan.deadline import Deadline
from raglan.encoders import cross_encoder, sessions
from raglan.encoders import model as models
from raglan.encoders.queue import BatchLimits
from raglan.rpc.server import Service
from raglan.v1 import common_pb2, reranker_pb2_grpc

from raglan_reranker import calibration
from raglan_reranker.engines import Engine
from raglan_reranker.engines.cross_encoder import CrossEncoding
from raglan_reranker.engines.late_interaction import LateInteraction
from raglan_reranker.latency import LatencyModel
from raglan_reranker.reranking import Limits, Reranker
from raglan_reranker.servicer import RerankerServicer
from raglan_reranker.settings import RerankerSettings

log: Final = structlog.get_logger()

WARM_UP_S: Final = 120.0
"""Longest the first runs may take before the start counts as failed."""

SLOW: Final = {"seconds_per_token": 1 / 4_000, "overhead_s": 0.01}
"""What tokens are taken to cost until measured: half the speed of two cores with MiniLM."""


def build(settings: RerankerSettings) -> Service:
    """The service, not yet loaded: `start` reads, exports, compiles and warms up the model."""
    servicer = RerankerServicer()
    running: list[Reranker] = []

    async def start() -> None:
        started = time.monotonic()
        engine, identity = await asyncio.to_thread(_load, settings)
        reranker = Reranker(
            engine,
            limits=_limits(settings, engine),
            share=settings.blend,
            latency=LatencyModel(**SLOW),
            pairs=Cache(settings.cache_pairs),
            identity=(identity.id, identity.revision, engine.dtype),
            calibration=calibration.known(engine.name, identity.revision),
        )
        running.append(reranker)
        await reranker.warm_up(deadline=Deadline.after(WARM_UP_S))
        servicer.loaded(reranker, _info(reranker, identity))
        log.info(
            "model loaded",
            model=identity.id,
            revision=identity.revision,
            engine=engine.name,
            device=engine.device,
            dtype=engine.dtype,
            seconds=round(time.monotonic() - started, 2),
        )

    async def close() -> None:
        for reranker in running:
            await reranker.close()

    return Service(
        name="raglan.v1.RerankerService",
        register=lambda server: reranker_pb2_grpc.add_RerankerServiceServicer_to_server(
            servicer, server
        ),
        start=start,
        close=close,
    )


def _load(settings: RerankerSettings) -> tuple[Engine, common_pb2.ModelIdentity]:
    if settings.engine == "cross-encoder":
        return _cross_encoder(settings)
    return _late_interaction(settings)


def _late_interaction(settings: RerankerSettings) -> tuple[Engine, common_pb2.ModelIdentity]:
    model = models.read(settings.model)
    loaded = sessions.load(
        settings.runtime,
        model,
        device=settings.device,
        precision=settings.precision,
        streams=settings.streams,
        cache_dir=settings.cache_dir,
    )
    engine = LateInteraction(
        loaded,
        model,
        limits=_batches(settings, loaded.device),
        max_waiting=settings.max_waiting_texts,
        cache_bytes=settings.cache_vectors_mb * 1e6,
    )
    return engine, common_pb2.ModelIdentity(
        id=model.id, revision=model.revision, dimension=model.dimension
    )


def _cross_encoder(settings: RerankerSettings) -> tuple[Engine, common_pb2.ModelIdentity]:
    model = models.read(settings.model)
    loaded = cross_encoder.load(
        settings.runtime,
        model,
        device=settings.device,
        precision=settings.precision,
        streams=settings.streams,
        cache_dir=settings.cache_dir,
    )
    engine = CrossEncoding(
        loaded,
        model,
        limits=_batches(settings, loaded.device),
        max_waiting=settings.max_waiting_texts,
    )
    return engine, common_pb2.ModelIdentity(id=model.id, revision=model.revision)


def _batches(settings: RerankerSettings, device: str) -> BatchLimits:
    on_cpu = device == "cpu"
    return BatchLimits(
        tokens=settings.max_batch_tokens or (256 if on_cpu else 16_384),
        items=8 if on_cpu else 256,
    )


def _limits(settings: RerankerSettings, engine: Engine) -> Limits:
    # Measured for late interaction: `make bench-reranker`.
    tokens, gap = (2_000, 3.0) if engine.name == LateInteraction.name else (1_200, math.inf)
    return Limits(
        candidates=settings.max_candidates,
        chars=settings.max_text_chars,
        scored=settings.max_scored,
        tokens=settings.max_tokens or (tokens if engine.device == "cpu" else 65_536),
        margin_s=settings.deadline_margin_ms / 1e3,
        gap=settings.max_gap or gap,
    )


def _info(reranker: Reranker, identity: common_pb2.ModelIdentity) -> common_pb2.ServiceInfo:
    limits = reranker.limits
    return common_pb2.ServiceInfo(
        engine=reranker.engine.name,
        model=identity,
        device=reranker.engine.device,
        dtype=reranker.engine.dtype,
        limits={
            "max_candidates": limits.candidates,
            "max_scored": limits.scored,
            "max_tokens": limits.tokens,
            "max_text_chars": limits.chars,
        },
    )
