"""A bound on the bytes under way, for when counting documents is not enough."""

from __future__ import annotations

import asyncio
from collections import deque


class ByteBudget:
    """Budget of `total` units, first come first served; a larger request gets all of it."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._left = total
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def acquire(self, amount: int) -> int:
        """Wait for `amount` units; returns how many to give back."""
        amount = min(amount, self._total)
        if not self._waiting and amount <= self._left:
            self._left -= amount
            return amount
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((amount, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release(amount)
            raise
        return amount

    def release(self, amount: int) -> None:
        """Return `amount` units and wake the callers that fit."""
        self._left += amount
        while self._waiting:
            wanted, turn = self._waiting[0]
            if turn.cancelled():
                self._waiting.popleft()
            elif wanted <= self._left:
                self._waiting.popleft()
                self._left -= wanted
                turn.set_result(None)
            else:
                break
