"""Work that a collection needs once its writers pause: one collection at a time, off every call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import structlog
from raglan.background import keep_running
from raglan.errors import NotFound

log: Final = structlog.get_logger()

_PATIENCE: Final = 60
"""Writers who never pause are overridden after this many times `quiet_s`."""

_MAX_RETRY_S: Final = 3_600.0


class Upkeep:
    """Calls `tidy(name)` some time after `wrote(name)`, again after a pause where it fails."""

    def __init__(
        self, tidy: Callable[[str], Awaitable[None]], *, quiet_s: float, retry_s: float = 30.0
    ) -> None:
        """Args:
        tidy: one collection; what fails is tried again after `retry_s`, then twice that, and on.
        quiet_s: how long writers must have paused.
        """
        self._tidy = tidy
        self._retry_s = retry_s
        self._quiet_s = quiet_s
        self._names: dict[str, None] = {}
        self._wrote = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._tidying: tuple[str, asyncio.Task[None]] | None = None
        self._later: dict[str, asyncio.TimerHandle] = {}
        self._failures: dict[str, int] = {}
        """Consecutive failures of tidying a collection."""

    def start(self) -> None:
        self._task = asyncio.create_task(keep_running("upkeep", self._run))

    async def stop(self) -> None:
        """End it. What was being tidied is given up."""
        for name in list(self._later):
            self._cancel_later(name)
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    def wrote(self, name: str, *, after_s: float = 0) -> None:
        """The collection has changed, or is to be looked at again `after_s` from now."""
        if after_s:
            self._cancel_later(name)
            loop = asyncio.get_running_loop()
            self._later[name] = loop.call_later(after_s, self.wrote, name)
            return
        self._names[name] = None
        self._wrote.set()

    async def leave(self, name: str) -> None:
        """Return once the collection is not being tidied, nor will be."""
        self._names.pop(name, None)
        self._failures.pop(name, None)
        self._cancel_later(name)
        if self._tidying is not None and self._tidying[0] == name:
            task = self._tidying[1]
            task.cancel()
            await asyncio.wait([task])

    async def _run(self) -> None:
        while True:
            await self._wrote.wait()
            await self._pause()
            while self._names:
                name = next(iter(self._names))
                del self._names[name]
                await self._tidy_one(name)

    async def _pause(self) -> None:
        """Wait until no one has written for `quiet_s`, but not for ever."""
        loop = asyncio.get_running_loop()
        give_up = loop.time() + _PATIENCE * self._quiet_s
        self._wrote.clear()
        while loop.time() < give_up:
            self._wrote.clear()
            try:
                async with asyncio.timeout(self._quiet_s):
                    await self._wrote.wait()
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
        self.wrote(name, after_s=pause_s)

    def _cancel_later(self, name: str) -> None:
        if (timer := self._later.pop(name, None)) is not None:
            timer.cancel()
