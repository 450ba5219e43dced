"""A server outside of the mesh that a service needs, such as a database, as in `GetInfo`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from raglan.errors import RaglanError
from raglan.v1 import common_pb2

_LOOK_S: Final = 0.7
"""Longest wait for an answer; the caller of `GetInfo` waits a second."""


class Dependency:
    """Looks whether a server answers, once at a time however many callers ask. Close it.

    Args:
        name: e.g. "postgresql".
        look: the cheapest call that needs an answer. It raises a RaglanError, whose sentence tells
            the user the way out, where there is none.
    """

    def __init__(self, name: str, look: Callable[[], Awaitable[object]]) -> None:
        self._name = name
        self._look = look
        self._looking: asyncio.Task[float] | None = None

    async def state(self) -> common_pb2.Dependency:
        """The state now, within `_LOOK_S`."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._timed())
        await asyncio.wait((self._looking,), timeout=_LOOK_S)
        found = common_pb2.Dependency(name=self._name)
        if not self._looking.done():
            found.problem = f"No answer within {_LOOK_S:g} s."
        elif error := self._looking.exception():
            known = isinstance(error, RaglanError)
            found.problem = str(error) if known else f"It failed: {type(error).__name__}."
        else:
            found.reachable = True
            found.seconds = self._looking.result()
        return found

    async def close(self) -> None:
        """Give up the look that is going on."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait((self._looking,))

    async def _timed(self) -> float:
        began = time.monotonic()
        await self._look()
        return time.monotonic() - began
