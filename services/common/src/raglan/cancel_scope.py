"""A block that can be cancelled from outside without a task of its own."""

from __future__ import annotations

import asyncio
from types import TracebackType


class CancelScope:
    """`async with CancelScope() as scope:` ends early and without an error on `scope.cancel()`.

    The awaited operation inside the block is cancelled. Afterwards `cancelled` is true if the scope
    ended that way; a block that finished first keeps its own outcome.
    """

    __slots__ = ("_limit", "_open", "cancelled")

    def __init__(self) -> None:
        self._limit = asyncio.timeout(None)
        self._open = False
        self.cancelled = False

    def cancel(self) -> None:
        """Leave the block. Has no effect once the block is over."""
        if self._open:
            self._open = False
            self._limit.reschedule(asyncio.get_running_loop().time())

    async def __aenter__(self) -> CancelScope:
        await self._limit.__aenter__()
        self._open = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        self._open = False
        try:
            await self._limit.__aexit__(kind, error, traceback)
        except TimeoutError:
            self.cancelled = True
        return self.cancelled
