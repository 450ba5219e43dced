"""Shutdown of a process: signal, drain, grace period, then an error for what still runs.

A request that outlasts the grace period gets an error of its own protocol; a cut connection would
not explain itself.
"""

from __future__ import annotations

import asyncio
import signal
from types import TracebackType
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

    def cancel_on_shutdown(self) -> Shutdown:
        """Cancel the block when the grace period ends, unless its limit was given to `exempt`.

        Entering yields the limit. Leaving raises:
            Unavailable: the block was cut off.
        """
        return Shutdown(self, self._limits)

    def exempt(self, limit: asyncio.Timeout) -> None:
        """Let the block under `limit` continue after the grace period."""
        self._limits.discard(limit)

    @property
    def has_ended(self) -> bool:
        """True if the grace period is over."""
        return self._ended

    def unavailable(self) -> Unavailable:
        """Build the error of a request that the shutdown cancels."""
        return Unavailable(
            f"{self._name.capitalize()} is shutting down; try again.", retry_after_s=1
        )


class Shutdown:
    """A block that ends with the process. A class, because streams enter it for every message."""

    __slots__ = ("_lifecycle", "_limit", "_limits")

    def __init__(self, lifecycle: Lifecycle, limits: set[asyncio.Timeout]) -> None:
        self._lifecycle = lifecycle
        self._limits = limits

    async def __aenter__(self) -> asyncio.Timeout:
        if self._lifecycle.has_ended:
            raise self._lifecycle.unavailable()
        limit = self._limit = asyncio.timeout(None)
        self._limits.add(limit)
        return await limit.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._limits.discard(self._limit)
        try:
            await self._limit.__aexit__(kind, error, traceback)
        except TimeoutError:
            raise self._lifecycle.unavailable() from None


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
