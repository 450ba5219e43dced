"""Answers and revisions that gateways share through a Redis, while the ingester is away."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest
from raglan.errors import Unavailable
from raglan.resilience.breaker import State
from raglan.v1 import ingester_pb2, retriever_pb2
from raglan_gateway.query import Query
from raglan_gateway.shared.answer_cache import AnswerCache
from raglan_gateway.shared.redis_link import CALL_S, RedisLink
from raglan_gateway.shared.shared_answers import WAITING_WRITES

if TYPE_CHECKING:
    from conftest import RedisServer

Opened = Callable[..., Awaitable[AnswerCache]]
REFUSE_WRITES = "CONFIG SET min-replicas-to-write 1"
TAKE_WRITES = "CONFIG SET min-replicas-to-write 0"
BASE = Query(
    text="a question",
    collections=("c",),
    top_k=10,
    mode=retriever_pb2.SEARCH_MODE_HYBRID,
    rerank=True,
)


@dataclasses.dataclass
class Index:
    """The revisions of an index; the ingester that knows them may be away."""

    revisions: dict[str, int] = dataclasses.field(default_factory=dict)
    ingester_is_up: bool = False

    async def ask(self, collections: Sequence[str]) -> ingester_pb2.GetRevisionsResponse:
        if not self.ingester_is_up:
            raise Unavailable("Away.")
        return ingester_pb2.GetRevisionsResponse(revisions=self.revisions)

    def of(self, query: Query) -> dict[str, int]:
        return {name: self.revisions.setdefault(name, 1) for name in query.collections}

    async def delete(self, cache: AnswerCache, collection: str = "c") -> None:
        """Delete something through one gateway."""
        self.revisions[collection] = self.revisions.get(collection, 1) + 1
        await cache.deletion(collection, _reply(self.revisions[collection]))


async def _reply(revision: int) -> ingester_pb2.DeleteDocumentResponse:
    return ingester_pb2.DeleteDocumentResponse(revision=revision)


@pytest.fixture
def index() -> Index:
    return Index()


@pytest.fixture
async def opened(redis_server: RedisServer, index: Index) -> AsyncIterator[Opened]:
    """Makes the cache of one more gateway."""
    async with AsyncExitStack() as stack:

        async def open_one(keep_s: float = 600, call_s: float = 2) -> AnswerCache:
            link = RedisLink(redis_server.url, call_s=call_s)
            stack.push_async_callback(link.close)
            cache = AnswerCache(keep_s, index.ask, link)
            stack.push_async_callback(cache.close)
            return cache

        yield open_one


def question(text: str = "a question", collections: Sequence[str] = ("c",)) -> Query:
    return dataclasses.replace(BASE, text=text, collections=tuple(collections))


def keep(cache: AnswerCache, content: str, index: Index, query: Query = BASE) -> None:
    """Have a gateway answer by a search of the index as it is."""
    keep_at(cache, content, index.of(query), query)


def keep_at(cache: AnswerCache, content: str, told: dict[str, int], query: Query = BASE) -> None:
    """Have a gateway answer by a search that told these revisions."""
    cache.learn(told)
    cache.put(query, "SearchReply", told, json.dumps(content).encode())


async def found(cache: AnswerCache, query: Query = BASE) -> str | None:
    stale = await cache.get(query, "SearchReply")
    return json.loads(stale.body) if stale else None


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await true():
            await asyncio.sleep(0.005)


async def shared(
    one: AnswerCache, other: AnswerCache, content: str, index: Index, query: Query = BASE
) -> None:
    """Have `one` answer, once, and wait until `other` finds it."""
    keep(one, content, index, query)

    async def is_found() -> bool:
        return await found(other, query) == content

    await until(is_found)


async def test_another_gateway_finds_an_answer_and_its_age(opened: Opened, index: Index) -> None:
    one, other = await opened(), await opened()
    await shared(one, other, "first", index)
    begun = time.monotonic()
    await asyncio.sleep(0.05)
    stale = await other.get(BASE, "SearchReply")
    assert stale is not None
    assert 0.05 <= stale.age_s <= time.monotonic() - begun + 1


async def test_an_answer_outlives_the_gateway_that_gave_it(opened: Opened, index: Index) -> None:
    one = await opened()
    await shared(one, await opened(), "first", index)
    await one.close()
    assert await found(await opened()) == "first"


async def test_redis_forgets_an_answer_by_itself(
    redis_server: RedisServer, opened: Opened, index: Index
) -> None:
    one, other = await opened(keep_s=0.3), await opened(keep_s=0.3)
    await shared(one, other, "first", index)

    async def gone() -> bool:
        return "raglan:answer" not in (await redis_server.do("KEYS *"))

    await until(gone)
    assert await found(other) is None


async def test_what_another_gateway_keeps_for_longer_is_too_old_here(
    opened: Opened, index: Index
) -> None:
    one, strict = await opened(keep_s=600), await opened(keep_s=0.2)
    await shared(one, await opened(), "first", index)
    await asyncio.sleep(0.4)
    assert await found(strict) is None
    assert await found(await opened()) == "first"


async def test_redis_holds_no_question(
    redis_server: RedisServer, opened: Opened, index: Index
) -> None:
    await shared(await opened(), await opened(), "first", index, question("somebody's words"))
    assert "somebody" not in (await redis_server.do("KEYS *"))


async def test_entries_of_an_earlier_layout_are_ignored(
    redis_server: RedisServer, opened: Opened, index: Index
) -> None:
    one, other = await opened(), await opened()
    await redis_server.do("SET raglan:generation:c 0123456789abcdef")
    await redis_server.do("HSET raglan:answer:00 stamp 0123456789abcdef keep_ms 600000 body x")
    await shared(one, other, "first", index)


async def test_a_deletion_through_one_gateway_counts_in_all(opened: Opened, index: Index) -> None:
    one, other = await opened(), await opened()
    await shared(one, other, "first", index)
    await shared(other, one, "second", index)
    await index.delete(one)
    assert await found(one) is None
    assert await found(other) is None
    assert await found(await opened()) is None


async def test_a_search_through_one_gateway_tells_all_of_a_replacement(
    opened: Opened, index: Index
) -> None:
    one, other = await opened(), await opened()
    await shared(one, other, "withdrawn", index)
    index.revisions["c"] += 1
    one.learn(index.of(BASE))

    async def gone() -> bool:
        return await found(other) is None

    await until(gone)


async def test_a_deletion_leaves_other_collections_alone(opened: Opened, index: Index) -> None:
    one, other = await opened(), await opened()
    await shared(one, other, "kept", index, question(collections=("d",)))
    await shared(one, other, "gone", index, question(collections=("c", "d")))
    await index.delete(other)
    assert await found(one, question(collections=("d",))) == "kept"
    assert await found(one, question(collections=("c", "d"))) is None


async def test_an_answer_in_the_making_during_a_deletion_elsewhere_is_not_given(
    opened: Opened, index: Index
) -> None:
    one, other = await opened(), await opened()
    await shared(one, other, "first", index)
    before = index.of(BASE)
    await index.delete(other)
    keep_at(one, "holds what was deleted", before)
    await asyncio.sleep(0.1)
    for cache in (one, other, await opened()):
        assert await found(cache) is None


async def test_an_answer_from_before_a_deletion_does_not_push_out_one_from_after_it(
    opened: Opened, index: Index
) -> None:
    one, other, third = await opened(), await opened(), await opened()
    await shared(one, other, "first", index)
    before = index.of(BASE)
    await index.delete(other)
    await shared(other, third, "clean", index)
    keep_at(one, "holds what was deleted", before)
    await asyncio.sleep(0.1)
    assert await found(third) == "clean"


async def test_a_deletion_while_redis_hangs_takes_no_longer_than_a_call(
    redis_server: RedisServer, opened: Opened, index: Index
) -> None:
    one = await opened(call_s=CALL_S)
    redis_server.stop()
    # Redis is stopped: whoever waits for it, waits for ever.
    async with asyncio.timeout(20):
        await index.delete(one)


async def test_a_deletion_that_redis_could_not_be_told_is_told_later(
    redis_server: RedisServer, opened: Opened, index: Index
) -> None:
    one, other = await opened(), await opened()
    await shared(one, other, "first", index)
    await redis_server.do(REFUSE_WRITES)
    await index.delete(one)
    assert await found(other) == "first"
    await redis_server.do(TAKE_WRITES)

    async def gone() -> bool:
        return await found(other) is None

    await until(gone)


async def test_a_gateway_reads_nothing_from_a_redis_that_it_has_yet_to_tell_of_a_deletion(
    redis_server: RedisServer, opened: Opened, index: Index
) -> None:
    one, other = await opened(), await opened()
    await shared(one, other, "first", index)
    await redis_server.do(REFUSE_WRITES)
    await index.delete(one)
    assert await found(one) is None


async def test_a_flush_loses_answers_and_nothing_else(
    redis_server: RedisServer, opened: Opened, index: Index
) -> None:
    one, other = await opened(), await opened()
    await shared(one, other, "first", index)
    await redis_server.do("FLUSHALL")
    assert await found(other) is None
    assert await found(one) == "first"
    await shared(one, other, "second", index)


@pytest.mark.parametrize("fault", ["killed", "stopped"])
async def test_without_redis_a_gateway_gives_its_own_answers_at_once(
    redis_server: RedisServer, opened: Opened, index: Index, fault: str
) -> None:
    one = await opened(call_s=CALL_S)
    keep(one, "own", index)
    if fault == "killed":
        redis_server.kill()
    else:
        redis_server.stop()
    took_s = []
    for _ in range(30):
        begun = time.monotonic()
        own = await found(one)
        took_s.append(time.monotonic() - begun)
    assert own == "own"
    # Few wait for a call that times out, until Redis counts as away.
    assert sum(took >= CALL_S for took in took_s) <= 8


async def test_keeping_an_answer_never_waits_for_redis(
    redis_server: RedisServer, opened: Opened, index: Index
) -> None:
    one = await opened(call_s=2)
    redis_server.stop()
    took_s = []
    for number in range(10 * WAITING_WRITES):
        begun = time.monotonic()
        keep(one, "x" * 20_000, index, question(str(number)))
        took_s.append(time.monotonic() - begun)
        await asyncio.sleep(0)
    assert max(took_s) < 2, "one of them waited for a call"
    assert one._shared is not None
    assert one._shared._writes.qsize() == WAITING_WRITES
    redis_server.go_on()


@pytest.mark.parametrize("ingester_is_up", [True, False])
@pytest.mark.parametrize("seed", range(3))
async def test_what_was_deleted_never_comes_back_whatever_happens_when(
    redis_server: RedisServer, opened: Opened, index: Index, seed: int, ingester_is_up: bool
) -> None:
    """Three gateways ask, answer and delete at random.

    Redis is flushed in between where there is an ingester. Without it, what one gateway deleted is
    lost to the others with Redis's memory.

    An answer's content is the number of deletions before its passages were read. Once a deletion
    is over, no gateway may give content from before it.
    """
    chance = random.Random(seed)
    index.ingester_is_up = ingester_is_up
    caches = [await opened() for _ in range(3)]
    making: list[tuple[AnswerCache, Query, dict[str, int]]] = []
    hits = 0
    for _ in range(600):
        cache = chance.choice(caches)
        query = question(str(chance.randrange(3)), chance.choice([["c"], ["d"], ["c", "d"]]))
        match chance.choices(["ask", "answer", "delete", "get", "flush"], [8, 8, 1, 8, 0.1])[0]:
            case "ask":
                making.append((cache, query, index.of(query)))
            case "answer" if making:
                answering, asked, told = making.pop(chance.randrange(len(making)))
                keep_at(answering, str(told), told, asked)
            case "delete":
                await index.delete(cache, chance.choice(["c", "d"]))
            case "get":
                stale = await found(cache, query)
                assert stale in (None, str(index.of(query)))
                hits += stale is not None
            case "flush" if ingester_is_up:
                await redis_server.do("FLUSHALL")
    assert hits > 10
    assert cache._shared is not None
    assert cache._shared._redis.state is State.CLOSED
