"""Encoders on a GPU against what the GPU could do at best, and queries beside bulk work.

Models of the shapes of BGE-M3 and MiniLM with random weights, which cost what trained ones do, run
by our torch engine behind our scheduler. The floors are measured on the same device in the same
run: the speed of a large matrix product, and that of a large copy.

    PYTHONPATH=tests:bench:services/common/src:services/embedder/src python bench/gpu_encoders.py

On a GPU the figures go to bench/results/gpu_encoders.json. `--device cpu --tiny` runs the script
itself in seconds and writes nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import random_models
import torch
from raglan.deadline import Deadline
from raglan.encoders import device as devices
from raglan.encoders import model as models
from raglan.encoders.sessions import padded
from raglan.scheduling import Dispatcher, Lane, LatencyModel, Limits, Pool
from raglan_embedder.engines import Engine
from raglan_embedder.engines import torch as torch_engine
from raglan_embedder.outputs import EncodeItem, TextVectors
from report import Row, publish

Queue = Dispatcher[EncodeItem, TextVectors]

QUERY_TOKENS: Final = 16
PASSAGE_TOKENS: Final = (64, 512)
"""Passages are as likely of one length between these as of another."""

DEADLINE_S: Final = 300.0
CALLS_AT_ONCE: Final = 4
"""Bulk calls on their way: as many as keep a scheduler from ever being idle."""


@dataclass(frozen=True)
class Shape:
    """Cost of a model, and the shape from which one like it is made."""

    name: str
    make: Callable[[Path, random_models.Size], Path]
    layers: int
    hidden: int
    heads: int
    vocabulary: int
    longest: int

    def weights(self) -> int:
        """Parameters that every token passes: of a layer, 4 h^2 of attention and 8 h^2 behind."""
        return self.layers * 12 * self.hidden**2

    def flops(self, tokens: int) -> float:
        """Of one text: 2 for each weight and token, and scores and sums of attention."""
        attention = 4.0 * self.layers * self.hidden * tokens**2
        return 2.0 * self.weights() * tokens + attention


SHAPES: Final = (
    Shape("MiniLM", random_models.minilm, 6, 384, 12, 30_522, 512),
    Shape("BGE-M3", random_models.bge_m3, 24, 1_024, 16, 250_002, 8_192),
)
TINY: Final = (
    Shape("tiny MiniLM", random_models.minilm, 2, 32, 2, 300, 512),
    Shape("tiny BGE-M3", random_models.bge_m3, 2, 32, 2, 300, 512),
)


@dataclass(frozen=True)
class Size:
    """Amount of work: enough for steady figures, or just to see that it runs."""

    rounds: int
    calls: int
    texts: int
    queries: int
    matrix: int


FULL: Final = Size(rounds=5, calls=40, texts=256, queries=500, matrix=8_192)
SMALL: Final = Size(rounds=2, calls=4, texts=8, queries=10, matrix=256)


@dataclass(frozen=True)
class Device:
    """Best measurements of a device in this run."""

    name: str
    flops: float
    """Of a product of square matrices, a second."""

    bytes: float
    """Read and written by a copy, a second."""


def limits_of(device: str, dtype: torch.dtype, size: Size) -> Device:
    """Measure `device` with the element type the model runs in."""
    name = torch.cuda.get_device_name(device) if device != "cpu" else "CPU"
    n = size.matrix
    left = torch.randn(n, n, device=device, dtype=dtype)
    right = torch.randn(n, n, device=device, dtype=dtype)
    product_s = _best_seconds(lambda: left @ right, device)
    # Larger than any cache.
    block = torch.empty(32 * n * n, device=device, dtype=torch.uint8)
    target = torch.empty_like(block)
    copy_s = _best_seconds(lambda: target.copy_(block), device)
    return Device(name, 2.0 * n**3 / product_s, 2.0 * block.numel() / copy_s)


def _best_seconds(work: Callable[[], object], device: str) -> float:
    def once() -> float:
        _wait(device)
        started = time.perf_counter()
        for _ in range(5):
            work()
        _wait(device)
        return (time.perf_counter() - started) / 5

    return min(once() for _ in range(6))


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize(device)


def load(shape: Shape, device: str, arguments: argparse.Namespace, folder: Path) -> Engine:
    """The engine over a random model, made in `folder`."""
    size = random_models.Size(
        shape.layers, shape.hidden, shape.heads, shape.vocabulary, shape.longest
    )
    made = shape.make(folder, size)
    model = models.read(str(made))
    return torch_engine.load(
        model,
        device=device,
        precision=arguments.precision,
        cache_dir=folder / "cache",
        attention=arguments.attention,
        compiled=arguments.compiled,
    )


def queue_for(engine: Engine) -> Queue:
    """The scheduler as the embedder sets it up for a GPU."""
    limits = Limits(
        batch_tokens=16_384, batch_items=256, waiting_items=4_096, padded=padded, window=1_024
    )
    latency = lambda: LatencyModel(seconds_per_token=1e-5, overhead_s=0.005)  # noqa: E731
    return Dispatcher(
        [Pool(engine.streams)], limits=limits, latency=latency, stalled_after_s=60, name="bench"
    )


def text(tokens: int) -> EncodeItem:
    """A text of random tokens."""
    return EncodeItem([random.randrange(5, 200) for _ in range(tokens)])


async def run(queue: Queue, texts: list[EncodeItem], lane: Lane) -> float:
    """Seconds until all of `texts` are vectors."""
    started = time.perf_counter()
    counts = [len(each.ids) for each in texts]
    await queue.run(texts, counts, deadline=Deadline.after(DEADLINE_S), lane=lane)
    return time.perf_counter() - started


async def bulk(queue: Queue, calls: list[list[EncodeItem]]) -> float:
    """Tokens a second over all `calls`, several at once."""
    waiting = iter(calls)

    async def caller() -> None:
        for texts in waiting:
            await run(queue, texts, Lane.BULK)

    started = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(CALLS_AT_ONCE)))
    tokens = sum(len(each.ids) for texts in calls for each in texts)
    return tokens / (time.perf_counter() - started)


async def queries(queue: Queue, count: int) -> list[float]:
    """Seconds of `count` queries, one after the other."""
    return [await run(queue, [text(QUERY_TOKENS)], Lane.INTERACTIVE) for _ in range(count)]


async def beside(queue: Queue, calls: list[list[EncodeItem]]) -> tuple[float, list[float]]:
    """Tokens a second of bulk, and seconds of the queries that one client asks meanwhile."""
    running = asyncio.create_task(bulk(queue, calls))
    waits: list[float] = []
    while not running.done():
        waits += await queries(queue, 1)
    return await running, waits


async def measure(shape: Shape, engine: Engine, device: Device, size: Size) -> list[Row]:
    """The rows of one model in one precision: medians over rounds."""
    random.seed(0)
    calls = [
        [text(random.randint(*PASSAGE_TOKENS)) for _ in range(size.texts)]
        for _ in range(size.calls)
    ]
    queue = queue_for(engine)
    try:
        await bulk(queue, calls[:CALLS_AT_ONCE])
        await queries(queue, 20)
        alone, idle, shared, busy = [], [], [], []
        for _ in range(size.rounds):
            alone.append(await bulk(queue, calls))
            idle.append(await queries(queue, size.queries))
            speed, waits = await beside(queue, calls)
            shared.append(speed)
            busy.append(waits)
    finally:
        await queue.close()
    return _rows(shape, engine, device, calls, _Measured(alone, idle, shared, busy))


@dataclass(frozen=True)
class _Measured:
    alone: list[float]
    idle: list[list[float]]
    shared: list[float]
    busy: list[list[float]]


def _rows(
    shape: Shape, engine: Engine, device: Device, calls: list[list[EncodeItem]], found: _Measured
) -> list[Row]:
    texts = [each for call in calls for each in call]
    tokens = sum(len(each.ids) for each in texts)
    floor_s = sum(shape.flops(len(each.ids)) for each in texts) / device.flops
    width = 4 if engine.dtype == "f32" else 2
    query_floor_ms = 1e3 * max(
        shape.weights() * width / device.bytes, shape.flops(QUERY_TOKENS) / device.flops
    )
    speed = statistics.median(found.alone)
    idle_p99 = statistics.median(map(_p99, found.idle))
    what = f"{shape.name} {engine.dtype} on {device.name}"
    return [
        Row(f"{what}: passages", "tokens/s", speed, peer=tokens / floor_s, peer_name="arithmetic"),
        Row(
            f"{what}: query p50, idle",
            "ms",
            1e3 * statistics.median(map(statistics.median, found.idle)),
            peer=query_floor_ms,
            peer_name="bandwidth or arithmetic",
        ),
        Row(f"{what}: query p99, idle", "ms", 1e3 * idle_p99),
        Row(
            f"{what}: query p99 under bulk, of the idle p99",
            "ratio",
            statistics.median(map(_p99, found.busy)) / idle_p99,
            "<= 3",
        ),
        Row(
            f"{what}: bulk beside a client that always asks, of bulk alone",
            "ratio",
            statistics.median(found.shared) / speed,
            ">= 0.7",
        ),
    ]


def _p99(seconds: list[float]) -> float:
    return sorted(seconds)[min(len(seconds) - 1, int(0.99 * len(seconds)))]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--precision", default="auto", choices=["auto", "f32", "bf16", "f16"])
    parser.add_argument("--attention", default="sdpa", choices=["sdpa", "flash_attention_2"])
    parser.add_argument("--compiled", action="store_true", help="let torch.compile fuse the model")
    parser.add_argument("--tiny", action="store_true", help="small models and few calls")
    arguments = parser.parse_args()
    device = devices.torch_device(arguments.device)
    size, shapes = (SMALL, TINY) if arguments.tiny else (FULL, SHAPES)
    rows: list[Row] = []
    for shape in shapes:
        with tempfile.TemporaryDirectory() as folder:
            engine = load(shape, device, arguments, Path(folder))
            limits = limits_of(device, torch_engine_dtype(engine), size)
            rows += asyncio.run(measure(shape, engine, limits, size))
    if device != "cpu":
        publish("gpu_encoders", rows)
        return
    for row in rows:
        print(f"{row.what}: {row.ours:.4g} {row.unit}")


def torch_engine_dtype(engine: Engine) -> torch.dtype:
    """Return torch's name of the engine's number format."""
    return {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}[engine.dtype]


if __name__ == "__main__":
    main()
