"""Clients that leave in the middle of an answer: how soon the engine stops, and what stays."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import generator_servers as servers
import grpc
import processes
from callers import Target
from generator_questions import Questions
from generator_servers import Engine, Server
from load import Generator, percentile
from raglan.v1 import common_pb2, generator_pb2_grpc
from report import Row

TIMES = 500
BEFORE = 300
"""Leave before memory is looked at: what is allocated once, and caches that fill, are no leak."""
AT_ONCE = 32
TOKENS = 2_000
"""More than are ever written before the client leaves."""
LEAVES_AFTER_S = (0.0, 0.3)
LIMIT_S = 5.0
QUIET_S = 0.15
"""Nothing in hand for so long is nothing in hand: the engine speaks once a step, and the longest
step reads a prompt."""
POLL_S = 0.002

_GROWS = (
    "not by leaving: under vllm serve, too, answers that are read to their end grow it, less and "
    "less, in the process that holds the keys and values"
)


@dataclass
class Left:
    """Observations of clients that left."""

    after_ms: list[float] = field(default_factory=list)
    """From leaving until the engine had nothing in hand."""
    reading: int = 0
    """Number that had text by then."""


def leaving(_: Generator, engine: Engine, questions: Questions) -> list[Row]:
    """One after the other, then many at once."""
    with (
        tempfile.TemporaryDirectory() as folder,
        servers.ours(engine, tasks_file=Path(folder) / "tasks") as server,
    ):
        asyncio.run(_leave(server, questions, BEFORE, 1))
        tasks, memory = _tasks(server), processes.resident_mb(server.pid)
        left = asyncio.run(_leave(server, questions, TIMES, 1))
        later = processes.resident_mb(server.pid)
        more = _tasks(server) - tasks
        crowd = asyncio.run(_leave(server, questions, TIMES // AT_ONCE + 1, AT_ONCE))
        hand = server.load()
    what = f"{TIMES} clients leave"
    note = (
        f"after {LEAVES_AFTER_S[0]:g} to {LEAVES_AFTER_S[1]:g} s, {left.reading} with text by then"
    )
    own, engines = (after - before for after, before in zip(later, memory, strict=True))
    p50 = percentile(left.after_ms, 50)
    return [
        Row(f"{what}: nothing runs, longest", "ms", max(left.after_ms), "<= 500", note=note),
        Row(f"{what}: nothing runs, p50", "ms", p50),
        Row(f"{AT_ONCE} leave at once: nothing runs, longest", "ms", max(crowd.after_ms), "<= 500"),
        Row(f"{what}: memory grown", "MB", own, "<= 10", note=f"of {memory[0]:.0f} MB"),
        Row(f"{what}: memory of vLLM's processes grown", "MB", engines, note=_GROWS),
        Row(f"{what}: asyncio tasks more", "", more, "<= 0", note=f"of {tasks}"),
        Row(f"{what}: still in hand", "", hand["running"] + hand["waiting"], "<= 0"),
    ]


async def _leave(server: Server, questions: Questions, times: int, at_once: int) -> Left:
    """`at_once` clients leave together, so often."""
    chance = random.Random(times)
    left = Left()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.target.port}") as channel:
        for _ in range(times):
            requests = [each.for_ours for each in questions.some(at_once, TOKENS)]
            seconds = chance.uniform(*LEAVES_AFTER_S)
            left.reading += await _ask_and_leave(channel, server.target, requests, seconds)
            left.after_ms.append(1e3 * await _until_idle(channel))
    return left


async def _ask_and_leave(
    channel: grpc.aio.Channel, target: Target, requests: list[bytes], seconds: float
) -> int:
    """Ask and leave; return the number of answers that had begun."""
    method: Any = channel.unary_stream(target.path)
    begun = 0

    async def ask(request: bytes) -> None:
        nonlocal begun
        answer = method(request, timeout=60)
        try:
            first = True
            async for _ in answer:
                begun += first
                first = False
        finally:
            answer.cancel()

    asking = [asyncio.create_task(ask(request)) for request in requests]
    await asyncio.wait(asking, timeout=seconds)
    if ended := [each for each in asking if each.done()]:
        raise RuntimeError(f"{len(ended)} answers ended by themselves: {ended[0]}")
    for each in asking:
        each.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    return begun


async def _until_idle(channel: grpc.aio.Channel) -> float:
    """Seconds from now until the service had nothing in hand, and stayed so.

    Raises:
        RuntimeError: it never came to that.
    """
    stub = generator_pb2_grpc.GeneratorServiceStub(channel)
    begun = idle_since = time.perf_counter()
    while time.perf_counter() - begun < LIMIT_S:
        load = (await stub.GetInfo(common_pb2.GetInfoRequest(), timeout=LIMIT_S)).load
        now = time.perf_counter()
        if load["running"] + load["waiting"] > 0:
            idle_since = now
        elif now - idle_since >= QUIET_S:
            return idle_since - begun
        await asyncio.sleep(POLL_S)
    raise RuntimeError(f"{LIMIT_S:g} s after its client had left an answer was still in hand")


def _tasks(server: Server) -> int:
    """Tasks of the service's event loop, once the calls before have ended."""
    assert server.tasks_file is not None
    time.sleep(1)
    server.tasks_file.unlink(missing_ok=True)
    os.kill(server.pid, signal.SIGUSR1)
    limit = time.monotonic() + LIMIT_S
    while time.monotonic() < limit:
        if server.tasks_file.exists() and (text := server.tasks_file.read_text()):
            return int(text)
        time.sleep(0.02)
    raise RuntimeError("The service did not say how many tasks it has.")
