"""Encoders in the caller's own process: sentence-transformers, and our bare engine.

Each lives in a process of its own beside the benchmark, so that neither's threads nor memory
touch the load generator.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from multiprocessing import get_context
from typing import Any, Literal

import numpy as np
from callers import OK, Target, connected
from numpy.typing import NDArray
from raglan.encoders import model as models

THREADS = 2

_LOAD_S = 300.0
_RUN_S = 600.0
_TURN = 10

Dtype = Literal["f32", "bf16"]


class SentenceTransformers:
    """`SentenceTransformer.encode` with two threads, in its own order: sorted by length, by 32."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool

    def encode(self, texts: Sequence[str], dtype: Dtype) -> tuple[float, NDArray[np.float32]]:
        """Seconds it took, and the vectors, rows of length 1."""
        return self._pool.submit(_encode, list(texts), dtype).result(_RUN_S)


class BareEngine:
    """Our engine with its defaults, called directly: tokenise, run, pool."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool

    def beside(
        self, target: Target, texts: Sequence[str], requests: Sequence[bytes]
    ) -> tuple[list[float], list[float]]:
        """Milliseconds of each text served over gRPC, and of each run here, one at a time.

        Ten and ten in turn, so that both see the same weather on a shared machine.
        """
        running = self._pool.submit(_beside, target, list(texts), list(requests))
        return running.result(_RUN_S)


@contextmanager
def sentence_transformers() -> Iterator[SentenceTransformers]:
    """Loaded and warm until the block ends."""
    with _process() as pool:
        reference = SentenceTransformers(pool)
        for dtype in ("f32", "bf16"):
            reference.encode(["warm up " * length for length in (1, 16, 64, 256)], dtype)
        yield reference


@contextmanager
def bare_engine() -> Iterator[BareEngine]:
    """Loaded and warm until the block ends."""
    with _process() as pool:
        pool.submit(_warm_up).result(_LOAD_S)
        yield BareEngine(pool)


@contextmanager
def _process() -> Iterator[ProcessPoolExecutor]:
    pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
    try:
        pool.submit(time.monotonic).result(_LOAD_S)
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@lru_cache
def _reference(dtype: Dtype) -> Any:
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(THREADS)
    return SentenceTransformer(
        str(models.locate(models.DEFAULT_MODEL)),
        device="cpu",
        local_files_only=True,
        model_kwargs={"dtype": torch.float32 if dtype == "f32" else torch.bfloat16},
    )


def _encode(texts: list[str], dtype: Dtype) -> tuple[float, NDArray[np.float32]]:
    import torch

    model = _reference(dtype)
    begun = time.perf_counter()
    found = model.encode(texts, batch_size=32, convert_to_tensor=True, show_progress_bar=False)
    seconds = time.perf_counter() - begun
    vectors = torch.nn.functional.normalize(found.float(), dim=1).cpu().numpy()
    return seconds, vectors


@lru_cache
def _bare() -> Any:
    """A function from one text to its vector."""
    from raglan.encoders.tokenizer import Tokenizers
    from raglan_embedder import engines
    from raglan_embedder.outputs import EncodeItem
    from raglan_embedder.settings import EmbedderSettings

    settings = EmbedderSettings()
    model = models.read(settings.model)
    engine = engines.load(
        settings.engine,
        model,
        device=settings.device,
        precision=settings.precision,
        streams=settings.streams,
        cache_dir=settings.cache_dir,
    )
    tokenizers = Tokenizers(model.path, model.max_tokens)
    return lambda text: engine.streams[0]([EncodeItem(tokenizers.ids([text])[0])])


def _beside(
    target: Target, texts: list[str], requests: list[bytes]
) -> tuple[list[float], list[float]]:
    return asyncio.run(_in_turn(target, texts, requests))


def _warm_up() -> None:
    for length in range(1, 20):
        _bare()("warm up " * length)


async def _in_turn(
    target: Target, texts: list[str], requests: list[bytes]
) -> tuple[list[float], list[float]]:
    embed = _bare()
    served: list[float] = []
    bare: list[float] = []
    async with connected(target, 1) as (call,):
        for at in range(0, len(texts), _TURN):
            for request in requests[at : at + _TURN]:
                begun = time.perf_counter()
                if (reply := await call(request, 30)).status != OK:
                    raise RuntimeError(f"a single query ended with {reply.status}")
                served.append((time.perf_counter() - begun) * 1e3)
            for text in texts[at : at + _TURN]:
                begun = time.perf_counter()
                embed(text)
                bare.append((time.perf_counter() - begun) * 1e3)
    return served, bare
