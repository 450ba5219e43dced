"""Answers kept for the time while no retriever can be reached.

In this process, up to `LOCAL_BYTES`, and where there is Redis, in Redis for the other gateways too.
Not a cache to save work: it is read only when there is no other way to answer, and says how old an
answer is.

The key of an answer holds the revision of each collection that the retriever returned with its
search. A lookup uses the newest revisions known: to this gateway, to another one (by Redis) or to
the ingester, which makes all changes. So what was replaced or deleted does not come back, and
nothing has to be invalidated.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

import structlog
from cachetools import LRUCache, TTLCache
from raglan import tenancy
from raglan.cache import digest
from raglan.errors import REFUSALS, RaglanError, Unavailable
from raglan.v1 import ingester_pb2

from raglan_gateway.caches import keys
from raglan_gateway.query import Query
from raglan_gateway.shared.redis_link import RedisLink
from raglan_gateway.shared.shared_answers import SharedAnswers, StaleAnswer

log: Final = structlog.get_logger()

LOCAL_BYTES: Final = 32 * 1024 * 1024
"""Memory limit of the answers in this process."""

ANSWER_BYTES: Final = 256 * 1024
"""The largest answer that is kept."""

_ENTRY_BYTES: Final = 1_000
"""Memory of an entry besides its body, generously."""

_COLLECTIONS: Final = 4_096


class Changed(Protocol):
    """Reply to a deletion."""

    @property
    def revision(self) -> int:
        """The collection's after it; 0 where the service is older than revisions."""


Reply = TypeVar("Reply", bound=Changed)
FetchRevisions = Callable[[Sequence[str]], Awaitable[ingester_pb2.GetRevisionsResponse]]


@dataclass(frozen=True, slots=True)
class _Answer:
    body: bytes
    made_at: float


class AnswerCache:
    """Answers by question and revisions. Make it inside a running event loop; close it.

    Args:
        keep_s: answers older than this are not given; 0 keeps none.
        fetch_revisions: the ingester's `GetRevisions`; it may raise RaglanError.
    """

    def __init__(
        self,
        keep_s: float,
        fetch_revisions: FetchRevisions,
        redis: RedisLink | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keep_s = keep_s
        self._fetch_revisions = fetch_revisions
        self._clock = clock
        self._answers: TTLCache[bytes, _Answer] = TTLCache(
            LOCAL_BYTES,
            ttl=keep_s,
            timer=clock,
            getsizeof=lambda answer: len(answer.body) + _ENTRY_BYTES,
        )
        self._revisions: LRUCache[str, int] = LRUCache(_COLLECTIONS)
        """The newest of each collection, by its qualified name, that this gateway has seen."""
        self._shared = SharedAnswers(redis, keep_s, clock=clock) if redis else None

    async def close(self) -> None:
        """Stop writing to Redis."""
        if self._shared is not None:
            await self._shared.close()

    @property
    def bytes_held(self) -> int:
        """Memory of the answers in this process."""
        return int(self._answers.currsize)

    def learn(self, revisions: Mapping[str, int]) -> None:
        """Note revisions that the retriever returned; an older one changes nothing."""
        for name, revision in revisions.items():
            collection = tenancy.qualified(name)
            if revision > self._revisions.get(collection, 0):
                self._revisions[collection] = revision
                if self._shared is not None:
                    self._shared.publish(collection, revision)

    def put(self, query: Query, kind: str, revisions: Mapping[str, int], body: bytes) -> None:
        """Keep a reply, unless it is too large or the revision of a collection is not known.

        Args:
            query: The question.
            kind: The type of the reply.
            revisions: Of the collections searched, as told with the passages.
            body: The reply as JSON.
        """
        told = [revisions.get(name, 0) for name in query.collections]
        if self._keep_s <= 0 or not all(told) or len(body) > ANSWER_BYTES:
            return
        key = _key(query, kind, told)
        self._answers[key] = _Answer(body, self._clock())
        if self._shared is not None:
            names = map(tenancy.qualified, query.collections)
            self._shared.write(key, dict(zip(names, told, strict=True)), body)

    async def get(self, query: Query, kind: str) -> StaleAnswer | None:
        """Return the youngest reply kept to the same question at the newest revisions.

        Takes `mesh.REVISIONS_S` and `redis_link.CALL_S` at most.
        """
        if self._keep_s <= 0:
            return None
        newest = await self._newest(query.collections)
        if not all(newest):
            return None
        key = _key(query, kind, newest)
        found: list[StaleAnswer] = []
        if self._shared is not None:
            try:
                found += await self._shared.read(key)
            except Unavailable as error:
                log.debug("only this gateway's own answers", reason=error.message)
        answer = self._answers.get(key)
        if answer is not None:
            found.append(StaleAnswer(answer.body, self._clock() - answer.made_at))
        return min(found, key=lambda stale: stale.age_s, default=None)

    async def deletion(self, collection: str, deleting: Awaitable[Reply]) -> Reply:
        """Await a deletion, after which no answer from before it is returned.

        Where it fails half-way or returns no revision, one above the known is assumed: nothing has
        been kept at it yet.
        """
        revision = 0
        try:
            reply = await deleting
            revision = reply.revision
        except REFUSALS:  # nothing was deleted
            revision = -1
            raise
        finally:
            known = self._revisions.get(tenancy.qualified(collection), 0)
            self.learn({collection: revision or known + 1})
        if self._shared is not None:
            await self._shared.publish_now()
        return reply

    async def _newest(self, collections: Sequence[str]) -> list[int]:
        """Newest revision known of each collection; 0 where none is, or a deletion is not done."""
        ingester, shared = await asyncio.gather(
            self._ingester_revisions(collections), self._redis_revisions(collections)
        )
        newest = []
        for name in collections:
            kept_as = tenancy.qualified(name)
            known = (
                self._revisions.get(kept_as, 0),
                ingester.revisions.get(name, 0),
                shared.get(kept_as, 0),
            )
            newest.append(0 if name in ingester.unfinished else max(known))
        return newest

    async def _ingester_revisions(
        self, collections: Sequence[str]
    ) -> ingester_pb2.GetRevisionsResponse:
        try:
            return await self._fetch_revisions(collections)
        except RaglanError as error:
            log.debug("revisions without the ingester's", reason=error.message)
            return ingester_pb2.GetRevisionsResponse()

    async def _redis_revisions(self, collections: Sequence[str]) -> dict[str, int]:
        try:
            names = [tenancy.qualified(name) for name in collections]
            return await self._shared.revisions(names) if self._shared else {}
        except Unavailable as error:
            log.debug("revisions without other gateways'", reason=error.message)
            return {}


def _key(query: Query, kind: str, revisions: Sequence[int]) -> bytes:
    """Digest of everything that decides the reply, its form included."""
    told = dict(zip(query.collections, revisions, strict=True))
    return digest(kind, keys.answer(query, told, {}, "").hex())
