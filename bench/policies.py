"""Queueing policies for the simulation: the scheduler that is served with, and its rivals.

Rivals know the device's true `a * padded_tokens + b`; the scheduler has to learn it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from raglan.errors import Overloaded
from raglan.scheduling.latency import LatencyModel
from raglan.scheduling.scheduler import Scheduler
from raglan.scheduling.work import FlushReason, Item, Lane, Limits
from simulation import Device, Job, Policy, Text

WINDOW_S = 0.005
"""Infinity's batch delay, and the usual setting of Triton's `max_queue_delay`."""


class Scheduled:
    """`raglan.scheduling.Scheduler`, driven as the dispatcher drives it."""

    def __init__(self, device: Device, *, waiting_items: int = 2048) -> None:
        limits = Limits(
            batch_tokens=device.batch_tokens,
            batch_items=device.batch_items,
            waiting_items=waiting_items,
            streams=device.streams,
            window=device.window,
        )
        # It starts from a guess that is twice too slow.
        guess = LatencyModel(
            seconds_per_token=2 * device.per_token_s, overhead_s=2 * device.overhead_s
        )
        self.scheduler = Scheduler(limits, guess)
        self._mailbox: deque[Any] = deque()

    def arrive(self, texts: Sequence[Text], now: float) -> None:
        lane = Lane.BULK if texts[0].bulk else Lane.INTERACTIVE
        items = [Item(text.tokens, lane, text.expires_at, text) for text in texts]
        try:
            self.scheduler.submit(items, now)
        except Overloaded:
            for text in texts:
                text.refused = True
            return
        ahead = self.scheduler.ahead()
        if ahead is not None and (lane < ahead.lane or ahead.closed is FlushReason.IDLE):
            # What lies in the mailbox has not begun: it is taken back, the last first.
            while self._mailbox:
                self.scheduler.retract(self._mailbox.pop())
        self._pump(now)

    def start(self, now: float) -> Job | None:
        self._pump(now)
        while self._mailbox:
            batch = self._mailbox.popleft()
            texts = [item.payload for item in batch.items if item.expires_at > now]
            if texts:
                return Job(texts, len(texts) * max(text.tokens for text in texts), batch)
            self.scheduler.failed(batch, now)
            self._pump(now)
        return None

    def finished(self, job: Job, seconds: float, now: float) -> None:
        batch: Any = job.handle
        if len(job.texts) == len(batch.items):
            self.scheduler.finished(batch, seconds, now)
        else:
            self.scheduler.failed(batch, now)
        self._pump(now)

    def wake_at(self, now: float) -> float | None:
        return None

    def _pump(self, now: float) -> None:
        while batch := self.scheduler.next_batch(now):
            self._mailbox.append(batch)
        self.scheduler.pop_late()


class Fifo:
    """Batches in order of arrival; nothing is refused or dropped."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.queue: deque[Text] = deque()

    def arrive(self, texts: Sequence[Text], now: float) -> None:
        self.queue.extend(texts)

    def start(self, now: float) -> Job | None:
        return self.take(self.fitting()) if self.queue else None

    def finished(self, job: Job, seconds: float, now: float) -> None:
        pass

    def wake_at(self, now: float) -> float | None:
        return None

    def fitting(self) -> int:
        """Return the number of texts from the head that one batch holds."""
        longest = 0
        for count, text in enumerate(self.queue):
            longest = max(longest, text.tokens)
            tokens = (count + 1) * longest
            if count and (count >= self.device.batch_items or tokens > self.device.batch_tokens):
                return count
        return len(self.queue)

    @property
    def full(self) -> bool:
        return self.fitting() < len(self.queue) or len(self.queue) >= self.device.batch_items

    def take(self, count: int) -> Job:
        texts = [self.queue.popleft() for _ in range(count)]
        return Job(texts, count * max(text.tokens for text in texts))


class FixedWindow(Fifo):
    """FIFO that waits until a batch is full or its first text has waited 5 ms."""

    def start(self, now: float) -> Job | None:
        if not self.queue or not (self.full or now >= self._due()):
            return None
        return self.take(self.fitting())

    def wake_at(self, now: float) -> float | None:
        return self._due() if self.queue else None

    def _due(self) -> float:
        return self.queue[0].arrived_at + WINDOW_S


class ShrinkToHead(Fifo):
    """FIFO that drops what is late and makes a batch so small that its first text is in time."""

    def start(self, now: float) -> Job | None:
        alone = self.device.seconds
        while self.queue and now + alone(self.queue[0].tokens) > self.queue[0].expires_at:
            self.queue.popleft()
        if not self.queue:
            return None
        count = self.fitting()
        while count > 1:
            longest = max(self.queue[index].tokens for index in range(count))
            if now + alone(count * longest) <= self.queue[0].expires_at:
                break
            count -= 1
        return self.take(count)


class Deferred(Fifo):
    """Deferred batching, as in Symphony (Chen et al., 2023).

    A batch waits until it is full or its first text must leave to be in time; late texts are
    dropped.
    """

    def start(self, now: float) -> Job | None:
        while self.queue and now + self._alone(self.queue[0]) > self.queue[0].expires_at:
            self.queue.popleft()
        if not self.queue or not (self.full or now >= self._leaves_at()):
            return None
        return self.take(self.fitting())

    def wake_at(self, now: float) -> float | None:
        return self._leaves_at() if self.queue else None

    def _alone(self, text: Text) -> float:
        return self.device.seconds(text.tokens)

    def _leaves_at(self) -> float:
        count = self.fitting()
        longest = max(self.queue[index].tokens for index in range(count))
        # Two deviations of the device's noise are kept in reserve.
        reserve = 1 + 2 * self.device.noise
        return self.queue[0].expires_at - reserve * self.device.seconds(count * longest)


class Cork(Fifo):
    """BentoML's CORK dispatcher, by its source (`marshal/dispatcher.py`, 1.2).

    With n waiting, the oldest for w0 and the newest for wn seconds, and `a * n + b` fitted to the
    last 50 batches: the oldest is dropped while `w0 + a * n + b` reaches the longest latency
    allowed. A free device is held back while the batch is not full and
    `n * (wn + tick + a) <= 0.95 * (the mean wait so far)`. The newest are taken first.
    """

    tick_s = 0.001

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self._seen: deque[tuple[int, float, float]] = deque(maxlen=50)
        self._per_item, self._fixed, self._wait = device.seconds(64), device.overhead_s, 0.01
        self._ended = 0
        self._waits: dict[int, float] = {}

    def start(self, now: float) -> Job | None:
        queue = self.queue
        while len(queue) > 1 and (
            now - queue[0].arrived_at + self._per_item * len(queue) + self._fixed
            >= queue[0].expires_at - queue[0].arrived_at
        ):
            queue.popleft()
        if not queue:
            return None
        newest = now - queue[-1].arrived_at
        worth = len(queue) * (newest + self.tick_s + self._per_item)
        if len(queue) < self.device.batch_items and worth <= 0.95 * self._wait:
            return None
        texts: list[Text] = []
        while queue and len(texts) < self.device.batch_items:
            tokens = max(text.tokens for text in [*texts, queue[-1]]) * (len(texts) + 1)
            if texts and tokens > self.device.batch_tokens:
                break
            texts.append(queue.pop())
        job = Job(texts, len(texts) * max(text.tokens for text in texts))
        self._waits[id(job)] = now - min(text.arrived_at for text in texts)
        return job

    def finished(self, job: Job, seconds: float, now: float) -> None:
        self._seen.append((len(job.texts), seconds, self._waits.pop(id(job))))
        self._ended += 1
        if self._ended % 10 == 0 and len({count for count, _, _ in self._seen}) > 1:
            counts, took, waits = np.array(self._seen).T
            slope, intercept = np.polyfit(counts, took, 1)
            self._per_item, self._fixed = max(1e-6, slope), max(0.0, intercept)
            self._wait = float(waits.mean())

    def wake_at(self, now: float) -> float | None:
        return now + self.tick_s if self.queue else None


POLICIES: dict[str, Callable[[Device], Policy]] = {
    "scheduler": Scheduled,
    "FIFO": Fifo,
    "fixed window": FixedWindow,
    "CORK": Cork,
    "deferred": Deferred,
    "shrink to the head": ShrinkToHead,
}
