"""Answers that gateways share through a Redis, and what was deleted: it never comes back."""

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
from raglan.resilience.breaker import State
from raglan.v1 import retriever_pb2
from raglan_gateway.api.schemas import SearchReply
from raglan_gateway.query import Query
from raglan_gateway.shared.answer_cache import AnswerCache, Place
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


@pytest.fixture
async def opened(redis_server: RedisServer) -> AsyncIterator[Opened]:
    """Makes the cache of one more gateway."""
    async with AsyncExitStack() as stack:

        async def open_one(keep_s: float = 600, call_s: float = 2) -> AnswerCache:
            link = RedisLink(redis_server.url, call_s=call_s)
            stack.push_async_callback(link.close)
            cache = AnswerCache(keep_s, link)
            stack.push_async_callback(cache.close)
            return cache

        yield open_one


def question(text: str = "a question", collections: Sequence[str] = ("c",)) -> Query:
    return dataclasses.replace(BASE, text=text, collections=tuple(collections))


def place(cache: AnswerCache, query: Query = BASE) -> Place:
    return cache.place(query, generate=True)


def reply(content: str) -> SearchReply:
    return SearchReply(passages=[], degraded=[], timings_ms={}, trace_id=content)


async def given_again(cache: AnswerCache, query: Query = BASE) -> str | None:
    kept = await cache.get(place(cache, query))
    return json.loads(kept.body)["trace_id"] if kept else None


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await true():
            await asyncio.sleep(0.005)


async def shared(one: AnswerCache, other: AnswerCache, content: str, query: Query = BASE) -> None:
    """Have `one` answer until `other` finds it: the first answer only learns the generations."""

    async def found() -> bool:
        one.put(place(one, query), reply(content))
        return await given_again(other, query) == content

    await until(found)


async def test_another_gateway_finds_an_answer_and_its_age(opened: Opened) -> None:
    one, other = await opened(), await opened()
    await shared(one, other, "first")
    begun = time.monotonic()
    await asyncio.sleep(0.05)
    kept = await other.get(place(other))
    assert kept is not None
    assert 0.05 <= kept.age_s <= time.monotonic() - begun + 1


async def test_an_answer_outlives_the_gateway_that_gave_it(opened: Opened) -> None:
    one = await opened()
    await shared(one, await opened(), "first")
    await one.close()
    assert await given_again(await opened()) == "first"


async def test_redis_forgets_an_answer_by_itself(redis_server: RedisServer, opened: Opened) -> None:
    one, other = await opened(keep_s=0.3), await opened(keep_s=0.3)
    await shared(one, other, "first")

    async def gone() -> bool:
        return "raglan:answer" not in (await redis_server.do("KEYS *"))

    await until(gone)
    assert await given_again(other) is None


async def test_what_another_gateway_keeps_for_longer_is_too_old_here(opened: Opened) -> None:
    one, strict = await opened(keep_s=600), await opened(keep_s=0.2)
    await shared(one, await opened(), "first")
    await asyncio.sleep(0.4)
    assert await given_again(strict) is None
    assert await given_again(await opened()) == "first"


async def test_redis_holds_no_question(redis_server: RedisServer, opened: Opened) -> None:
    await shared(await opened(), await opened(), "first", question("somebody's words"))
    assert "somebody" not in (await redis_server.do("KEYS *"))


async def test_a_deletion_through_one_gateway_counts_in_all(opened: Opened) -> None:
    one, other = await opened(), await opened()
    await shared(one, other, "first")
    await shared(other, one, "second")
    await one.invalidate("c")
    assert await given_again(one) is None
    assert await given_again(other) is None
    assert await given_again(await opened()) is None


async def test_a_deletion_leaves_other_collections_alone(opened: Opened) -> None:
    one, other = await opened(), await opened()
    await shared(one, other, "kept", question(collections=("d",)))
    await shared(one, other, "gone", question(collections=("c", "d")))
    await other.invalidate("c")
    assert await given_again(one, question(collections=("d",))) == "kept"
    assert await given_again(one, question(collections=("c", "d"))) is None


async def test_an_answer_in_the_making_during_a_deletion_elsewhere_is_not_shared(
    opened: Opened,
) -> None:
    one, other = await opened(), await opened()
    await shared(one, other, "first")
    before = place(one)
    await other.invalidate("c")
    one.put(before, reply("holds what was deleted"))
    await asyncio.sleep(0.1)
    for cache in (one, other, await opened()):
        assert await given_again(cache) is None


async def test_an_answer_from_before_a_deletion_does_not_push_out_one_from_after_it(
    opened: Opened,
) -> None:
    one, other, third = await opened(), await opened(), await opened()
    await shared(one, other, "first")
    before = place(one)
    await other.invalidate("c")
    await shared(other, third, "clean")
    one.put(before, reply("holds what was deleted"))
    await asyncio.sleep(0.1)
    assert await given_again(third) == "clean"


async def test_a_deletion_while_redis_hangs_takes_no_longer_than_a_call(
    redis_server: RedisServer, opened: Opened
) -> None:
    one = await opened(call_s=CALL_S)
    redis_server.stop()
    # Redis is stopped: whoever waits for it, waits for ever.
    async with asyncio.timeout(20):
        await one.invalidate("c")


async def test_a_deletion_that_redis_could_not_be_told_is_told_later(
    redis_server: RedisServer, opened: Opened
) -> None:
    one, other = await opened(), await opened()
    await shared(one, other, "first")
    await redis_server.do(REFUSE_WRITES)
    await one.invalidate("c")
    assert await given_again(other) == "first"
    await redis_server.do(TAKE_WRITES)

    async def gone() -> bool:
        return await given_again(other) is None

    await until(gone)


async def test_a_gateway_reads_nothing_from_a_redis_that_it_has_yet_to_tell_of_a_deletion(
    redis_server: RedisServer, opened: Opened
) -> None:
    one, other = await opened(), await opened()
    await shared(one, other, "first")
    await redis_server.do(REFUSE_WRITES)
    await one.invalidate("c")
    assert await given_again(one) is None


async def test_a_flush_loses_answers_and_nothing_else(
    redis_server: RedisServer, opened: Opened
) -> None:
    one, other = await opened(), await opened()
    await shared(one, other, "first")
    await redis_server.do("FLUSHALL")
    assert await given_again(other) is None
    await shared(one, other, "second")


@pytest.mark.parametrize("fault", ["killed", "stopped"])
async def test_without_redis_a_gateway_gives_its_own_answers_at_once(
    redis_server: RedisServer, opened: Opened, fault: str
) -> None:
    one = await opened(call_s=CALL_S)
    one.put(place(one), reply("own"))
    if fault == "killed":
        redis_server.kill()
    else:
        redis_server.stop()
    took_s = []
    for _ in range(30):
        begun = time.monotonic()
        found = await given_again(one)
        took_s.append(time.monotonic() - begun)
    assert found == "own"
    # Few wait for a call that times out, until Redis counts as away.
    assert sum(took >= CALL_S for took in took_s) <= 8


async def test_keeping_an_answer_never_waits_for_redis(
    redis_server: RedisServer, opened: Opened
) -> None:
    one = await opened(call_s=2)
    redis_server.stop()
    took_s = []
    for number in range(10 * WAITING_WRITES):
        begun = time.monotonic()
        one.put(place(one, question(str(number))), reply("x" * 20_000))
        took_s.append(time.monotonic() - begun)
        await asyncio.sleep(0)
    assert max(took_s) < 2, "one of them waited for a call"
    assert one._shared is not None
    assert one._shared._writes.qsize() == WAITING_WRITES
    redis_server.go_on()


@pytest.mark.parametrize("seed", range(3))
async def test_what_was_deleted_never_comes_back_whatever_happens_when(
    redis_server: RedisServer, opened: Opened, seed: int
) -> None:
    """Three gateways ask, answer and delete at random; Redis is flushed in between.

    An answer's content is the number of deletions before its passages were read. Once a deletion
    is over, no gateway may give content from before it.
    """
    chance = random.Random(seed)
    caches = [await opened() for _ in range(3)]
    deletions = {"c": 0, "d": 0}
    making: list[tuple[AnswerCache, Place, str]] = []
    found = 0
    for _ in range(600):
        cache = chance.choice(caches)
        query = question(str(chance.randrange(3)), chance.choice([["c"], ["d"], ["c", "d"]]))
        match chance.choices(["ask", "answer", "delete", "get", "flush"], [8, 8, 1, 8, 0.1])[0]:
            case "ask":
                taken = place(cache, query)
                content = " ".join(f"{name}{deletions[name]}" for name in query.collections)
                making.append((cache, taken, content))
            case "answer" if making:
                answering, taken, content = making.pop(chance.randrange(len(making)))
                answering.put(taken, reply(content))
            case "delete":
                name = chance.choice(["c", "d"])
                deletions[name] += 1
                await cache.invalidate(name)
            case "get":
                content = " ".join(f"{name}{deletions[name]}" for name in query.collections)
                kept = await given_again(cache, query)
                assert kept in (None, content)
                found += kept is not None
            case "flush":
                await redis_server.do("FLUSHALL")
    assert found > 10
    assert cache._shared is not None
    assert cache._shared._redis.state is State.CLOSED
