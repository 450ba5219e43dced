"""Load generation in a process of its own, closed loop and open loop.

Closed loop: a number of callers, each of which waits for its answer. Open loop: arrivals by the
clock, whatever the answers do.

Requests are serialised beforehand and answers are not decoded, over gRPC as over HTTP: what is
measured is the server, and the generator takes as little of the shared cores as it can.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context

import numpy as np
from callers import OK, Caller, Reply, Target, connected

_START_S = 0.05
_LAST_ANSWERS_S = 5.0


@dataclass
class Answers:
    """Answers to a load, one entry a call; times are seconds since the start."""

    due: list[float] = field(default_factory=list)
    """Time at which the call was due; in a closed loop, at which it was made."""

    sent: list[float] = field(default_factory=list)
    began: list[float] = field(default_factory=list)
    """Time at which the text of a streamed answer began; of any other, at which it came."""

    done: list[float] = field(default_factory=list)
    status: list[str] = field(default_factory=list)
    """A gRPC status name; of HTTP "OK" or the number."""

    read: list[int] = field(default_factory=list)
    """Tokens of the prompt, as the server counts them; `written` are those of the answer."""

    written: list[int] = field(default_factory=list)

    seconds: float = 0.0
    """From the first call to the last answer."""

    cpu_seconds: float = 0.0
    """Processor time of the load generator itself."""

    def count(self, status: str) -> int:
        return self.status.count(status)

    def took_ms(self, status: str = OK) -> list[float]:
        """From call to answer, of the calls that ended with `status`."""
        rows = zip(self.sent, self.done, self.status, strict=True)
        return [(done - sent) * 1e3 for sent, done, ended in rows if ended == status]

    def began_ms(self) -> list[float]:
        """From call to first text, of the calls that succeeded."""
        rows = zip(self.sent, self.began, self.status, strict=True)
        return [(began - sent) * 1e3 for sent, began, ended in rows if ended == OK]

    def goodput(self, begin: float, end: float, deadline_s: float) -> float:
        """Answers a second that ended between `begin` and `end`, begun `deadline_s` after due.

        Counted by arrival of the answer and after a while of load, so that neither the empty queue
        of the start nor the full one of the end adds to it.
        """
        rows = zip(self.due, self.began, self.done, self.status, strict=True)
        good = sum(
            ended == OK and begin <= done < end and began - due <= deadline_s
            for due, began, done, ended in rows
        )
        return good / (end - begin)


@dataclass(frozen=True)
class Closed:
    """`clients` callers work through `requests`, each with one call at a time.

    With `seconds`, they begin the requests again as often as the time allows. With `ramp_s`, they
    begin one after the other within it, and not in one wave. Whose call did not end well waits
    `pause_s`, as those who are told to come back do.
    """

    target: Target
    requests: Sequence[bytes]
    clients: int
    seconds: float = 0.0
    timeout_s: float = 60.0
    ramp_s: float = 0.0
    pause_s: float = 0.0

    async def run(self) -> Answers:
        answers = Answers()
        async with connected(self.target, self.clients) as callers:
            begun = time.perf_counter()
            source = self._source(begun)

            async def client(number: int, call: Caller) -> None:
                if self.ramp_s:
                    await asyncio.sleep(self.ramp_s * number / self.clients)
                await self._client(call, source, answers, begun)

            await asyncio.gather(*(client(*numbered) for numbered in enumerate(callers)))
            answers.seconds = time.perf_counter() - begun
        return answers

    def _source(self, begun: float) -> Iterator[bytes]:
        yield from self.requests if not self.seconds else ()
        while time.perf_counter() < begun + self.seconds:
            for request in self.requests:
                if time.perf_counter() >= begun + self.seconds:
                    return
                yield request

    async def _client(
        self, call: Caller, source: Iterator[bytes], answers: Answers, begun: float
    ) -> None:
        for request in source:
            sent = time.perf_counter() - begun
            reply = await call(request, self.timeout_s)
            _note(answers, begun, sent, sent, reply)
            if self.pause_s and reply.status != OK:
                await asyncio.sleep(self.pause_s)


@dataclass(frozen=True)
class Open:
    """Call number i is made `arrivals[i]` seconds after the start; nothing waits for answers."""

    target: Target
    requests: Sequence[bytes]
    """Taken in turn; from the beginning again when there are more arrivals."""

    arrivals: Sequence[float]
    timeout_s: float

    async def run(self) -> Answers:
        answers = Answers()
        async with connected(self.target, 1) as (call,):
            begun = time.perf_counter() + _START_S
            tasks: set[asyncio.Task[None]] = set()

            async def one(request: bytes, due: float) -> None:
                sent = time.perf_counter() - begun
                reply = await call(request, self.timeout_s)
                _note(answers, begun, due, sent, reply)

            for number, due in enumerate(self.arrivals):
                # Also when late: the answers that came have to be read.
                await asyncio.sleep(max(0.0, begun + due - time.perf_counter()))
                task = asyncio.create_task(one(self.requests[number % len(self.requests)], due))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            if tasks:
                await asyncio.wait(tasks, timeout=self.timeout_s + _LAST_ANSWERS_S)
            answers.seconds = time.perf_counter() - begun
        return answers


Load = Closed | Open


def poisson(rate: float, seconds: float, seed: int) -> list[float]:
    """Arrival times of a Poisson process of `rate` a second, up to `seconds`."""
    random = np.random.default_rng(seed)
    gaps = random.exponential(1 / rate, int(rate * seconds * 1.5) + 50)
    times = np.cumsum(gaps)
    return [float(time) for time in times[times < seconds]]


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest of `values` that at least `percent` of them do not exceed; nan of none."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    return ordered[max(1, math.ceil(len(ordered) * percent / 100)) - 1]


class Generator:
    """Processes that make load, two so that two kinds can run at once."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool

    def run(self, *loads: Load, limit_s: float = 300.0) -> list[Answers]:
        """Run `loads` at the same time, a process each.

        Raises:
            TimeoutError: they took longer than `limit_s`.
        """
        running = [self._pool.submit(run, load) for load in loads]
        return [each.result(limit_s) for each in running]


@contextmanager
def generator() -> Iterator[Generator]:
    """Load generators, started and stopped with the block."""
    pool = ProcessPoolExecutor(2, mp_context=get_context("spawn"))
    try:
        # Both processes are up, grpc imported, before anything is measured.
        for each in [pool.submit(time.sleep, 0.5) for _ in range(2)]:
            each.result(60)
        yield Generator(pool)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def run(load: Load) -> Answers:
    """Run `load` in this process."""
    before = time.process_time()
    answers = asyncio.run(load.run())
    answers.cpu_seconds = time.process_time() - before
    return answers


def _note(answers: Answers, begun: float, due: float, sent: float, reply: Reply) -> None:
    done = time.perf_counter() - begun
    answers.due.append(due)
    answers.sent.append(sent)
    answers.began.append(done if reply.began is None else reply.began - begun)
    answers.done.append(done)
    answers.status.append(reply.status)
    answers.read.append(reply.read)
    answers.written.append(reply.written)
