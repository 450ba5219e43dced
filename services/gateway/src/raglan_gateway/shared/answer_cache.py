"""Answers that were given, for the time when no retriever can be reached.

In this process, up to `LOCAL_BYTES`, and where there is Redis, in Redis for the other gateways too.
Not a cache to save work: it is read only when there is no other way to answer, and says how old an
answer is. What was deleted does not come back: a deletion makes every answer from its collection
unfindable, those too that are still being worked on.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import raglan
import structlog
from cachetools import TTLCache
from raglan.cache import digest
from raglan.errors import InvalidInput, NotFound, Unavailable

from raglan_gateway.api.schemas import QueryReply, SearchReply
from raglan_gateway.query import Query
from raglan_gateway.shared.redis_link import RedisLink
from raglan_gateway.shared.shared_answers import Kept, SharedAnswers, Stamp

log: Final = structlog.get_logger()

LOCAL_BYTES: Final = 32 * 1024 * 1024
"""What the answers in this process may take."""

ANSWER_BYTES: Final = 256 * 1024
"""The largest answer that is kept."""

_ENTRY_BYTES: Final = 1_000
"""What an entry takes besides its body, generously."""

_COLLECTIONS: Final = 4_096


@dataclass(frozen=True, slots=True)
class Place:
    """Where the answer to one question belongs, as of before the work on it."""

    key: bytes
    collections: tuple[str, ...]
    deletions: int
    """How many deletions this gateway had seen."""
    stamp: Stamp


@dataclass(frozen=True, slots=True)
class _Answer:
    place: Place
    body: bytes
    made_at: float


class AnswerCache:
    """Make it inside a running event loop; close it."""

    def __init__(
        self,
        keep_s: float,
        redis: RedisLink | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Args:
        keep_s: answers older than this are not given; 0 keeps none.
        """
        self._keep_s = keep_s
        self._clock = clock
        self._answers: TTLCache[bytes, _Answer] = TTLCache(
            LOCAL_BYTES,
            ttl=keep_s,
            timer=clock,
            getsizeof=lambda answer: len(answer.body) + _ENTRY_BYTES,
        )
        self._deletions = 0
        self._deleted_at: dict[str, int] = {}
        self._forgotten_at = 0
        self._shared = (
            SharedAnswers(redis, keep_s, on_deletion=self._forget, clock=clock) if redis else None
        )

    async def close(self) -> None:
        """Stop writing to Redis."""
        if self._shared is not None:
            await self._shared.close()

    @property
    def bytes_held(self) -> int:
        """What the answers in this process take."""
        return int(self._answers.currsize)

    def place(self, query: Query, *, generate: bool) -> Place:
        """The place of a question's answer. Take it before anything is retrieved.

        Args:
            generate: True for `/v1/query`, False for `/v1/search`.
        """
        stamp = self._shared.stamp(query.collections) if self._shared else ()
        return Place(_key(query, generate), query.collections, self._deletions, stamp)

    def put(self, place: Place, reply: QueryReply | SearchReply) -> bytes:
        """Keep a complete reply; one that is degraded or too large is not kept.

        Returns:
            The reply as JSON, which is what is kept; kept or not.
        """
        body = reply.model_dump_json().encode()
        complete = not reply.degraded and len(body) <= ANSWER_BYTES
        if complete and self._keep_s > 0 and self._holds(place):
            self._answers[place.key] = _Answer(place, body, self._clock())
            if self._shared is not None:
                self._shared.write(place.key, place.collections, place.stamp, body)
        return body

    async def get(self, place: Place) -> Kept | None:
        """The youngest reply kept to the same question, if there is one.

        Takes `redis_link.CALL_S` at most. Redis is asked even if the answer is here, because other
        gateways may have deleted what it rests on.
        """
        if self._keep_s <= 0:
            return None
        found: list[Kept] = []
        if self._shared is not None:
            try:
                found += await self._shared.read(place.key, place.collections)
            except Unavailable as error:
                log.debug("only this gateway's own answers", reason=error.message)
        answer = self._answers.get(place.key)
        if answer is not None and self._holds(answer.place):
            found.append(Kept(answer.body, self._clock() - answer.made_at))
        return min(found, key=lambda kept: kept.age_s, default=None)

    async def invalidate(self, collection: str) -> None:
        """Give no answer any more from before now that rests on `collection`."""
        self._forget(collection)
        if self._shared is not None:
            await self._shared.deleted(collection)

    @asynccontextmanager
    async def deleting(self, collection: str) -> AsyncIterator[None]:
        """Around a deletion: invalidates after it, also when it failed half-way."""
        try:
            yield
        except (NotFound, InvalidInput):  # nothing was deleted
            raise
        except BaseException:
            await self.invalidate(collection)
            raise
        await self.invalidate(collection)

    def _forget(self, collection: str) -> None:
        self._deletions += 1
        self._deleted_at.pop(collection, None)
        self._deleted_at[collection] = self._deletions
        if len(self._deleted_at) > _COLLECTIONS:
            # Without its own number, a collection counts as deleted from as late as this.
            self._forgotten_at = self._deleted_at.pop(next(iter(self._deleted_at)))

    def _holds(self, place: Place) -> bool:
        """Nothing was deleted from the collections of `place` since it was taken."""
        return all(
            self._deleted_at.get(name, self._forgotten_at) <= place.deletions
            for name in place.collections
        )


def _key(query: Query, generate: bool) -> bytes:
    """A digest of everything that decides the reply, its form included."""
    filter_ = ""
    if query.filter is not None:
        filter_ = query.filter.SerializeToString(deterministic=True).hex()
    return digest(
        raglan.__version__,
        "query" if generate else "search",
        query.text if generate else query.line,
        *(str(part) for part in (query.mode, query.top_k, query.rerank, query.max_tokens)),
        str(query.min_score),
        filter_,
        *query.collections,
    )
