"""Shutdown of a process: signal, drain, grace period, then an error for what still runs.

A request that outlasts the grace period gets an error of its own protocol; a cut connection would
not explain itself.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from raglan.errors import Unavailable

LAST_WORD_S: Final = 0.5
"""After the grace, for the error itself to be sent; then connections are closed as they are."""


class Lifecycle:
    """Shutdown state of a process, shared with its requests. Bound to one event loop."""

    def __init__(self, name: str) -> None:
        """`name` begins the sentence, e.g. "the gateway"."""
        self.draining = False
        """True once shutdown was requested: callers should use another replica."""
        self._name = name
        self._ended = False
        self._limits: set[asyncio.Timeout] = set()

    def drain(self) -> None:
        """Start draining: readiness fails, running requests continue."""
        self.draining = True

    def end(self) -> None:
        """Cancel every block under `cancel_on_shutdown`, now and from now on."""
        self.draining = self._ended = True
        now = asyncio.get_running_loop().time()
        for limit in self._limits:
            limit.reschedule(now)

    @asynccontextmanager
    async def cancel_on_shutdown(self) -> AsyncIterator[asyncio.Timeout]:
        """Cancel the block when the grace period ends, unless its limit was given to `exempt`.

        Raises:
            Unavailable: the block was cut off.
        """
        if self._ended:
            raise self.unavailable()
        limit = asyncio.timeout(None)
        self._limits.add(limit)
        try:
            async with limit:
                yield limit
        except TimeoutError:
            if not limit.expired():
                raise
            raise self.unavailable() from None
        finally:
            self._limits.discard(limit)

    def exempt(self, limit: asyncio.Timeout) -> None:
        """Let the block under `limit` continue after the grace period."""
        self._limits.discard(limit)

    def unavailable(self) -> Unavailable:
        """Build the error of a request that the shutdown cancels."""
        return Unavailable(
            f"{self._name.capitalize()} is shutting down; try again.", retry_after_s=1
        )


def stop_signals() -> asyncio.Event:
    """An event that the first SIGTERM or SIGINT sets; a second one ends the process at once."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT)

    def on_signal() -> None:
        stopping.set()
        for number in numbers:  # from here on the kernel acts: it needs no loop that turns
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)

    for number in numbers:
        loop.add_signal_handler(number, on_signal)
    return stopping
