"""The same thing asked for by many at once is computed once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from raglan.errors import DeadlineExceeded

Value = TypeVar("Value")
Start = Callable[[list[int]], Sequence["asyncio.Future[Value]"]]
"""Positions among the keys -> a future for each; called when nobody computes them yet."""


@dataclass(slots=True, eq=False)
class _Flight(Generic[Value]):
    future: asyncio.Future[Value]
    waiters: int = 0


class SingleFlight(Generic[Value]):
    """Futures by key, shared by all who wait for the key. Belongs to one event loop.

    A future is cancelled when the last of its waiters has left, so a leader that gives up takes
    nobody with it. A follower whose leader's deadline was too short starts again with its own.
    """

    def __init__(self, landed: Callable[[bytes, Value], None]) -> None:
        """Args:
        landed: told each value once, as it arrives.
        """
        self._flights: dict[bytes, _Flight[Value]] = {}
        self._landed = landed

    def __len__(self) -> int:
        """Keys being computed."""
        return len(self._flights)

    async def get(self, keys: Sequence[bytes], start: Start[Value]) -> list[Value]:
        """The value of each of `keys`, computed by `start` where nobody does so yet.

        Raises what `start` raises, or the first failure among the futures.
        """
        first = {key: at for at, key in reversed(list(enumerate(keys)))}
        values: dict[bytes, Value] = {}
        while missing := {key: at for key, at in first.items() if key not in values}:
            values.update(await self._round(missing, start))
        return [values[key] for key in keys]

    async def _round(self, missing: Mapping[bytes, int], start: Start[Value]) -> dict[bytes, Value]:
        led = self._lead(missing, start)
        joined = {key: self._flights[key] for key in missing}
        for flight in joined.values():
            flight.waiters += 1
        landed: dict[bytes, Value] = {}
        try:
            await asyncio.wait(
                {flight.future for flight in joined.values()},
                return_when=asyncio.FIRST_EXCEPTION,
            )
            for key, flight in joined.items():
                if not flight.future.done():
                    continue
                error = flight.future.exception()
                if error is None:
                    landed[key] = flight.future.result()
                elif key in led or not isinstance(error, DeadlineExceeded):
                    raise error
            return landed
        finally:
            for key, flight in joined.items():
                self._leave(key, flight)

    def _lead(self, missing: Mapping[bytes, int], start: Start[Value]) -> set[bytes]:
        """Start what nobody computes; its keys."""
        led = [
            key
            for key in sorted(missing, key=missing.__getitem__)
            if (flight := self._flights.get(key)) is None or flight.future.done()
        ]
        futures = start([missing[key] for key in led]) if led else []
        for key, future in zip(led, futures, strict=True):
            flight = self._flights[key] = _Flight(future)
            future.add_done_callback(partial(self._arrived, key, flight))
        return set(led)

    def _leave(self, key: bytes, flight: _Flight[Value]) -> None:
        flight.waiters -= 1
        if flight.waiters == 0 and not flight.future.done():
            self._forget(key, flight)
            flight.future.cancel()

    def _arrived(self, key: bytes, flight: _Flight[Value], done: asyncio.Future[Value]) -> None:
        self._forget(key, flight)
        if not done.cancelled() and done.exception() is None:
            self._landed(key, done.result())

    def _forget(self, key: bytes, flight: _Flight[Value]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
