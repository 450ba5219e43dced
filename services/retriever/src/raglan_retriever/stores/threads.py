"""A thread pool that refuses work instead of queueing without end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, ParamSpec, TypeVar

from raglan.errors import Overloaded

P = ParamSpec("P")
T = TypeVar("T")

_RETRY_AFTER_S: Final = 0.5


class BoundedPool:
    """`threads` threads, and at most `max_waiting` calls that wait for one."""

    def __init__(self, name: str, *, threads: int, max_waiting: int) -> None:
        self._name = name
        self._limit = threads + max_waiting
        self._pending = 0
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=name)

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`work(...)` in a thread. If the caller leaves, work that has begun still ends.

        Raises:
            Overloaded: too many calls wait already.
        """
        if self._pending >= self._limit:
            raise Overloaded(
                f"{self._pending} calls wait for the index's {self._name} threads, the limit.",
                retry_after_s=_RETRY_AFTER_S,
            )
        self._pending += 1
        future = self._threads.submit(work, *args, **kwargs)
        # Counted until the thread is free again, whether or not the caller still waits.
        loop = asyncio.get_running_loop()
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._leave))
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Wait for work that has begun; drop what has not."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _leave(self) -> None:
        self._pending -= 1
