"""Ending a block from outside of it, without a task of its own for what is in it."""

from __future__ import annotations

import asyncio
from types import TracebackType


class Interrupt:
    """`async with Interrupt() as interrupt:` is left early, in peace, by `interrupt.now()`.

    What is awaited in the block is cancelled. `happened` says afterwards whether the block was left
    so; a block that came to its own end first has its own outcome.
    """

    __slots__ = ("_limit", "_open", "happened")

    def __init__(self) -> None:
        self._limit = asyncio.timeout(None)
        self._open = False
        self.happened = False

    def now(self) -> None:
        """Leave the block; once it is over, nothing."""
        if self._open:
            self._open = False
            self._limit.reschedule(asyncio.get_running_loop().time())

    async def __aenter__(self) -> Interrupt:
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
            self.happened = True
        return self.happened
