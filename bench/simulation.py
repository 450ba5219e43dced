"""Discrete-event simulation of a model server: arrivals, a queueing policy, a device.

No clock and no thread: events in a heap, so a minute of traffic takes about a second, and a seed
gives the same run every time.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol


@dataclass(frozen=True)
class Device:
    """Device that runs a batch in `per_token_s * padded_tokens + overhead_s`, with noise."""

    name: str
    per_token_s: float
    overhead_s: float
    streams: int
    batch_tokens: int
    batch_items: int
    window: int
    """Waiting texts among which the scheduler looks for like lengths."""

    noise: float = 0.1
    """Standard deviation of the logarithm of a batch's time over the model's."""

    def seconds(self, padded_tokens: float) -> float:
        return self.per_token_s * padded_tokens + self.overhead_s


@dataclass(eq=False)
class Text:
    """One text on its way."""

    tokens: int
    arrived_at: float
    expires_at: float
    bulk: bool = False
    begun_at: float = field(default=float("nan"))
    done_at: float = field(default=float("inf"))
    refused: bool = False

    @property
    def in_time(self) -> bool:
        return self.done_at <= self.expires_at


@dataclass(eq=False)
class Job:
    """A batch about to run."""

    texts: list[Text]
    padded_tokens: int
    handle: object = None
    """The policy's own."""

    begun_at: float = float("nan")
    seconds: float = float("nan")


class Policy(Protocol):
    """A queue: told what happens, asked what runs next."""

    def arrive(self, texts: Sequence[Text], now: float) -> None:
        """One request came. Refused texts get `refused`."""

    def start(self, now: float) -> Job | None:
        """A stream is free: what it runs now; None leaves it idle."""

    def finished(self, job: Job, seconds: float, now: float) -> None:
        """`job` took `seconds`."""

    def wake_at(self, now: float) -> float | None:
        """Time to be asked again although nothing happened, of a policy with a timer."""


@dataclass
class Trace:
    """Outcome of all texts, in order of arrival."""

    texts: list[Text] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)
    """In the order in which they began."""

    def goodput(self, begin: float, end: float) -> float:
        """The share of what arrived between `begin` and `end` that was answered in time."""
        asked = [text for text in self.texts if begin <= text.arrived_at < end]
        return sum(text.in_time for text in asked) / max(1, len(asked))


Arrivals = Iterator[tuple[float, list[Text]]]
"""Requests in order of time, each of one or more texts."""


def simulate(policy: Policy, device: Device, arrivals: Arrivals, *, seed: int) -> Trace:
    """Run until all that was not refused or dropped is done."""
    return _Simulation(policy, device, arrivals, seed).run()


class _Simulation:
    def __init__(self, policy: Policy, device: Device, arrivals: Arrivals, seed: int) -> None:
        self.policy = policy
        self.device = device
        self.arrivals = iter(arrivals)
        self.noise = random.Random(seed)
        self.trace = Trace()
        self.idle = device.streams
        self.timer = float("inf")
        self._order = itertools.count()
        self._events: list[tuple[float, int, Callable[[float], None]]] = []

    def run(self) -> Trace:
        self._expect()
        while self._events:
            now, _, happen = heapq.heappop(self._events)
            happen(now)
            while self.idle and (job := self.policy.start(now)) is not None:
                self._begin(job, now)
            wake = self.policy.wake_at(now) if self.idle else None
            if wake is not None and wake < self.timer:
                self.timer = max(wake, now)
                self._at(self.timer, self._woken)
        return self.trace

    def _at(self, time: float, happen: Callable[[float], None]) -> None:
        heapq.heappush(self._events, (time, next(self._order), happen))

    def _expect(self) -> None:
        """Put the next arrival among the events."""
        if (request := next(self.arrivals, None)) is not None:
            self._at(request[0], partial(self._arrived, request[1]))

    def _arrived(self, texts: list[Text], now: float) -> None:
        self.trace.texts += texts
        self.policy.arrive(texts, now)
        self._expect()

    def _woken(self, now: float) -> None:
        self.timer = float("inf")

    def _begin(self, job: Job, now: float) -> None:
        self.idle -= 1
        job.begun_at = now
        job.seconds = self.device.seconds(job.padded_tokens)
        job.seconds *= self.noise.lognormvariate(0, self.device.noise)
        self.trace.jobs.append(job)
        for text in job.texts:
            text.begun_at = now
        self._at(now + job.seconds, partial(self._ended, job))

    def _ended(self, job: Job, now: float) -> None:
        self.idle += 1
        for text in job.texts:
            text.done_at = now
        self.policy.finished(job, job.seconds, now)


# --- Arrivals -------------------------------------------------------------------------------------


def poisson(rate: float, seconds: float, random: random.Random) -> Iterator[float]:
    """Times of a Poisson process of `rate` a second."""
    now = random.expovariate(rate)
    while now < seconds:
        yield now
        now += random.expovariate(rate)


ON_S = 0.4
OFF_S = 0.6


def bursty(rate: float, seconds: float, random: random.Random) -> Iterator[float]:
    """An on-off process: exponential spells of 0.4 s with all the load and of 0.6 s with none.

    The mean is `rate`: while on, 2.5 times as much arrives.
    """
    now = 0.0
    while now < seconds:
        ends = now + random.expovariate(1 / ON_S)
        now += random.expovariate(rate * (ON_S + OFF_S) / ON_S)
        while now < ends and now < seconds:
            yield now
            now += random.expovariate(rate * (ON_S + OFF_S) / ON_S)
        now = ends + random.expovariate(1 / OFF_S)


# --- What could be had ----------------------------------------------------------------------------


def best_cost(device: Device, lengths: Sequence[int]) -> dict[int, float]:
    """Device seconds of a text by its length, if all batches were full and of like lengths."""
    cost: dict[int, float] = {}
    batch: list[int] = []

    def close() -> None:
        seconds = device.seconds(len(batch) * max(batch)) / device.streams
        for length in batch:
            cost[length] = seconds / len(batch)
        batch.clear()

    # A stock so large that the last, half-empty batch of each length does not count.
    for length in sorted(lengths):
        full = len(batch) >= device.batch_items or (len(batch) + 1) * length > device.batch_tokens
        if batch and full:
            close()
        batch.append(length)
    close()
    return cost


def ceiling(cost: dict[int, float], arrivals: Arrivals, begin: float, end: float) -> float:
    """Compute the share in time of an ideal server.

    It is always as fast as with full batches of equal lengths, takes texts one by one in order,
    and knows at once which would be late.
    """
    free_at = 0.0
    asked = good = 0
    for now, texts in arrivals:
        for text in texts:
            done = max(free_at, now) + cost[text.tokens]
            counted = begin <= now < end
            asked += counted
            if done <= text.expires_at:
                free_at = done
                good += counted
    return good / max(1, asked)
