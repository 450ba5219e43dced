"""Limits follow the device that the model was loaded on: the setting may be `auto`, or a list."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from raglan.encoders import model as models
from raglan.encoders.metrics import EncoderMetrics
from raglan.scheduling import Dispatcher, Pool
from raglan_reranker import app
from raglan_reranker.engines.late_interaction import LateInteraction, tokenizers_of
from raglan_reranker.settings import RerankerSettings
from raglan_reranker.tuning import PASSAGE_TOKENS_ON_CPU, TUNING


@pytest.mark.parametrize(
    ("asked", "loaded", "batch_tokens", "call_tokens"),
    [
        ("auto", "cpu", 256, 1_200),
        ("auto", "cuda:0", 16_384, 65_536),
        ("cpu,cpu", "cpu,cpu", 256, 1_200),
        ("cuda:0,cuda:1", "cuda:0,cuda:1", 16_384, 65_536),
    ],
)
async def test_batch_and_call_hold_what_suits_the_device_that_was_loaded(
    asked: str, loaded: str, batch_tokens: int, call_tokens: int
) -> None:
    settings = RerankerSettings(device=asked)
    metrics = EncoderMetrics(CollectorRegistry(), cache="scores")
    queues: list[Dispatcher[Any, Any]] = []

    def dispatcher(pool: Pool[Any, Any], device: str) -> Dispatcher[Any, Any]:
        queues.append(app._dispatcher(settings, metrics, pool, device))
        return queues[-1]

    model = models.read(models.DEFAULT_MODEL)
    engine = LateInteraction(
        [lambda batch: []],
        model,
        tokenizers_of(model),
        device=loaded,
        dtype="f32",
        dispatcher=dispatcher,
    )
    try:
        assert [queue.limits.batch_tokens for queue in queues] == [batch_tokens]
        assert app._limits(settings, engine).tokens == call_tokens
    finally:
        await engine.close()


@pytest.mark.parametrize(
    ("engine", "tokens", "share"),
    [("late-interaction", 1_200, 0.5), ("cross-encoder", 8_000, 1.0), ("llm", 8_000, 1.0)],
)
def test_defaults_are_those_of_the_engine(engine: str, tokens: int, share: float) -> None:
    tuning = TUNING[engine]
    assert (tuning.tokens_on_cpu, tuning.share) == (tokens, share)
    settings = RerankerSettings()
    on_cpu, on_gpu = (app._passage_tokens(settings, device) for device in ("cpu", "cuda:0"))
    assert (on_cpu, on_gpu) == (PASSAGE_TOKENS_ON_CPU, 0)
    # A call of so many candidates as are scored has room, whatever their length.
    room = tokens // (PASSAGE_TOKENS_ON_CPU + 16)
    assert engine == "late-interaction" or room >= settings.max_scored


def test_every_engine_has_its_defaults() -> None:
    assert set(TUNING) == set(app._LOADERS)
