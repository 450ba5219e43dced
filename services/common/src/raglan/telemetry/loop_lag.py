"""Event loop lag: the process's own share of every latency."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from raglan.background import keep_running

EVERY_S: Final = 0.1
"""Between two samples. An idle process is woken by this and little else."""


class LoopLag:
    """Reports the lag of the running loop between `start` and `stop`.

    Args:
        tell: given seconds, every `every_s`.
    """

    def __init__(self, tell: Callable[[float], None], *, every_s: float = EVERY_S) -> None:
        self._tell = tell
        self._every_s = every_s
        self._sampling: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, inside the loop."""
        self._sampling = asyncio.create_task(keep_running("loop lag", self._sample))

    async def stop(self) -> None:
        """End."""
        if self._sampling is not None:
            self._sampling.cancel()
            await asyncio.wait((self._sampling,))

    async def _sample(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + self._every_s
            await asyncio.sleep(self._every_s)
            self._tell(max(0.0, loop.time() - due))
