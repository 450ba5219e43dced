"""Storage of cached values: in this process, up to so many bytes, and in Redis for all gateways.

A value found in this process costs no round trip, and all that this process lacks costs one
together. Writing to Redis never holds a request up.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import structlog
from cachetools import LRUCache
from raglan.background import keep_running
from raglan.errors import Unavailable

from raglan_gateway.caches.entry import Entry, Layer, pack, unpack
from raglan_gateway.shared.redis_link import RedisLink

log: Final = structlog.get_logger()

LARGEST_BYTES: Final = 512 * 1024
"""A larger value is not kept."""

WAITING_WRITES: Final = 256
"""Values on their way to Redis; more are dropped."""

_ENTRY_BYTES: Final = 500
_WRITES_AT_ONCE: Final = 32
_READ: Final = "return redis.call('MGET', unpack(KEYS))"
_WRITE: Final = """
for i = 1, #KEYS do redis.call('SET', KEYS[i], ARGV[2 * i], 'PX', ARGV[2 * i - 1]) end
"""

Place = tuple[Layer, bytes]
"""A layer, and a key in it."""


class CacheStore:
    """Values by layer and key. Make it inside a running event loop; close it.

    Args:
        lifetimes_s: of each layer; 0 keeps none.
        max_bytes: memory of the values in this process.
        redis: for several gateways; not owned.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        lifetimes_s: Mapping[Layer, float],
        max_bytes: int,
        redis: RedisLink | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.damaged = 0
        """Values from Redis that were no values."""
        self._lifetimes_s = lifetimes_s
        self._clock = clock
        self._local: LRUCache[Place, Entry] = LRUCache(max_bytes, getsizeof=_bytes_of)
        self._redis = redis
        self._writes: asyncio.Queue[tuple[Place, Entry]] = asyncio.Queue(WAITING_WRITES)
        self._writing = (
            asyncio.create_task(keep_running("share cached values", self._write_all))
            if redis
            else None
        )

    async def close(self) -> None:
        """Stop writing; what still waits is dropped."""
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.wait((self._writing,))

    @property
    def bytes_held(self) -> int:
        """Memory of the values in this process."""
        return int(self._local.currsize)

    def keeps(self, layer: Layer) -> bool:
        """Return whether a layer is on."""
        return self._lifetimes_s[layer] > 0

    def age_s(self, entry: Entry) -> float:
        """Return the age of a value; clocks of gateways may differ, so it is 0 at least."""
        return max(0.0, self._clock() - entry.made_at)

    async def get(self, places: Sequence[Place]) -> list[Entry | None]:
        """Return what is held at each of `places`, after one round trip to Redis at most."""
        found = [self._valid(place, self._local.get(place)) for place in places]
        lacking = [at for at, entry in enumerate(found) if entry is None]
        if self._redis is None or not lacking:
            return found
        try:
            packed = await self._redis.run(_READ, [_name(places[at]) for at in lacking])
        except Unavailable as error:
            log.debug("only this gateway's own cache", reason=error.message)
            return found
        for at, value in zip(lacking, packed, strict=True):
            if value is None:
                continue
            entry = unpack(value)
            self.damaged += entry is None
            found[at] = self._valid(places[at], entry)
            if entry is not None and found[at] is not None:
                self._keep(places[at], entry)
        return found

    def get_local(self, place: Place) -> Entry | None:
        """Return what this process holds at `place`."""
        return self._valid(place, self._local.get(place))

    def put(self, place: Place, payload: bytes, cost_s: float) -> None:
        """Keep a value made now, unless it is too large."""
        if not self.keeps(place[0]) or len(payload) > LARGEST_BYTES:
            return
        entry = Entry(payload, self._clock(), cost_s)
        self._keep(place, entry)
        if self._redis is not None:
            try:
                self._writes.put_nowait((place, entry))
            except asyncio.QueueFull:
                log.debug("a cached value is not shared: too many are waiting")

    def _keep(self, place: Place, entry: Entry) -> None:
        if _bytes_of(entry) <= self._local.maxsize:
            self._local[place] = entry

    def _valid(self, place: Place, entry: Entry | None) -> Entry | None:
        if entry is None or self.age_s(entry) >= self._lifetimes_s[place[0]]:
            return None
        return entry

    async def _write_all(self) -> None:
        while True:
            batch = [await self._writes.get()]
            while len(batch) < _WRITES_AT_ONCE and not self._writes.empty():
                batch.append(self._writes.get_nowait())
            assert self._redis is not None
            arguments: list[bytes | int] = []
            for (layer, _), entry in batch:
                left_s = self._lifetimes_s[layer] - self.age_s(entry)
                arguments += [max(1, int(left_s * 1e3)), pack(entry)]
            try:
                await self._redis.run(_WRITE, [_name(place) for place, _ in batch], *arguments)
            except Unavailable as error:
                log.debug("cached values are not shared", reason=error.message)


def _bytes_of(entry: Entry) -> int:
    # A rendered body is somewhat larger than what it is made from.
    return 3 * len(entry.payload) + _ENTRY_BYTES


def _name(place: Place) -> str:
    return f"raglan:cache:{place[0]}:{place[1].hex()}"
