"""The reranker, put together: the only place that names concrete classes."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

from raglan.cache import Cache
from raglan.deadline import Deadline
from raglan.encoders import cross_encoder, fingerprint, judge, sessions
from raglan.encoders import model as models
from raglan.encoders.device_use import DeviceUse, unused_gpu
from raglan.encoders.judge import JudgePrompts
from raglan.encoders.metrics import EncoderMetrics
from raglan.encoders.model import EncoderModel
from raglan.encoders.tokenizer import PairTokenizers
from raglan.health import Health
from raglan.rpc.server import Service
from raglan.scheduling import Dispatcher, Lane, LatencyModel, Limits, Pool
from raglan.telemetry import gpu
from raglan.telemetry.metrics import Endpoint
from raglan.v1 import common_pb2, reranker_pb2_grpc

from raglan_reranker import calibration, reranking
from raglan_reranker.engines import Engine, MakeDispatcher, devices
from raglan_reranker.engines.cross_encoder import CrossEncoding, listed
from raglan_reranker.engines.devices import Streams, nothing
from raglan_reranker.engines.late_interaction import LateInteraction, normalising, tokenizers_of
from raglan_reranker.engines.null import NullReranking
from raglan_reranker.metrics import RankingMetrics
from raglan_reranker.reranking import Reranker
from raglan_reranker.servicer import RerankerServicer
from raglan_reranker.settings import RerankerSettings
from raglan_reranker.tuning import PASSAGE_TOKENS_ON_CPU, TOKENS_ON_GPU, TUNING

WARM_UP_S: Final = 120.0
"""Longest the first runs may take before the start counts as failed."""

SLOW: Final = {"seconds_per_token": 1 / 4_000, "overhead_s": 0.01}
"""Assumed cost of tokens until measured: half the speed of two cores with MiniLM."""


class Loaded(NamedTuple):
    """A model that has been loaded, before its queue."""

    make: Callable[[MakeDispatcher], Engine]
    """Puts the engine behind its queue."""
    identity: common_pb2.ModelIdentity
    close: Callable[[], None] = nothing
    """Releases its streams."""
    uses: tuple[DeviceUse, ...] = ()
    """GPUs that it runs on."""


def build(settings: RerankerSettings) -> Service:
    """The service, not yet loaded: `start` reads, exports, compiles and warms up the model."""
    metrics = Endpoint.of(settings)
    counted = EncoderMetrics(metrics.registry, cache="scores")
    ranking = RankingMetrics(metrics.registry)
    servicer = RerankerServicer()
    running: list[Reranker] = []
    holding: list[Callable[[], None]] = []
    stopped = threading.Event()

    async def start() -> None:
        started = time.monotonic()
        loaded = await asyncio.to_thread(_LOADERS[settings.engine], settings, stopped)
        holding.append(loaded.close)
        engine = loaded.make(partial(_dispatcher, settings, counted))
        reranker = _reranker(settings, engine, loaded.identity, counted, ranking)
        running.append(reranker)
        deadline = Deadline.after(WARM_UP_S)
        await engine.start(deadline=deadline)
        await reranker.warm_up(deadline=deadline)
        servicer.loaded(
            reranker,
            _facts(settings, reranker, loaded),
            metrics_port=metrics.port,
            seconds=time.monotonic() - started,
        )

    async def close() -> None:
        stopped.set()
        for reranker in running:
            await reranker.close()
        for give_back in holding:
            await asyncio.to_thread(give_back)

    return Service(
        name="raglan.v1.RerankerService",
        register=lambda server: reranker_pb2_grpc.add_RerankerServiceServicer_to_server(
            servicer, server
        ),
        start=start,
        close=close,
        health=lambda: running[0].engine.health() if running else Health.SERVING,
        metrics=metrics,
    )


def _late_interaction(settings: RerankerSettings, stopped: threading.Event) -> Loaded:
    model = models.read(settings.model)
    loaded = devices.load(settings.device, partial(_encoding_on, settings, model), stopped)
    cache_bytes = settings.cache_vectors_mb * 1e6
    # Here, in a thread: large vocabularies take a second.
    tokenizers = tokenizers_of(model, _passage_tokens(settings, loaded.device))

    def make(dispatcher: MakeDispatcher) -> Engine:
        return LateInteraction(
            loaded.streams,
            model,
            tokenizers,
            device=loaded.device,
            dtype=loaded.dtype,
            dispatcher=dispatcher,
            cache_bytes=cache_bytes,
        )

    identity = common_pb2.ModelIdentity(
        id=model.id, revision=model.revision, dimension=model.dimension
    )
    return Loaded(make, identity, loaded.close, loaded.uses)


def _cross_encoder(settings: RerankerSettings, stopped: threading.Event) -> Loaded:
    model = models.read(settings.model)
    loaded = devices.load(settings.device, partial(_judging_on, settings, model), stopped)
    most = _passage_tokens(settings, loaded.device)
    tokenizers = PairTokenizers(model.path, model.max_tokens, passage_tokens=most)

    def make(dispatcher: MakeDispatcher) -> Engine:
        return CrossEncoding(
            loaded.streams,
            tokenizers,
            device=loaded.device,
            dtype=loaded.dtype,
            dispatcher=dispatcher,
        )

    identity = common_pb2.ModelIdentity(id=model.id, revision=model.revision)
    return Loaded(make, identity, loaded.close, loaded.uses)


def _llm(settings: RerankerSettings, stopped: threading.Event) -> Loaded:
    model = models.read(settings.model)
    loaded = devices.load(settings.device, partial(_asking_on, settings, model), stopped)
    prompts = JudgePrompts(
        model.path,
        model.max_tokens,
        passage_tokens=_passage_tokens(settings, loaded.device) or model.max_tokens,
        instruction=settings.instruction,
    )

    def make(dispatcher: MakeDispatcher) -> Engine:
        return CrossEncoding(
            loaded.streams,
            prompts,
            name="llm",
            device=loaded.device,
            dtype=loaded.dtype,
            dispatcher=dispatcher,
        )

    revision = fingerprint.of_use(model.revision, settings.instruction)
    identity = common_pb2.ModelIdentity(id=model.id, revision=revision)
    return Loaded(make, identity, loaded.close, loaded.uses)


def _asking_on(
    settings: RerankerSettings,
    model: EncoderModel,
    device: str,
    stopped: threading.Event | None = None,
) -> Streams:
    loaded = judge.load(model, device=device, precision=settings.precision)
    streams = [listed(score) for score in loaded.streams]
    return Streams(streams, loaded.device, loaded.dtype, loaded.uses)


def _encoding_on(
    settings: RerankerSettings,
    model: EncoderModel,
    device: str,
    stopped: threading.Event | None = None,
) -> Streams:
    loaded = sessions.load(
        settings.runtime,
        model,
        device=device,
        precision=settings.precision,
        streams=settings.streams,
        cache_dir=settings.cache_dir,
        bulk=False,
        stopped=stopped,
    )
    streams = [normalising(run) for run in loaded.streams]
    return Streams(streams, loaded.device, loaded.dtype, loaded.uses)


def _judging_on(
    settings: RerankerSettings,
    model: EncoderModel,
    device: str,
    stopped: threading.Event | None = None,
) -> Streams:
    loaded = cross_encoder.load(
        settings.runtime,
        model,
        device=device,
        precision=settings.precision,
        streams=settings.streams,
        cache_dir=settings.cache_dir,
        stopped=stopped,
    )
    streams = [listed(score) for score in loaded.streams]
    return Streams(streams, loaded.device, loaded.dtype, loaded.uses)


def _http(settings: RerankerSettings, _: threading.Event) -> Loaded:
    # The HTTP client takes 4 MB that no other engine needs.
    from raglan.http_client import ModelServer

    from raglan_reranker.engines import http

    server = ModelServer(settings.base_url, called=http.CALLED, api_key=settings.api_key)

    def make(dispatcher: MakeDispatcher) -> Engine:
        return http.HttpReranking(server, model=settings.model, api=settings.api)

    return Loaded(make, common_pb2.ModelIdentity(id=settings.model))


def _null(_: RerankerSettings, __: threading.Event) -> Loaded:
    def make(dispatcher: MakeDispatcher) -> Engine:
        return NullReranking(dispatcher=dispatcher)

    # Without a revision no score is kept: it depends on the place, not on the text.
    return Loaded(make, common_pb2.ModelIdentity(id=NullReranking.name))


_LOADERS: Final[dict[str, Callable[[RerankerSettings, threading.Event], Loaded]]] = {
    "late-interaction": _late_interaction,
    "cross-encoder": _cross_encoder,
    "llm": _llm,
    "http": _http,
    "null": _null,
}


def _dispatcher(
    settings: RerankerSettings, metrics: EncoderMetrics, pool: Pool[object, object], device: str
) -> Dispatcher[object, object]:
    on_cpu = device.startswith("cpu")
    made = Dispatcher(
        [pool],
        limits=Limits(
            batch_tokens=settings.max_batch_tokens or (256 if on_cpu else 16_384),
            batch_items=8 if on_cpu else 256,
            waiting_items=settings.max_waiting_texts,
            padded=sessions.padded,
            margin_s=settings.deadline_margin_ms / 1e3,
        ),
        latency=lambda: LatencyModel(**SLOW),
        stalled_after_s=settings.stalled_after_s,
        name="rerank",
        observer=metrics,
    )
    metrics.watch(made)
    return made


def _limits(settings: RerankerSettings, engine: Engine) -> reranking.Limits:
    tuning = TUNING[engine.name]
    on_cpu = engine.device.startswith("cpu")
    return reranking.Limits(
        candidates=settings.max_candidates,
        chars=settings.max_text_chars,
        scored=settings.max_scored,
        tokens=settings.max_tokens or (tuning.tokens_on_cpu if on_cpu else TOKENS_ON_GPU),
        gap=settings.max_gap or tuning.gap,
    )


def _passage_tokens(settings: RerankerSettings, device: str) -> int:
    """Of one candidate; 0 where only the model sets a limit."""
    on_cpu = device.startswith("cpu")
    return settings.max_passage_tokens or (PASSAGE_TOKENS_ON_CPU if on_cpu else 0)


def _reranker(
    settings: RerankerSettings,
    engine: Engine,
    identity: common_pb2.ModelIdentity,
    metrics: EncoderMetrics,
    ranking: RankingMetrics,
) -> Reranker:
    tuning = TUNING[engine.name]
    return Reranker(
        engine,
        limits=_limits(settings, engine),
        share=tuning.share if settings.blend is None else settings.blend,
        is_absolute=tuning.is_absolute,
        # A model without a revision may change unseen, and the scores with it.
        pairs=Cache(settings.cache_pairs if identity.revision else 0),
        identity=(
            *(identity.id, identity.revision, engine.dtype),
            str(_passage_tokens(settings, engine.device)),
        ),
        calibration=calibration.calibration_of(engine.name, identity.revision),
        looked_up=metrics.looked_up,
        tokenized=partial(metrics.tokenized, Lane.INTERACTIVE),
        ranked=ranking.ranked,
    )


def _facts(
    settings: RerankerSettings, reranker: Reranker, loaded: Loaded
) -> common_pb2.ServiceInfo:
    limits = reranker.limits
    return common_pb2.ServiceInfo(
        engine=reranker.engine.name,
        model=loaded.identity,
        device=reranker.engine.device,
        dtype=reranker.engine.dtype,
        limits={
            "max_candidates": limits.candidates,
            "max_scored": limits.scored,
            "max_tokens": limits.tokens,
            "max_text_chars": limits.chars,
        },
        device_asked=settings.device,
        devices=[use.to_proto() for use in loaded.uses],
        problems=unused_gpu(
            settings.device, _runtime(settings), reranker.engine.device, gpu.driver_version()
        ),
    )


def _runtime(settings: RerankerSettings) -> str:
    """Engine that runs the model: a language model always runs on torch."""
    return "torch" if settings.engine == "llm" else settings.runtime
