"""A thread pool that refuses work instead of queueing without end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, ParamSpec, TypeVar
from weakref import WeakValueDictionary

from raglan.errors import Overloaded

P = ParamSpec("P")
T = TypeVar("T")

_RETRY_AFTER_S: Final = 0.5
_WEIGHT: Final = 0.05
"""Of the newest call in the average."""


class BoundedPool:
    """Thread pool with at most `max_waiting` calls in its queue.

    Args:
        name: of the threads.
        threads: calls that run at once; in `run_for`, those of one lane.
        max_waiting: calls in the queue.
        spare: further threads, so that one lane whose calls hang leaves some to the others.
    """

    def __init__(self, name: str, *, threads: int, max_waiting: int, spare: int = 0) -> None:
        self._name = name
        self._limit = threads + spare + max_waiting
        self._width = threads
        self._lanes: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        """Those in use."""
        self._mean_s = 0.0
        """Decaying mean duration of a call."""
        self._pending = 0
        self._threads = ThreadPoolExecutor(threads + spare, thread_name_prefix=name)

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work(...)` in a thread. Work that has begun ends even if the caller is cancelled.

        Raises:
            Overloaded: too many calls wait already.
        """
        self._check_room()
        return await self._run(lambda: None, work, *args, **kwargs)

    async def run_for(
        self, lane: str, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """As `run`, behind the other calls of `lane`, which share its threads."""
        self._check_room()
        return await self.run_always_for(lane, work, *args, **kwargs)

    async def run_always_for(
        self, lane: str, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """As `run_for`, without the limit: for clean-up, which must not be refused."""
        places = self._lanes.get(lane)
        if places is None:
            places = self._lanes[lane] = asyncio.Semaphore(self._width)
        self._pending += 1
        try:
            await places.acquire()
        finally:
            self._pending -= 1
        return await self._run(places.release, work, *args, **kwargs)

    def _check_room(self) -> None:
        if self._pending >= self._limit:
            raise Overloaded(
                f"{self._pending} calls wait for the index's {self._name} threads, the limit.",
                retry_after_s=_RETRY_AFTER_S,
            )

    async def _run(
        self, leave: Callable[[], None], work: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run `work(...)`; `leave` is called once its thread is free again."""
        self._pending += 1

        def timed() -> tuple[T, float]:
            begun = time.monotonic()
            result = work(*args, **kwargs)
            return result, time.monotonic() - begun

        loop = asyncio.get_running_loop()
        finished = loop.create_future()

        def settle(done: Future[tuple[T, float]]) -> None:
            # Counted until the thread is free again, whether or not the caller still waits.
            self._leave(done)
            leave()
            if not finished.done():
                finished.set_result(None)

        future = self._threads.submit(timed)
        # One wake-up of the loop a call; `asyncio.wrap_future` would add another.
        future.add_done_callback(lambda done: loop.call_soon_threadsafe(settle, done))
        try:
            await finished
        except asyncio.CancelledError:
            future.cancel()
            raise
        if future.cancelled():
            raise asyncio.CancelledError  # by `close`
        return future.result()[0]

    @property
    def backlog_s(self) -> float:
        """Estimated seconds until the queue is empty."""
        return max(0, self._pending - self._width) * self._mean_s / self._width

    def close(self) -> None:
        """Wait for running work; drop the queue."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _leave(self, done: Future[tuple[Any, float]]) -> None:
        self._pending -= 1
        if not done.cancelled() and not done.exception():
            self._mean_s += _WEIGHT * (done.result()[1] - self._mean_s)
