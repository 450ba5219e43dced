"""Concurrent requests for the same key are computed once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from raglan.errors import DeadlineExceeded

Value = TypeVar("Value")
Start = Callable[[list[int]], Sequence["asyncio.Future[Value]"]]
"""Positions among the keys -> a future for each; called for keys that are not in computation."""


@dataclass(slots=True, eq=False)
class _Flight(Generic[Value]):
    future: asyncio.Future[Value]
    rank: int
    twin: _Flight[Value] | None = None
    """The same key computed at another rank; whichever lands first lands for both."""

    waiters: int = 0
    landed: bool = False
    """True if its twin landed for it."""


class SingleFlight(Generic[Value]):
    """Futures by key, shared by all who wait for the key. Belongs to one event loop.

    A future is cancelled when the last of its waiters has left, so a cancelled leader takes
    no follower with it. A follower whose leader's deadline was too short starts again with its own.
    One of a more urgent rank does not wait for a computation of a lesser: it starts its own, which
    everybody joins, and the other need not run any more.

    Args:
        landed: called once with each value, as it arrives.
    """

    def __init__(self, landed: Callable[[bytes, Value], None]) -> None:
        self._flights: dict[bytes, _Flight[Value]] = {}
        self._landed = landed

    def __len__(self) -> int:
        """Keys being computed."""
        return len(self._flights)

    async def get(
        self, keys: Sequence[bytes], start: Start[Value], *, rank: int = 0
    ) -> list[Value]:
        """The value of each of `keys`, computed by `start` unless it is in computation.

        Args:
            keys: digests of the inputs.
            start: computes the missing keys.
            rank: how urgent it is, 0 the most; what is computed at a higher number is not joined.

        Raises what `start` raises, or the first failure among the futures.
        """
        first = {key: at for at, key in reversed(list(enumerate(keys)))}
        values: dict[bytes, Value] = {}
        while missing := {key: at for key, at in first.items() if key not in values}:
            values.update(await self._round(missing, start, rank))
        return [values[key] for key in keys]

    async def _round(
        self, missing: Mapping[bytes, int], start: Start[Value], rank: int
    ) -> dict[bytes, Value]:
        led = self._lead(missing, start, rank)
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

    def _lead(self, missing: Mapping[bytes, int], start: Start[Value], rank: int) -> set[bytes]:
        """Start keys not in computation at this rank or a more urgent one; return them."""
        led = [
            key
            for key in sorted(missing, key=missing.__getitem__)
            if (flight := self._flights.get(key)) is None
            or flight.future.done()
            or flight.rank > rank
        ]
        futures = start([missing[key] for key in led]) if led else []
        for key, future in zip(led, futures, strict=True):
            twin = self._flights.get(key)
            flight = self._flights[key] = _Flight(future, rank, twin)
            if twin is not None:
                twin.twin = flight
            future.add_done_callback(partial(self._arrived, key, flight))
        return set(led)

    def _leave(self, key: bytes, flight: _Flight[Value]) -> None:
        flight.waiters -= 1
        if flight.waiters == 0 and not flight.future.done():
            self._forget(key, flight)
            flight.future.cancel()

    def _arrived(self, key: bytes, flight: _Flight[Value], done: asyncio.Future[Value]) -> None:
        self._forget(key, flight)
        if done.cancelled() or done.exception() is not None or flight.landed:
            return
        self._landed(key, done.result())
        if (twin := flight.twin) is not None and not twin.future.done():
            twin.landed = True
            twin.future.set_result(done.result())

    def _forget(self, key: bytes, flight: _Flight[Value]) -> None:
        if self._flights.get(key) is not flight:
            return
        if (twin := flight.twin) is not None and not twin.future.done():
            self._flights[key] = twin
        else:
            del self._flights[key]
