"""Event loop lag: the process's own share of every latency."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

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
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin, inside the loop."""
        loop = asyncio.get_running_loop()
        due = loop.time() + self._every_s

        def sample() -> None:
            # First, so that an error of the listener does not end the sampling.
            self.start()
            self._tell(max(0.0, loop.time() - due))

        self._timer = loop.call_at(due, sample)

    async def stop(self) -> None:
        """End."""
        if self._timer is not None:
            self._timer.cancel()
