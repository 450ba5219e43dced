"""Several gateways count together while Redis is there, and each for itself while it is not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from raglan.cache import digest
from raglan.errors import Overloaded, Unavailable
from raglan_gateway.admission.quotas import Quotas, RouteGroup
from raglan_gateway.admission.rate_limit import RESERVED_TOKENS, RateLimit, RateLimited, spend
from raglan_gateway.admission.shared_count import SharedCount
from raglan_gateway.shared.redis_link import BREAKER, RedisLink

if TYPE_CHECKING:
    from conftest import RedisServer

LIMIT = 20


@pytest.fixture
async def links(redis_server: RedisServer) -> AsyncIterator[list[RedisLink]]:
    """Those of two gateways, patient enough for a busy machine."""
    made = [RedisLink(redis_server.url, call_s=2), RedisLink(redis_server.url, call_s=2)]
    yield made
    for link in made:
        await link.close()


@pytest.fixture
async def counts(links: list[RedisLink]) -> AsyncIterator[list[SharedCount]]:
    made = [SharedCount(link) for link in links]
    yield made
    for count in made:
        await count.close()


@pytest.fixture
async def gateways(counts: list[SharedCount]) -> list[RateLimit]:
    return [RateLimit(count) for count in counts]


def quota(limit: int = LIMIT, owner: str = "a") -> Quotas:
    return Quotas(owner, RouteGroup.READ, requests=limit)


def key(owner: str = "a") -> str:
    return f"raglan:rate:{digest(owner, RouteGroup.READ).hex()}"


@asynccontextmanager
async def single(link: RedisLink) -> AsyncIterator[RateLimit]:
    """One gateway over `link`, which ends with the block."""
    count = SharedCount(link)
    yield RateLimit(count)
    await count.close()
    await link.close()


async def admitted(limit: RateLimit, requests: int, caller: str = "a") -> int:
    """How many of so many passed, one after the other."""
    passed = 0
    for _ in range(requests):
        try:
            await limit.enter(quota(owner=caller))
        except Overloaded:
            continue
        passed += 1
    return passed


class Allowed:
    """How many may pass from the moment it is made: `most`, and what time gives back since."""

    def __init__(self, most: int = LIMIT) -> None:
        self._most = most
        self._begun = time.monotonic()

    def __eq__(self, passed: object) -> bool:
        assert isinstance(passed, int)
        returned = int((time.monotonic() - self._begun) * LIMIT / 60)
        return self._most <= passed <= self._most + returned

    def __repr__(self) -> str:
        return f"{self._most} and {LIMIT} a minute since"


async def test_two_gateways_share_one_limit(gateways: list[RateLimit]) -> None:
    one, other = gateways
    allowed = Allowed()
    assert await admitted(one, 15) == 15
    assert 15 + await admitted(other, 15) == allowed


async def test_requests_at_the_same_time_pass_no_more_than_the_limit(
    gateways: list[RateLimit],
) -> None:
    allowed = Allowed()
    passed = await asyncio.gather(*(admitted(gateways[i % 2], 4) for i in range(20)))
    assert sum(passed) == allowed


async def test_the_wait_that_redis_tells_is_the_one_that_helps(gateways: list[RateLimit]) -> None:
    one, other = gateways
    for _ in range(60):
        await one.enter(quota(60))
    with pytest.raises(Overloaded) as caught:
        while True:
            await other.enter(quota(60))
    wait_s = caught.value.retry_after_s
    assert wait_s is not None
    assert 0 < wait_s <= 1
    await asyncio.sleep(wait_s)
    await other.enter(quota(60))


async def test_redis_holds_no_address(redis_server: RedisServer, gateways: list[RateLimit]) -> None:
    await gateways[0].enter(quota(owner="192.0.2.7"))
    assert "192.0.2.7" not in (await redis_server.do("KEYS *"))
    assert "raglan:rate:" in (await redis_server.do("KEYS *"))


async def test_what_redis_counts_goes_away_by_itself(
    redis_server: RedisServer, gateways: list[RateLimit]
) -> None:
    await gateways[0].enter(quota())
    reply = await redis_server.do(f"PTTL {key()}")
    assert 0 < int(reply.splitlines()[0].removeprefix(":")) <= 60_000 / LIMIT


async def test_after_a_flush_each_gateway_still_knows_whom_it_let_pass(
    redis_server: RedisServer, gateways: list[RateLimit]
) -> None:
    one, other = gateways
    allowed = Allowed()
    passed = await admitted(one, LIMIT)
    await redis_server.do("FLUSHALL")
    assert passed + await admitted(one, 5) == allowed
    assert await admitted(other, 5) == 5


class CountingLink(RedisLink):
    """Counts the calls that Redis left without a reply in time; the others did not wait for it."""

    unanswered = 0

    async def run(self, script: str, keys: Sequence[str], *args: bytes | str | int) -> Any:
        try:
            return await super().run(script, keys, *args)
        except Unavailable as error:
            # What this process noticed too late says nothing of Redis.
            waited = "not used" not in error.message and "too busy" not in error.message
            self.unanswered += waited
            raise


@pytest.mark.parametrize("fault", ["killed", "stopped"])
async def test_without_redis_each_gateway_counts_for_itself_and_nobody_fails(
    redis_server: RedisServer, fault: str
) -> None:
    link = CountingLink(redis_server.url)
    async with single(link) as limit:
        allowed = Allowed()
        assert await admitted(limit, 5) == 5
        if fault == "killed":
            redis_server.kill()
        else:
            redis_server.stop()
        assert 5 + await admitted(limit, 40) == allowed
        assert link.unanswered <= BREAKER.consecutive


async def test_a_burst_into_a_redis_that_hangs_passes_no_more_than_the_limit(
    redis_server: RedisServer,
) -> None:
    async with single(RedisLink(redis_server.url)) as limit:
        redis_server.stop()
        allowed = Allowed()
        passed = await asyncio.gather(*(admitted(limit, 1) for _ in range(200)))
        assert sum(passed) == allowed


async def test_nobody_is_locked_out_when_the_clock_of_redis_is_put_back(
    redis_server: RedisServer, gateways: list[RateLimit]
) -> None:
    allowed = Allowed()
    paid_until_us = int((time.time() + 3_600) * 1e6)
    await redis_server.do(f"SET {key()} {paid_until_us}")
    assert await admitted(gateways[0], LIMIT + 5) == allowed


ANSWERS = Quotas("a", RouteGroup.ANSWER, concurrent=2, tokens=10 * RESERVED_TOKENS)


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await true():
            await asyncio.sleep(0.01)


async def passes(limit: RateLimit, quotas: Quotas = ANSWERS) -> bool:
    """Return whether a request passes, without writing anything."""
    try:
        request = await limit.enter(quotas)
    except RateLimited:
        return False
    spend(0)
    limit.leave(request)
    return True


async def test_requests_in_progress_count_in_all_gateways(gateways: list[RateLimit]) -> None:
    one, other = gateways
    first, second = await one.enter(ANSWERS), await other.enter(ANSWERS)
    assert not await passes(one)
    assert not await passes(other)
    one.leave(first)
    await until(lambda: passes(other))
    other.leave(second)


async def test_the_places_of_a_gateway_that_died_come_back(
    links: list[RedisLink], gateways: list[RateLimit]
) -> None:
    dead = SharedCount(links[0], lease_s=0.3)
    one = RateLimit(dead)
    await one.enter(ANSWERS)
    await one.enter(ANSWERS)
    await dead.close()
    await until(lambda: passes(gateways[1]))


async def test_a_lease_is_renewed_while_its_request_runs(
    links: list[RedisLink], gateways: list[RateLimit]
) -> None:
    count = SharedCount(links[0], lease_s=2)
    one = RateLimit(count)
    try:
        await one.enter(ANSWERS)
        await one.enter(ANSWERS)
        await asyncio.sleep(2.5)
        assert not await passes(gateways[1])
    finally:
        await count.close()


async def test_tokens_are_owed_to_all_gateways(gateways: list[RateLimit]) -> None:
    one, other = gateways
    request = await one.enter(ANSWERS)
    spend(100 * RESERVED_TOKENS)
    one.leave(request)

    async def refused() -> bool:
        return not await passes(other)

    await until(refused)


async def test_a_redis_killed_in_the_middle_leaves_local_quotas(
    redis_server: RedisServer,
) -> None:
    async with single(RedisLink(redis_server.url)) as limit:
        first = await limit.enter(ANSWERS)
        redis_server.kill()
        second = await limit.enter(ANSWERS)
        assert not await passes(limit)
        limit.leave(first)
        limit.leave(second)
        assert await passes(limit)
