"""Answers in Redis, where other gateways find them, and the word of what was deleted.

Each collection has a generation there: a random token, replaced at each deletion. An answer is
stored with the generations of its collections, and found only while all of them are still the
same. What was asked before a deletion and answered after it must not be stored as if it came from
after it; so a gateway stamps a question, before it is worked on, with the generations it last
heard of, and Redis refuses an answer whose stamp is not current. Every reply tells the current
ones. A stamp that is too old costs an answer; one that is too new is not possible, and no clocks
are compared.

Generations that Redis lost (flushed, evicted) are made anew, and never the same again.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import structlog
from cachetools import LRUCache
from raglan.background import keep_running
from raglan.errors import Unavailable

from raglan_gateway.shared.redis_link import RedisLink

log: Final = structlog.get_logger()

Stamp: TypeAlias = tuple[bytes, ...]

WAITING_WRITES: Final = 64
"""Answers on their way to Redis; more are dropped, because a request never waits for this."""

WAITING_DELETIONS: Final = 10_000
"""Collections whose deletions Redis has yet to hear of; past that, the oldest is given up."""

_AGAIN_S: Final = 0.2
_KNOWN: Final = 4_096
_GENERATION_MS: Final = 24 * 3600 * 1000

# KEYS: the answer, then its collections' generations. Reply: the generations; where the answer is
# there and theirs, also for how long it was to be kept, how much of that is left, and its body.
_READ: Final = """
local current = {}
for i = 2, #KEYS do current[i - 1] = redis.call('GET', KEYS[i]) or '' end
local held = redis.call('HMGET', KEYS[1], 'stamp', 'keep_ms', 'body')
if held[1] ~= table.concat(current, ' ') then return {current} end
return {current, tonumber(held[2]), redis.call('PTTL', KEYS[1]), held[3]}
"""

# KEYS as above. ARGV: the stamp, a token for generations that are missing, how long those live,
# how long the answer is to be kept, how much of that is left, its body. Reply: the generations.
_WRITE: Final = """
local current = {}
for i = 2, #KEYS do
  local token = redis.call('GET', KEYS[i])
  if token then
    redis.call('PEXPIRE', KEYS[i], ARGV[3])
  else
    token = ARGV[2]
    redis.call('SET', KEYS[i], token, 'PX', ARGV[3])
  end
  current[i - 1] = token
end
if table.concat(current, ' ') == ARGV[1] then
  redis.call('HSET', KEYS[1], 'stamp', ARGV[1], 'keep_ms', ARGV[4], 'body', ARGV[6])
  redis.call('PEXPIRE', KEYS[1], ARGV[5])
end
return current
"""

_RENEW: Final = "redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])"


@dataclass(frozen=True, slots=True)
class Kept:
    """A reply as it was once given."""

    body: bytes
    """JSON of the REST reply."""
    age_s: float


@dataclass(frozen=True, slots=True)
class _Write:
    key: bytes
    collections: tuple[str, ...]
    stamp: Stamp
    body: bytes
    made_at: float


class SharedAnswers:
    """The answers in one Redis. Make it inside a running event loop; close it."""

    def __init__(
        self,
        redis: RedisLink,
        keep_s: float,
        *,
        on_deletion: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Args:
        on_deletion: called with a collection when Redis tells that something was deleted from it.
        """
        self._redis = redis
        self._keep_s = keep_s
        self._on_deletion = on_deletion
        self._clock = clock
        self._generations: LRUCache[str, bytes] = LRUCache(_KNOWN)
        self._writes: asyncio.Queue[_Write] = asyncio.Queue(WAITING_WRITES)
        self._untold: dict[str, None] = {}
        self._more_untold = asyncio.Event()
        self._tasks = (
            asyncio.create_task(keep_running("share answers", self._write_all)),
            asyncio.create_task(keep_running("tell deletions", self._tell_all)),
        )

    async def close(self) -> None:
        """Stop; what still waits is dropped."""
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)

    def stamp(self, collections: Sequence[str]) -> Stamp:
        """The generations last heard of; take it before the work on a question begins."""
        return tuple(self._generations.get(name, b"") for name in collections)

    async def read(self, key: bytes, collections: tuple[str, ...]) -> list[Kept]:
        """The answer under `key`, or none if something was deleted from its collections.

        Raises:
            Unavailable: no Redis.
        """
        for name in collections:
            if name in self._untold:
                await self._tell(name)
        generations, *found = await self._redis.run(_READ, _keys(key, collections))
        self._learn(collections, generations)
        if not found:
            return []
        keep_ms, left_ms, body = found
        age_s = (keep_ms - left_ms) / 1e3
        # Outside, when Redis's clock was put back or another gateway keeps for longer.
        return [Kept(body, age_s)] if 0 <= age_s <= self._keep_s else []

    def write(self, key: bytes, collections: tuple[str, ...], stamp: Stamp, body: bytes) -> None:
        """Store an answer made now, soon; or not, when too many wait already."""
        try:
            self._writes.put_nowait(_Write(key, collections, stamp, body, self._clock()))
        except asyncio.QueueFull:
            log.debug("an answer is not shared: too many are waiting")

    async def deleted(self, collection: str) -> None:
        """Make what is stored of `collection` unfindable; without Redis, once it is back."""
        self._generations.pop(collection, None)
        # Before the attempt: whoever calls may be cancelled in the middle of it.
        self._untold[collection] = None
        if len(self._untold) > WAITING_DELETIONS:
            log.warning("redis will not hear of a deletion: too many are waiting")
            del self._untold[next(iter(self._untold))]
        try:
            await self._tell(collection)
        except Unavailable as error:
            log.debug("redis will hear of a deletion later", reason=error.message)
        finally:
            if collection in self._untold:
                self._more_untold.set()

    async def _tell(self, collection: str) -> None:
        token = _token()
        await self._redis.run(_RENEW, [_generation(collection)], token, _GENERATION_MS)
        self._generations[collection] = token
        self._untold.pop(collection, None)

    async def _tell_all(self) -> None:
        while True:
            await self._more_untold.wait()
            await self._redis.up()
            for collection in list(self._untold):
                try:
                    await self._tell(collection)
                except Unavailable:
                    await asyncio.sleep(_AGAIN_S)
                    break
            if not self._untold:
                self._more_untold.clear()

    async def _write_all(self) -> None:
        while True:
            write = await self._writes.get()
            left_s = self._keep_s - (self._clock() - write.made_at)
            if left_s > 0:
                try:
                    await self._write(write, left_s)
                except Unavailable:
                    log.debug("an answer is not shared: no redis")

    async def _write(self, write: _Write, left_s: float) -> None:
        generations = await self._redis.run(
            _WRITE,
            _keys(write.key, write.collections),
            b" ".join(write.stamp),
            _token(),
            _GENERATION_MS,
            int(self._keep_s * 1e3),
            max(1, int(left_s * 1e3)),
            # Without a stamp it will be refused, and only the generations are of interest.
            write.body if all(write.stamp) else b"",
        )
        self._learn(write.collections, generations)

    def _learn(self, collections: Sequence[str], generations: Sequence[bytes]) -> None:
        for name, generation in zip(collections, generations, strict=True):
            if self._generations.get(name, b"") != generation:
                self._generations[name] = generation
                self._on_deletion(name)


def _keys(key: bytes, collections: Sequence[str]) -> list[str]:
    return [f"raglan:answer:{key.hex()}", *map(_generation, collections)]


def _generation(collection: str) -> str:
    return f"raglan:generation:{collection}"


def _token() -> bytes:
    return os.urandom(16).hex().encode()
