"""Runs what the scheduler decides: callers on an event loop, a thread for each stream of a device.

The loop owns the scheduler; a stream's thread only takes the next batch from its pool's mailbox,
runs it and reports back. So there is no lock, and a batch can be taken back as long as it lies in
the mailbox.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Generic, Protocol, TypeVar

import structlog
from opentelemetry.trace import SpanContext

from raglan.deadline import Deadline
from raglan.errors import DeadlineExceeded, Internal, Overloaded, RaglanError, Unavailable
from raglan.health import Health
from raglan.scheduling import batch_run, batch_span
from raglan.scheduling.answer import Answer, Timing
from raglan.scheduling.batch_run import Run, Stream
from raglan.scheduling.latency import LatencyModel
from raglan.scheduling.scheduler import Scheduler
from raglan.scheduling.work import Batch, DeviceLost, FlushReason, Item, Lane, Limits
from raglan.telemetry import tracing

log: Final = structlog.get_logger()

Input = TypeVar("Input")
Result = TypeVar("Result")
_JOIN_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Pool(Generic[Input, Result]):
    """Streams that serve the same lanes.

    A GPU is one pool of one stream for both lanes. A CPU has a pool for each: there the kernel can
    put a bulk batch aside in the middle of it when a query comes, which no queue can do. Its
    threads are not niced themselves: see `niceness`.
    """

    streams: Sequence[Stream[Input, Result]]
    lanes: frozenset[Lane] = frozenset(Lane)


class Observer(Protocol):
    """Observer of the dispatcher; must return at once."""

    def ran(self, batch: Batch, seconds: float, queued_s: Sequence[float]) -> None:
        """A batch ended; `queued_s` is how long each of its items had waited."""

    def dropped(self, reason: str, items: int) -> None:
        """Items left without a result: refused, late, cancelled, failed."""


class _Silent:
    def ran(self, batch: Batch, seconds: float, queued_s: Sequence[float]) -> None:
        pass

    def dropped(self, reason: str, items: int) -> None:
        pass


@dataclass(slots=True, eq=False)
class _Ticket(Generic[Input, Result]):
    """The payload of an item: what to run, and who waits for it."""

    input: Input
    future: asyncio.Future[Answer[Result]]
    submitted_ns: int
    asked_by: SpanContext | None
    """The span of the request."""


@dataclass(slots=True, eq=False)
class _PoolState:
    """A pool at work: its scheduler, and the mailbox its threads take batches from."""

    scheduler: Scheduler
    mailbox: queue.SimpleQueue[Batch | None]
    pool: Pool[Any, Any]


class Dispatcher(Generic[Input, Result]):
    """Runs inputs on streams, in batches. Belongs to the event loop it was made on; `close` it."""

    def __init__(
        self,
        pools: Sequence[Pool[Input, Result]],
        *,
        limits: Limits,
        latency: Callable[[], LatencyModel],
        stalled_after_s: float,
        name: str,
        observer: Observer | None = None,
    ) -> None:
        """Start one thread for each stream.

        Args:
            pools: every lane belongs to exactly one.
            limits: of each pool; `streams` is taken from the pool.
            latency: creates a pool's latency model, with its estimate before any measurement.
            stalled_after_s: work handed out and nothing finished for so long is STALLED.
            name: what the threads are called.
            observer: receives metrics of each batch.
        """
        self.limits = limits
        self._loop = asyncio.get_running_loop()
        self._stalled_after_s = stalled_after_s
        self._observer = observer or _Silent()
        self._refusal: RaglanError | None = None
        self._dead = False
        self._pools = [
            _PoolState(Scheduler(_of_pool(limits, pool), latency()), queue.SimpleQueue(), pool)
            for pool in pools
        ]
        self._by_lane = {lane: state for state in self._pools for lane in state.pool.lanes}
        self._threads = [
            threading.Thread(
                target=self._work,
                args=(state, stream),
                name=f"{name}-{'-'.join(lane.name.lower() for lane in state.pool.lanes)}-{index}",
                daemon=True,
            )
            for state in self._pools
            for index, stream in enumerate(state.pool.streams)
        ]
        for thread in self._threads:
            thread.start()

    def submit(
        self, inputs: Sequence[Input], tokens: Sequence[int], *, deadline: Deadline, lane: Lane
    ) -> list[asyncio.Future[Answer[Result]]]:
        """Let `inputs` wait, all of them or none; a future for each, in their order.

        A future fails with DeadlineExceeded when its item would be too late, with Internal when its
        batch failed, with Unavailable when the service stops. Cancel it to leave the queue.

        Args:
            inputs: in the order of the result.
            tokens: of each input.
            deadline: limit of the call.
            lane: priority lane.

        Raises:
            Overloaded: no room, or the work ahead would outlast the deadline.
            Unavailable: the service is stopping, or its device is lost.
        """
        if self._refusal is not None:
            raise self._refusal
        state = self._by_lane[lane]
        now, now_ns = time.monotonic(), time.monotonic_ns()
        asked_by = tracing.context()
        futures: list[asyncio.Future[Answer[Result]]] = []
        items = []
        for each, count in zip(inputs, tokens, strict=True):
            future: asyncio.Future[Answer[Result]] = self._loop.create_future()
            futures.append(future)
            items.append(Item(count, lane, deadline.at, _Ticket(each, future, now_ns, asked_by)))
        try:
            state.scheduler.submit(items, now)
        except Overloaded:
            self._observer.dropped("refused", len(items))
            raise
        for future, item in zip(futures, items, strict=True):
            future.add_done_callback(partial(self._left, state, item))
        self._take_back(state, lane)
        self._pump(state)
        return futures

    def check(self, count: int, *, deadline: Deadline, lane: Lane) -> None:
        """Refuse now what `submit` would refuse, before anything is spent on `count` inputs.

        Raises what `submit` raises.
        """
        if self._refusal is not None:
            raise self._refusal
        try:
            scheduler = self._by_lane[lane].scheduler
            scheduler.check(count, 0, lane, deadline.at, time.monotonic())
        except Overloaded:
            self._observer.dropped("refused", count)
            raise

    def fitting(self, tokens: Sequence[int], *, deadline: Deadline, lane: Lane) -> int:
        """Return the number of inputs, from the first, that fit before `deadline`.

        At least one while the device is idle.

        Args:
            tokens: of each input.
            deadline: limit of the call.
            lane: priority lane.
        """
        scheduler = self._by_lane[lane].scheduler
        return scheduler.fitting(tokens, lane, deadline.at, time.monotonic())

    async def run(
        self, inputs: Sequence[Input], tokens: Sequence[int], *, deadline: Deadline, lane: Lane
    ) -> tuple[list[Result], Timing]:
        """Submit `inputs` and wait for all results; the first failure is that of the call.

        Raises what `submit` raises and what its futures fail with.
        """
        futures = self.submit(inputs, tokens, deadline=deadline, lane=lane)
        try:
            async with asyncio.timeout(deadline.remaining_s()):
                answers = await asyncio.gather(*futures)
        except TimeoutError:
            raise DeadlineExceeded("The deadline passed before the model was done.") from None
        finally:
            for future in futures:
                future.cancel()
        return [answer.result for answer in answers], Timing.over(answers)

    def backlog_s(self) -> float:
        """Seconds until all that is here would be done, of the pool that needs longest."""
        now = time.monotonic()
        return max(state.scheduler.backlog_s(now) for state in self._pools)

    def waiting(self, lane: Lane) -> int:
        """Items that wait in `lane`."""
        return self._by_lane[lane].scheduler.waiting_in(lane)

    def health(self) -> Health:
        """By forward progress: idle is healthy, work without results is not."""
        if self._dead:
            return Health.DEAD
        now = time.monotonic()
        stalled_s = max(state.scheduler.stalled_s(now) for state in self._pools)
        return Health.STALLED if stalled_s > self._stalled_after_s else Health.SERVING

    async def close(self) -> None:
        """Fail what waits, let the running batches end, stop the threads."""
        self._refuse(Unavailable("The service is stopping."))
        for state in self._pools:
            for _ in state.pool.streams:
                state.mailbox.put(None)
        await asyncio.to_thread(self._join)

    # --- On the loop ------------------------------------------------------------------------------

    def _take_back(self, state: _PoolState, lane: Lane) -> None:
        """Take back what no stream has begun, if what just came belongs before or into it."""
        ahead = state.scheduler.ahead()
        if ahead is None or not (lane < ahead.lane or ahead.closed is FlushReason.IDLE):
            return
        with contextlib.suppress(queue.Empty):
            while (batch := state.mailbox.get_nowait()) is not None:
                state.scheduler.retract(batch)
                for item in batch.items:
                    if item.payload.future.done():
                        state.scheduler.cancel(item)

    def _pump(self, state: _PoolState) -> None:
        now = time.monotonic()
        while batch := state.scheduler.next_batch(now):
            state.mailbox.put(batch)
        self._drop(state.scheduler.pop_late())

    def _drop(self, late: Sequence[Item]) -> None:
        if late:
            self._observer.dropped("late", len(late))
        for item in late:
            self._fail(item, DeadlineExceeded("The deadline would pass before the model is done."))

    def _left(self, state: _PoolState, item: Item, done: asyncio.Future[Answer[Result]]) -> None:
        # It may have been settled from outside: the same text was computed elsewhere.
        state.scheduler.cancel(item)
        if done.cancelled():
            self._observer.dropped("cancelled", 1)

    def _ended(self, state: _PoolState, batch: Batch, run: Run[Result]) -> None:
        now = time.monotonic()
        if run.too_large_tokens:
            state.scheduler.shrink(run.too_large_tokens)
            log.warning("the device has no memory for a batch", tokens=run.too_large_tokens)
        if run.is_whole and run.items:
            state.scheduler.finished(batch, run.seconds, now, ran=run.items)
        else:
            state.scheduler.failed(batch, now)
        self._drop(run.late)
        traced = batch_span.record(
            batch,
            [item.payload.asked_by for item in run.items],
            (run.started_ns, run.ended_ns),
            run.error,
        )
        self._deliver(batch, run, traced)
        self._pump(state)

    def _deliver(self, batch: Batch, run: Run[Result], traced: SpanContext | None) -> None:
        queued_s = []
        failed = 0
        for item, result in zip(run.items, run.results, strict=True):
            ticket: _Ticket[Input, Result] = item.payload
            queue_ns = run.started_ns - ticket.submitted_ns
            if isinstance(result, Exception):
                failed += 1
                known = isinstance(result, RaglanError)
                self._fail(item, result if known else Internal("The model failed on a text."))
                continue
            queued_s.append(queue_ns / 1e9)
            if not ticket.future.done():
                ticket.future.set_result(
                    Answer(
                        result,
                        queue_ns=queue_ns,
                        compute_ns=run.ended_ns - run.started_ns,
                        batch_size=len(run.items),
                        batch_tokens=batch.padded_tokens,
                        batch=traced,
                    )
                )
        if failed:
            self._observer.dropped("failed", failed)
        if queued_s:
            self._observer.ran(batch, run.seconds, queued_s)

    def _died(self, state: _PoolState, error: BaseException) -> None:
        log.error("a device thread ended", error=type(error).__name__)
        self._dead = True
        lost = Unavailable("The device is lost; the service is ending.")
        self._refuse(lost)
        for batch in state.scheduler.out:
            for item in batch.items:
                self._fail(item, lost)

    def _refuse(self, error: RaglanError) -> None:
        """Take nothing more; fail what waits."""
        self._refusal = error
        for state in self._pools:
            for item in state.scheduler.clear():
                self._fail(item, error)

    @staticmethod
    def _fail(item: Item, error: Exception) -> None:
        future = item.payload.future
        if not future.done():
            future.set_exception(error)

    # --- On a stream's thread ---------------------------------------------------------------------

    def _work(self, state: _PoolState, stream: Stream[Input, Result]) -> None:
        try:
            while (batch := state.mailbox.get()) is not None:
                self._tell(self._ended, state, batch, batch_run.run(stream, batch))
        except BaseException as error:
            self._tell(self._died, state, error)
            if not isinstance(error, DeviceLost):
                raise

    def _tell(self, event: Callable[..., None], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(event, *arguments)
        except RuntimeError:
            log.debug("the event loop is gone")

    def _join(self) -> None:
        ends_at = time.monotonic() + _JOIN_S
        for thread in self._threads:
            thread.join(max(0.0, ends_at - time.monotonic()))


def _of_pool(limits: Limits, pool: Pool[Any, Any]) -> Limits:
    return replace(limits, streams=len(pool.streams))
