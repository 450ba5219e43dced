"""Maintenance of collections once writes pause: one collection at a time, outside of calls."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import structlog
from raglan.background import keep_running
from raglan.errors import NotFound

log: Final = structlog.get_logger()

_MAX_PAUSES: Final = 60
"""Longest wait for a pause of writes, in `quiet_s`."""

_MAX_RETRY_S: Final = 3_600.0


class Upkeep:
    """Calls `tidy(name)` once writes have paused, and again after a delay where it fails."""

    def __init__(
        self, tidy: Callable[[str], Awaitable[None]], *, quiet_s: float, retry_s: float = 30.0
    ) -> None:
        """Prepare the work; `start` begins it.

        Args:
            tidy: Maintains one collection.
            quiet_s: Length of the pause of writes.
            retry_s: Delay after the first failure; each further one doubles it.
        """
        self._tidy = tidy
        self._retry_s = retry_s
        self._quiet_s = quiet_s
        self._names: dict[str, None] = {}
        self._scheduled = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._tidying: tuple[str, asyncio.Task[None]] | None = None
        self._later: dict[str, asyncio.TimerHandle] = {}
        self._failures: dict[str, int] = {}
        """Consecutive failures of tidying a collection."""

    def start(self) -> None:
        """Begin to work on what is scheduled."""
        self._task = asyncio.create_task(keep_running("upkeep", self._run))

    async def stop(self) -> None:
        """Stop, cancelling a running `tidy`."""
        for name in list(self._later):
            self._cancel_later(name)
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    def schedule(self, name: str, *, after_s: float = 0) -> None:
        """Schedule `tidy` after a change of the collection, or `after_s` from now."""
        if after_s:
            self._cancel_later(name)
            loop = asyncio.get_running_loop()
            self._later[name] = loop.call_later(after_s, self.schedule, name)
            return
        self._names[name] = None
        self._scheduled.set()

    async def cancel(self, name: str) -> None:
        """Cancel the collection's `tidy`, running or scheduled, and wait for its end."""
        self._names.pop(name, None)
        self._failures.pop(name, None)
        self._cancel_later(name)
        if self._tidying is not None and self._tidying[0] == name:
            task = self._tidying[1]
            task.cancel()
            await asyncio.wait([task])

    async def _run(self) -> None:
        while True:
            await self._scheduled.wait()
            await self._pause()
            while self._names:
                name = next(iter(self._names))
                del self._names[name]
                await self._tidy_one(name)

    async def _pause(self) -> None:
        """Wait until writes have paused for `quiet_s`, with a limit."""
        loop = asyncio.get_running_loop()
        give_up = loop.time() + _MAX_PAUSES * self._quiet_s
        self._scheduled.clear()
        while loop.time() < give_up:
            self._scheduled.clear()
            try:
                async with asyncio.timeout(self._quiet_s):
                    await self._scheduled.wait()
            except TimeoutError:
                return

    async def _tidy_one(self, name: str) -> None:
        task = asyncio.ensure_future(self._tidy(name))
        self._tidying = (name, task)
        try:
            await asyncio.wait([task])
            error = None if task.cancelled() else task.exception()
            if error is None or isinstance(error, NotFound):
                self._failures.pop(name, None)
            else:
                self._retry(name, error)
        finally:
            task.cancel()
            await asyncio.wait([task])
            self._tidying = None

    def _retry(self, name: str, error: BaseException) -> None:
        failures = self._failures[name] = self._failures.get(name, 0) + 1
        pause_s = min(self._retry_s * 2 ** (failures - 1), _MAX_RETRY_S)
        log.error("upkeep failed", collection=name, reason=str(error), retry_in_s=pause_s)
        self.schedule(name, after_s=pause_s)

    def _cancel_later(self, name: str) -> None:
        if (timer := self._later.pop(name, None)) is not None:
            timer.cancel()
