"""Several gateways count together while Redis is there, and each for itself while it is not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

import pytest
from raglan.cache import digest
from raglan.errors import Overloaded, Unavailable
from raglan_gateway.admission.rate_limit import RateLimit
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
async def gateways(links: list[RedisLink]) -> list[RateLimit]:
    return [RateLimit(LIMIT, link) for link in links]


async def admitted(limit: RateLimit, requests: int, caller: str = "a") -> int:
    """How many of so many passed, one after the other."""
    passed = 0
    for _ in range(requests):
        try:
            await limit.admit(caller)
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
    one, other = (RateLimit(60, gateway._redis) for gateway in gateways)
    assert await admitted(one, 60) == 60
    with pytest.raises(Overloaded) as caught:
        while True:
            await other.admit("a")
    wait_s = caught.value.retry_after_s
    assert wait_s is not None
    assert 0 < wait_s <= 1
    await asyncio.sleep(wait_s)
    await other.admit("a")


async def test_redis_holds_no_address(redis_server: RedisServer, gateways: list[RateLimit]) -> None:
    await gateways[0].admit("192.0.2.7")
    assert "192.0.2.7" not in (await redis_server.do("KEYS *"))
    assert "raglan:rate:" in (await redis_server.do("KEYS *"))


async def test_what_redis_counts_goes_away_by_itself(
    redis_server: RedisServer, gateways: list[RateLimit]
) -> None:
    await gateways[0].admit("a")
    reply = await redis_server.do(f"PTTL raglan:rate:{digest('a').hex()}")
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
    limit = RateLimit(LIMIT, link)
    try:
        allowed = Allowed()
        assert await admitted(limit, 5) == 5
        if fault == "killed":
            redis_server.kill()
        else:
            redis_server.stop()
        assert 5 + await admitted(limit, 40) == allowed
        assert link.unanswered <= BREAKER.consecutive
    finally:
        await link.close()


async def test_a_burst_into_a_redis_that_hangs_passes_no_more_than_the_limit(
    redis_server: RedisServer,
) -> None:
    link = RedisLink(redis_server.url)
    limit = RateLimit(LIMIT, link)
    try:
        redis_server.stop()
        allowed = Allowed()
        passed = await asyncio.gather(*(admitted(limit, 1) for _ in range(200)))
        assert sum(passed) == allowed
    finally:
        await link.close()


async def test_nobody_is_locked_out_when_the_clock_of_redis_is_put_back(
    redis_server: RedisServer, gateways: list[RateLimit]
) -> None:
    allowed = Allowed()
    paid_until_us = int((time.time() + 3_600) * 1e6)
    await redis_server.do(f"SET raglan:rate:{digest('a').hex()} {paid_until_us}")
    assert await admitted(gateways[0], LIMIT + 5) == allowed
