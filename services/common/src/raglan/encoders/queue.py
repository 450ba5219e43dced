"""The queue before the devices: a thread a stream, queries before bulk, work bounded.

`Lanes` decides what runs next and knows no clock, thread or loop; `BatchQueue` feeds it from an
event loop and runs what it hands out.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final, Generic, TypeVar

import structlog

from raglan.deadline import Deadline
from raglan.errors import DeadlineExceeded, Internal, Overloaded, RaglanError, Unavailable

log: Final = structlog.get_logger()

Item = TypeVar("Item")
Result = TypeVar("Result")

_MIN_RETRY_S: Final = 0.05
_JOIN_S: Final = 30.0


class Lane(IntEnum):
    """Who is served first."""

    INTERACTIVE = 0
    BULK = 1


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """How large a device batch may be."""

    tokens: int
    """Padded tokens: items times the longest of them. A longer single item runs alone."""

    items: int


@dataclass(frozen=True, slots=True)
class Timing:
    """Where one request's time went."""

    queue_ns: int
    """From submission until its first batch started."""

    compute_ns: int
    """From then until its last batch ended."""

    batch_size: int
    """Items of the largest batch it was in."""

    batch_tokens: int
    """Padded tokens of that batch."""


class _Request:
    """One caller's items on their way; touched under the queue's lock, finished on its loop."""

    def __init__(self, size: int, deadline: Deadline) -> None:
        self.results: list[Any] = [None] * size
        self.deadline = deadline
        self.left = size
        self.loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = self.loop.create_future()
        self.submitted_ns = time.monotonic_ns()
        self.started_ns = self.ended_ns = 0
        self.batch_size = self.batch_tokens = 0

    def timing(self) -> Timing:
        return Timing(
            queue_ns=self.started_ns - self.submitted_ns,
            compute_ns=self.ended_ns - self.started_ns,
            batch_size=self.batch_size,
            batch_tokens=self.batch_tokens,
        )

    def settle(self, error: RaglanError | None = None) -> None:
        """Wake the caller, from any thread."""
        try:
            self.loop.call_soon_threadsafe(self._settle, error)
        except RuntimeError:
            log.debug("the caller's event loop is gone")

    def _settle(self, error: RaglanError | None) -> None:
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)


@dataclass(frozen=True, slots=True, eq=False)
class Part(Generic[Item]):
    """Items of one request that run together."""

    owner: Any
    """Whose they are; `discard` takes them out by it."""

    expires_at: float
    """Not worth starting from then on; a reading of the monotonic clock, in seconds."""

    items: Sequence[Item]
    positions: Sequence[int]
    lengths: Sequence[int]

    @property
    def longest(self) -> int:
        return max(self.lengths)


@dataclass(slots=True)
class Lanes(Generic[Item]):
    """Waiting parts, and the rule by which they leave."""

    limits: BatchLimits
    _waiting: dict[Lane, deque[Part[Item]]] = field(
        default_factory=lambda: {lane: deque() for lane in Lane}
    )

    def __len__(self) -> int:
        """Items waiting."""
        return sum(len(part.items) for lane in self._waiting.values() for part in lane)

    def add(self, parts: Sequence[Part[Item]], lane: Lane) -> None:
        """Put `parts` at the end of `lane`."""
        self._waiting[lane].extend(parts)

    def discard(self, owner: object) -> None:
        """Take out what belongs to `owner`."""
        for lane, parts in self._waiting.items():
            self._waiting[lane] = deque(part for part in parts if part.owner is not owner)

    def take(self, now: float) -> tuple[list[Part[Item]], list[Part[Item]]]:
        """The next batch, and the parts found too late on the way. Both empty: nothing waits.

        Interactive before bulk, first come first served within a lane; parts that follow join as
        long as the batch keeps within its limits and at most a quarter of it is padding.
        """
        batch: list[Part[Item]] = []
        late: list[Part[Item]] = []
        for lane in sorted(self._waiting):
            waiting = self._waiting[lane]
            while waiting:
                if waiting[0].expires_at <= now:
                    late.append(waiting.popleft())
                elif not batch or self._joins(batch, waiting[0]):
                    batch.append(waiting.popleft())
                else:
                    break
            if batch:
                break
        return batch, late

    def _joins(self, batch: Sequence[Part[Item]], part: Part[Item]) -> bool:
        together = [*batch, part]
        count = sum(len(each.items) for each in together)
        padded = count * max(each.longest for each in together)
        real = sum(sum(each.lengths) for each in together)
        return (
            padded <= self.limits.tokens and count <= self.limits.items and 3 * padded <= 4 * real
        )


def split(lengths: Sequence[int], limits: BatchLimits) -> list[list[int]]:
    """Positions of a request's items in batches of like length, longest first.

    Sorted by length, because padding is what batching costs; longest first, because then the
    streams that share the request end at about the same time.
    """
    batches: list[list[int]] = []
    for position in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if batches:
            last = batches[-1]
            padded = (len(last) + 1) * lengths[last[0]]
            if len(last) < limits.items and padded <= limits.tokens:
                last.append(position)
                continue
        batches.append([position])
    return batches


class BatchQueue(Generic[Item, Result]):
    """Runs items on device threads, in batches. Belongs to one event loop; `close` it."""

    def __init__(
        self,
        streams: Sequence[Callable[[Sequence[Item]], Iterable[Result]]],
        *,
        limits: BatchLimits,
        max_waiting: int,
        name: str,
    ) -> None:
        """Start one thread for each of `streams`.

        Args:
            streams: each runs one batch at a time: as many results as items, in their order.
            max_waiting: items admitted and not yet answered, over all requests.
            name: what the threads are called.
        """
        self.limits = limits
        self.max_waiting = max_waiting
        self._lanes: Lanes[Item] = Lanes(limits)
        self._changed = threading.Condition()
        self._closed = False
        self._admitted = 0
        self._seconds_per_item = 0.0
        self._threads = [
            threading.Thread(target=self._work, args=(run,), name=f"{name}-{number}", daemon=True)
            for number, run in enumerate(streams)
        ]
        for thread in self._threads:
            thread.start()

    @contextmanager
    def admitted(self, count: int) -> Iterator[None]:
        """Hold room for `count` items: all of a request or none of it.

        Raises:
            Overloaded: no room; `retry_after_s` is when the work ahead will have been done.
        """
        if self._admitted + count > self.max_waiting:
            ahead_s = self._admitted * self._seconds_per_item / len(self._threads)
            raise Overloaded(
                f"{self._admitted} texts wait already and {count} more would pass the limit of "
                f"{self.max_waiting}.",
                retry_after_s=max(_MIN_RETRY_S, ahead_s),
            )
        self._admitted += count
        try:
            yield
        finally:
            self._admitted -= count

    async def run(
        self, items: Sequence[Item], lengths: Sequence[int], *, deadline: Deadline, lane: Lane
    ) -> tuple[list[Result], Timing]:
        """Results in the order of `items`. Hold `admitted(len(items))` around it.

        Args:
            lengths: tokens of each item.

        Raises:
            DeadlineExceeded: the time ran out; what had not started never will.
            Internal: a batch of this request failed.
            Unavailable: the queue is closing.
        """
        request = _Request(len(items), deadline)
        parts = [
            Part(
                owner=request,
                expires_at=deadline.at,
                items=[items[i] for i in positions],
                positions=positions,
                lengths=[lengths[i] for i in positions],
            )
            for positions in split(lengths, self.limits)
        ]
        with self._changed:
            if self._closed:
                raise Unavailable("The service is stopping.")
            self._lanes.add(parts, lane)
            self._changed.notify(len(parts))
        try:
            async with asyncio.timeout(deadline.remaining_s()):
                await request.done
        except TimeoutError:
            raise _too_late() from None
        finally:
            if request.left:
                with self._changed:
                    self._lanes.discard(request)
        return request.results, request.timing()

    async def close(self) -> None:
        """Fail what waits, let the running batches end, stop the threads."""
        with self._changed:
            self._closed = True
            parts: list[Part[Item]] = []
            while (taken := self._lanes.take(0.0)[0]) != []:
                parts += taken
            self._changed.notify_all()
        for part in parts:
            part.owner.settle(Unavailable("The service is stopping."))
        await asyncio.to_thread(self._join)

    def _join(self) -> None:
        for thread in self._threads:
            thread.join(_JOIN_S)

    def _work(self, run: Callable[[Sequence[Item]], Iterable[Result]]) -> None:
        while (batch := self._next()) is not None:
            self._run_batch(run, batch)

    def _next(self) -> list[Part[Item]] | None:
        """Wait for a batch; None once closed."""
        while True:
            with self._changed:
                batch, late = self._lanes.take(time.monotonic())
                while not (batch or late or self._closed):
                    self._changed.wait()
                    batch, late = self._lanes.take(time.monotonic())
                for part in late:
                    self._lanes.discard(part.owner)
            for part in late:
                part.owner.settle(_too_late())
            if batch:
                return batch
            if self._closed:
                return None

    def _run_batch(
        self, run: Callable[[Sequence[Item]], Iterable[Result]], batch: list[Part[Item]]
    ) -> None:
        items = [item for part in batch for item in part.items]
        started_ns = time.monotonic_ns()
        try:
            results = list(run(items))
            if len(results) != len(items):
                raise ValueError(f"{len(results)} results for {len(items)} items")
        except Exception as error:  # whatever it is, only this batch's callers pay
            log.exception("a batch failed", items=len(items))
            self._fail(batch, error)
            return
        ended_ns = time.monotonic_ns()
        padded = len(items) * max(part.longest for part in batch)
        per_item = (ended_ns - started_ns) / 1e9 / len(items)
        finished: list[_Request] = []
        with self._changed:
            self._seconds_per_item += 0.1 * (per_item - self._seconds_per_item)
            offset = 0
            for part in batch:
                request: _Request = part.owner
                for position in part.positions:
                    request.results[position] = results[offset]
                    offset += 1
                request.left -= len(part.items)
                request.started_ns = min(request.started_ns or started_ns, started_ns)
                request.ended_ns = ended_ns
                request.batch_size = max(request.batch_size, len(items))
                request.batch_tokens = max(request.batch_tokens, padded)
                if request.left == 0:
                    finished.append(request)
        for request in finished:
            request.settle()

    def _fail(self, batch: list[Part[Item]], error: Exception) -> None:
        shown = (
            error if isinstance(error, RaglanError) else Internal("The model failed on a batch.")
        )
        with self._changed:
            for part in batch:
                self._lanes.discard(part.owner)
        for part in batch:
            part.owner.settle(shown)


def _too_late() -> DeadlineExceeded:
    return DeadlineExceeded("The deadline passed before the model got to it.")
