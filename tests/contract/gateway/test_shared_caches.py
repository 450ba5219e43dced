"""Cached values that three gateways share through a real Redis, also while it is killed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING

import pytest
from raglan_gateway.caches.entry import Layer
from raglan_gateway.caches.store import CacheStore, Place
from raglan_gateway.shared.redis_link import RedisLink

if TYPE_CHECKING:
    from conftest import RedisServer

PLACE: Place = (Layer.ANSWER, b"0123456789abcdef")
NAME = f"raglan:cache:answer:{PLACE[1].hex()}"
LIFETIMES = {Layer.EMBEDDING: 60.0, Layer.EVIDENCE: 60.0, Layer.ANSWER: 60.0}


@pytest.fixture
async def stores(redis_server: RedisServer) -> AsyncIterator[list[CacheStore]]:
    links = [RedisLink(redis_server.url, call_s=2) for _ in range(3)]
    made = [CacheStore(LIFETIMES, 100_000, link) for link in links]
    yield made
    for store, link in zip(made, links, strict=True):
        await store.close()
        await link.close()


async def held(store: CacheStore, place: Place = PLACE) -> bytes | None:
    (entry,) = await store.get([place])
    return entry.payload if entry else None


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await true():
            await asyncio.sleep(0.01)


async def share(stores: list[CacheStore], payload: bytes = b"an answer") -> None:
    """Have the first gateway keep a value, and wait until it is in Redis."""
    stores[0].put(PLACE, payload, 0.5)

    async def is_there() -> bool:
        return await held(stores[1]) == payload

    await until(is_there)


async def test_every_gateway_finds_what_one_made(stores: list[CacheStore]) -> None:
    await share(stores)
    (entry,) = await stores[2].get([PLACE])
    assert entry is not None
    assert (entry.payload, entry.cost_s) == (b"an answer", 0.5)


async def test_redis_forgets_a_value_at_the_end_of_its_time(
    redis_server: RedisServer, stores: list[CacheStore]
) -> None:
    await share(stores)
    left_ms = int((await redis_server.do(f"PTTL {NAME}")).splitlines()[0].removeprefix(":"))
    assert 0 < left_ms <= 60_000


@pytest.mark.parametrize("damage", ["SETRANGE {} 30 x", "SET {} x", "SETRANGE {} 0 RGC0"])
async def test_a_damaged_value_is_a_miss(
    redis_server: RedisServer, stores: list[CacheStore], damage: str
) -> None:
    await share(stores)
    await redis_server.do(damage.format(NAME))
    assert await held(stores[2]) is None
    assert stores[2].damaged == 1


async def test_a_value_of_another_type_is_a_miss(
    redis_server: RedisServer, stores: list[CacheStore]
) -> None:
    await redis_server.do(f"LPUSH {NAME} x")
    assert await held(stores[2]) is None


async def test_a_redis_killed_in_the_middle_costs_only_what_others_made(
    redis_server: RedisServer, stores: list[CacheStore]
) -> None:
    await share(stores)
    redis_server.kill()
    assert await held(stores[0]) == b"an answer"
    assert await held(stores[2]) is None
    other: Place = (Layer.EVIDENCE, b"another")
    stores[2].put(other, b"local", 0.1)
    assert await held(stores[2], other) == b"local"
    await redis_server.start_again()

    async def is_shared() -> bool:
        stores[0].put(PLACE, b"again", 0.5)
        return await held(stores[2]) == b"again"

    await until(is_shared)
