"""Rate limit of a caller in requests a minute, shared by all gateways through Redis.

The generic cell rate algorithm (ITU-T I.371): a caller's past requests are paid for until some
moment, each for another `interval`; a request whose own payment would end more than a minute from
now waits. So a minute's worth may come at once after a pause, and from then on one an interval:
over any t seconds at most `per_minute * (1 + t / 60)`. One number a caller, and the exact wait.

Each gateway also counts for itself what it lets pass. That is never more than all gateways count,
so whom it refuses is refused without a round trip; and when Redis is away or has lost its data, its
own count is what holds.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable
from typing import Final

from cachetools import TTLCache
from raglan.cache import digest
from raglan.errors import Overloaded, Unavailable

from raglan_gateway.shared.redis_link import RedisLink

MINUTE_US: Final = 60_000_000
MOST_PER_MINUTE: Final = 1_000_000
"""Above it, an interval in whole microseconds would be too coarse."""

CALLERS: Final = 20_000
"""Callers a gateway counts at a time; past that, those silent for longest start anew."""

# Time is Redis's own, the same for all gateways. Nobody is ever paid up for more than a minute
# ahead; who seems to be was counted before that clock was put back.
_ADMIT: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval, minute = tonumber(ARGV[1]), tonumber(ARGV[2])
local paid = tonumber(redis.call('GET', KEYS[1]) or now)
if paid < now or paid > now + minute then paid = now end
paid = paid + interval
local wait = paid - now - minute
if wait > 0 then return wait end
redis.call('SET', KEYS[1], string.format('%.0f', paid), 'PX', math.ceil((paid - now) / 1000))
return 0
"""


class LocalCount:
    """The algorithm for the callers of one gateway; `clock` is monotonic, in seconds."""

    def __init__(
        self, per_minute: int, *, callers: int = CALLERS, clock: Callable[[], float]
    ) -> None:
        self._interval_us = MINUTE_US // per_minute
        self._clock = clock
        # A minute after its last request a caller owes nothing, so forgetting changes nothing.
        self._paid_until_us: TTLCache[bytes, int] = TTLCache(callers, ttl=60, timer=clock)

    def __len__(self) -> int:
        """Callers counted."""
        return len(self._paid_until_us)

    def wait_s(self, caller: bytes) -> float:
        """Seconds until a request of `caller` may pass; 0 when it may now."""
        now = self._now_us()
        paid = max(now, self._paid_until_us.get(caller, now))
        return max(0, paid + self._interval_us - now - MINUTE_US) / 1e6

    def passed(self, caller: bytes) -> None:
        """Count a request of `caller`."""
        now = self._now_us()
        paid = max(now, self._paid_until_us.get(caller, now))
        # More than a minute's worth happens only in a race of many for the last one.
        self._paid_until_us[caller] = min(paid + self._interval_us, now + MINUTE_US)

    def _now_us(self) -> int:
        return int(self._clock() * 1e6)


class RateLimit:
    """Admits requests, or says how long to wait. 0 a minute admits all."""

    def __init__(
        self,
        per_minute: int,
        redis: RedisLink | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._per_minute = per_minute
        self._redis = redis
        self._local = LocalCount(per_minute, clock=clock) if per_minute else None

    async def admit(self, caller: str) -> None:
        """Count a request of `caller`: an address (see `caller_of`), an API key.

        Raises:
            Overloaded: the caller has to wait for `retry_after_s`; the request is not counted.
        """
        if self._local is None:
            return
        key = digest(caller)
        wait_s = self._local.wait_s(key)
        if wait_s == 0 and self._redis is not None:
            try:
                wait_s = await self._shared_wait_s(self._redis, key)
            except Unavailable:
                # Others of this caller may have passed meanwhile.
                wait_s = self._local.wait_s(key)
        if wait_s > 0:
            raise Overloaded(
                f"The limit is {self._per_minute} requests a minute; try again in {wait_s:.1f} s "
                "(RAGLAN_GATEWAY_RATE_LIMIT_PER_MINUTE).",
                retry_after_s=wait_s,
            )
        self._local.passed(key)

    async def _shared_wait_s(self, redis: RedisLink, key: bytes) -> float:
        interval_us = MINUTE_US // self._per_minute
        wait_us: int = await redis.run(_ADMIT, [f"raglan:rate:{key.hex()}"], interval_us, MINUTE_US)
        return wait_us / 1e6


def caller_of(address: str) -> str:
    """Return the key of a caller: an IPv4 address, or the /64 of an IPv6 subscriber."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    if ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return str(ipaddress.ip_network((ip, 64), strict=False))
