"""A server that asks to be left alone for a while, by a Retry-After, is."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from raglan.errors import Overloaded, RaglanError, Unavailable

_LONGEST_S: Final = 60.0
"""A server that asks for longer is tried again all the same."""


class HoldOff:
    """Time until which one server asked not to be called."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._error: RaglanError | None = None
        self._until = 0.0

    def note(self, error: RaglanError, retry_after_s: float | None) -> None:
        """Record a failure with the server's retry delay; without one calls go on."""
        if isinstance(error, Overloaded | Unavailable) and retry_after_s:
            self._error = error
            self._until = self._clock() + min(retry_after_s, _LONGEST_S)

    def check(self) -> None:
        """Return if the server may be called.

        Raises:
            RaglanError: the failure that it named the time with, with the time that is left.
        """
        left_s = self._until - self._clock()
        if self._error is not None and left_s > 0:
            raise type(self._error)(
                f"{self._error.message} It asked for no calls for {left_s:.1f} s more.",
                retry_after_s=left_s,
                is_final=True,
            )
