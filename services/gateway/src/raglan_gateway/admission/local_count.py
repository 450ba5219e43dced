"""Counts of the callers of one gateway, in its memory.

The generic cell rate algorithm (ITU-T I.371): what a caller has used is paid for until some moment,
each unit for another `interval`; a use whose own payment would end more than a minute from now
waits. So a minute's worth may come at once after a pause, and from then on one an interval: over
any t seconds at most `per_minute * (1 + t / 60)`. One number a caller, and the exact wait.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cachetools import TTLCache

MINUTE_US: Final = 60_000_000
CALLERS: Final = 20_000
"""Callers a gateway counts at a time; past that, those silent for longest start anew."""


class LocalRate:
    """A rate for the callers of one gateway.

    Args:
        callers: counted at a time.
        debt_s: longest time for which a caller may have to pay; a minute's worth is never a debt.
        clock: monotonic, in seconds.
    """

    def __init__(
        self, *, callers: int = CALLERS, debt_s: int = 60, clock: Callable[[], float]
    ) -> None:
        self._clock = clock
        self._most_us = debt_s * 1_000_000
        # After that time a caller owes nothing, so forgetting changes nothing.
        self._paid_until_us: TTLCache[bytes, int] = TTLCache(callers, ttl=debt_s, timer=clock)

    def __len__(self) -> int:
        """Callers counted."""
        return len(self._paid_until_us)

    def wait_s(self, caller: bytes, per_minute: int, amount: int = 1) -> float:
        """Return the seconds until `amount` may be used; 0 when it may now."""
        ahead = self._ahead_us(caller) + amount * MINUTE_US // per_minute - MINUTE_US
        return max(0, ahead) / 1e6

    def left(self, caller: bytes, per_minute: int) -> int:
        """Return how much may be used now."""
        return max(0, MINUTE_US - self._ahead_us(caller)) * per_minute // MINUTE_US

    def use(self, caller: bytes, per_minute: int, amount: int = 1) -> None:
        """Count a use; a negative one gives back."""
        ahead = max(0, self._ahead_us(caller) + amount * MINUTE_US // per_minute)
        if ahead:
            self._paid_until_us[caller] = self._now_us() + min(ahead, self._most_us)
        else:
            self._paid_until_us.pop(caller, None)

    def _ahead_us(self, caller: bytes) -> int:
        now = self._now_us()
        return max(now, self._paid_until_us.get(caller, now)) - now

    def _now_us(self) -> int:
        return int(self._clock() * 1e6)
