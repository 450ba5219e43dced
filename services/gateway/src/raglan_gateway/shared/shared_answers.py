"""Answers and revisions in Redis, where other gateways find them.

`raglan:answer:2:<digest>` holds an answer at one revision of its collections; the 2 is the version
of this layout. `raglan:revision:<collection>` holds the newest revision that a gateway has seen.
Revisions only rise, so it does not matter in which order gateways write them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

import structlog
from raglan.background import keep_running
from raglan.errors import Unavailable

from raglan_gateway.shared.redis_link import RedisLink

log: Final = structlog.get_logger()

WAITING_WRITES: Final = 64
"""Answers on their way to Redis; more are dropped, because a request never waits for this."""

WAITING_REVISIONS: Final = 10_000
"""Collections whose revision is not yet in Redis; past that, the oldest is dropped."""

_PUBLISHED_AT_ONCE: Final = 500
_AGAIN_S: Final = 0.2
_REVISION_MS: Final = 30 * 24 * 3600 * 1000

# KEYS: the answer. Reply: for how long it was to be kept, how much of that is left, its body.
_READ: Final = """
local held = redis.call('HMGET', KEYS[1], 'keep_ms', 'body')
if not held[2] then return {} end
return {tonumber(held[1]), redis.call('PTTL', KEYS[1]), held[2]}
"""

# KEYS: the answer, then revisions. ARGV: how long revisions live, how long the answer is to be
# kept, how much of that is left, its body or nothing, then the revisions.
_WRITE: Final = """
for i = 2, #KEYS do
  if tonumber(redis.call('GET', KEYS[i]) or '0') < tonumber(ARGV[i + 3]) then
    redis.call('SET', KEYS[i], ARGV[i + 3])
  end
  redis.call('PEXPIRE', KEYS[i], ARGV[1])
end
if ARGV[4] ~= '' then
  redis.call('HSET', KEYS[1], 'keep_ms', ARGV[2], 'body', ARGV[4])
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
"""

_REVISIONS: Final = "return redis.call('MGET', unpack(KEYS))"


@dataclass(frozen=True, slots=True)
class StaleAnswer:
    """A reply as it was once given."""

    body: bytes
    """JSON of the REST reply."""
    age_s: float


@dataclass(frozen=True, slots=True)
class _Write:
    key: bytes
    revisions: Mapping[str, int]
    body: bytes
    made_at: float


class SharedAnswers:
    """The answers in one Redis. Make it inside a running event loop; close it."""

    def __init__(
        self, redis: RedisLink, keep_s: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._redis = redis
        self._keep_s = keep_s
        self._clock = clock
        self._writes: asyncio.Queue[_Write] = asyncio.Queue(WAITING_WRITES)
        self._unpublished: dict[str, int] = {}
        self._more_unpublished = asyncio.Event()
        self._tasks = (
            asyncio.create_task(keep_running("share answers", self._write_all)),
            asyncio.create_task(keep_running("publish revisions", self._publish_all)),
        )

    async def close(self) -> None:
        """Stop; what still waits is dropped."""
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)

    async def revisions(self, collections: Sequence[str]) -> dict[str, int]:
        """Return the newest revision of each collection that a gateway has seen; 0 where none has.

        Raises:
            Unavailable: no Redis.
        """
        found = await self._redis.run(_REVISIONS, [_revision(name) for name in collections])
        return {name: int(each or 0) for name, each in zip(collections, found, strict=True)}

    async def read(self, key: bytes) -> list[StaleAnswer]:
        """The answer under `key`, if there is one.

        Raises:
            Unavailable: no Redis.
        """
        found = await self._redis.run(_READ, [_answer(key)])
        if not found:
            return []
        keep_ms, left_ms, body = found
        age_s = (keep_ms - left_ms) / 1e3
        # Outside, when Redis's clock was put back or another gateway keeps for longer.
        return [StaleAnswer(body, age_s)] if 0 <= age_s <= self._keep_s else []

    def write(self, key: bytes, revisions: Mapping[str, int], body: bytes) -> None:
        """Store an answer made now, soon; or not, when too many wait already."""
        try:
            self._writes.put_nowait(_Write(key, revisions, body, self._clock()))
        except asyncio.QueueFull:
            log.debug("an answer is not shared: too many are waiting")

    def publish(self, collection: str, revision: int) -> None:
        """Tell other gateways of a revision, soon; without Redis, once it is back."""
        self._unpublished[collection] = revision
        if len(self._unpublished) > WAITING_REVISIONS:
            log.warning("a revision is not shared: too many are waiting")
            del self._unpublished[next(iter(self._unpublished))]
        self._more_unpublished.set()

    async def publish_now(self) -> None:
        """Publish revisions that wait, unless there is no Redis; takes `redis_link.CALL_S`."""
        waiting = dict(islice(self._unpublished.items(), _PUBLISHED_AT_ONCE))
        try:
            await self._write(waiting)
        except Unavailable as error:
            log.debug("revisions are shared later", reason=error.message)
            return
        for name, revision in waiting.items():
            if self._unpublished.get(name) == revision:
                del self._unpublished[name]

    async def _publish_all(self) -> None:
        while True:
            await self._more_unpublished.wait()
            self._more_unpublished.clear()
            await self._redis.up()
            await self.publish_now()
            if self._unpublished:
                self._more_unpublished.set()
                await asyncio.sleep(_AGAIN_S)

    async def _write_all(self) -> None:
        while True:
            write = await self._writes.get()
            left_s = self._keep_s - (self._clock() - write.made_at)
            if left_s > 0:
                try:
                    await self._write(write.revisions, write.key, left_s, write.body)
                except Unavailable:
                    log.debug("an answer is not shared: no redis")

    async def _write(
        self, revisions: Mapping[str, int], key: bytes = b"", left_s: float = 0, body: bytes = b""
    ) -> None:
        await self._redis.run(
            _WRITE,
            [_answer(key), *map(_revision, revisions)],
            _REVISION_MS,
            int(self._keep_s * 1e3),
            max(1, int(left_s * 1e3)),
            body,
            *revisions.values(),
        )


def _answer(key: bytes) -> str:
    return f"raglan:answer:2:{key.hex()}"


def _revision(collection: str) -> str:
    return f"raglan:revision:{collection}"
