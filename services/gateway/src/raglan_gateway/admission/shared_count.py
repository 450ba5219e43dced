"""Counts of all gateways together, in Redis: rates, and leases of requests in progress.

A lease ends by itself, so that a gateway which is killed gives its places back; one that lives
renews the leases of its requests, all of them at once.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

import structlog
from raglan.background import keep_running
from raglan.errors import Unavailable

from raglan_gateway.admission.local_count import MINUTE_US
from raglan_gateway.shared.redis_link import RedisLink

log: Final = structlog.get_logger()

LEASE_S: Final = 15.0
"""After it, a request of a gateway that died takes no place any more."""

_RENEWALS: Final = 4
"""Renewals of a lease in its time."""

_MOST_RELEASES: Final = 10_000

# Time is Redis's own, the same for all gateways. Requests are never paid for more than a minute
# ahead; who seems to be was counted before that clock was put back. Tokens may be owed for an hour.
# KEYS: requests, leases, tokens. ARGV: interval of a request (0: no limit), most leases (0: no
# limit), interval of a token (0: no limit), tokens to reserve, the lease, its milliseconds.
# Reply: the quota that refuses (0: none), the wait, requests left, leases left, tokens left.
_ADMIT: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local minute, hour = 60000000, 3600000000
local every, most, token = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local function ahead(key, limit)
  local paid = tonumber(redis.call('GET', key) or now)
  if paid < now or paid > now + limit then return 0 end
  return paid - now
end
local function pay(key, us)
  redis.call('SET', key, string.format('%.0f', now + us), 'PX', math.ceil(us / 1000))
end
local requests, held, tokens = 0, 0, 0
local refused, wait = 0, 0
if every > 0 then
  requests = ahead(KEYS[1], minute) + every
  if requests > minute then refused, wait = 1, requests - minute end
end
if token > 0 then
  tokens = ahead(KEYS[3], hour) + token * tonumber(ARGV[4])
  if tokens > minute and tokens - minute > wait then refused, wait = 3, tokens - minute end
end
if most > 0 then
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
  held = redis.call('ZCARD', KEYS[2])
  if held >= most and refused == 0 then refused, wait = 2, 1000000 end
end
if refused == 0 then
  if every > 0 then pay(KEYS[1], requests) end
  if token > 0 then pay(KEYS[3], tokens) end
  if most > 0 then
    redis.call('ZADD', KEYS[2], now + ARGV[6] * 1000, ARGV[5])
    redis.call('PEXPIRE', KEYS[2], ARGV[6])
    held = held + 1
  end
end
local function left(us, unit)
  if unit == 0 then return 0 end
  return math.floor(math.max(0, minute - us) / unit)
end
return {refused, wait, left(requests, every), math.max(0, most - held), left(tokens, token)}
"""

# KEYS: of tokens. ARGV: interval of a token, tokens: below 0, they are given back.
_SETTLE: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local paid = math.max(now, tonumber(redis.call('GET', KEYS[1]) or now))
paid = math.min(paid + ARGV[1] * ARGV[2], now + 3600000000)
if paid <= now then return redis.call('DEL', KEYS[1]) end
redis.call('SET', KEYS[1], string.format('%.0f', paid), 'PX', math.ceil((paid - now) / 1000))
"""

_RELEASE: Final = "for i = 1, #KEYS do redis.call('ZREM', KEYS[i], ARGV[i]) end"

_RENEW: Final = """
local time = redis.call('TIME')
local until_ = time[1] * 1000000 + time[2] + ARGV[1] * 1000
for i = 1, #KEYS do
  redis.call('ZADD', KEYS[i], 'XX', until_, ARGV[i + 1])
  redis.call('PEXPIRE', KEYS[i], ARGV[1])
end
"""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The reply of Redis to one request."""

    refused: int
    """0: none; 1: requests, 2: concurrent requests, 3: tokens."""
    wait_s: float
    requests_left: int
    concurrent_left: int
    tokens_left: int


class SharedCount:
    """Quotas in one Redis. Make it inside a running event loop; close it.

    Args:
        redis: not owned.
        lease_s: time for which the place of a request is held without renewal.
    """

    def __init__(self, redis: RedisLink, *, lease_s: float = LEASE_S) -> None:
        self._redis = redis
        self._lease_ms = int(lease_s * 1e3)
        self._held: dict[str, str] = {}
        """Leases of this gateway's requests, with the key that each is under."""
        self._ended: dict[str, str] = {}
        self._debts: dict[str, tuple[int, int]] = {}
        self._more = asyncio.Event()
        self._tasks = (
            asyncio.create_task(keep_running("settle quotas", self._settle_all)),
            asyncio.create_task(keep_running("renew leases", self._renew_all)),
        )

    async def close(self) -> None:
        """Stop. Leases that are left end by themselves."""
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)

    async def admit(
        self, owner: str, lease: str, requests: int, concurrent: int, tokens: int, reserved: int
    ) -> Verdict:
        """Count a request of `owner`, unless a quota refuses it.

        Args:
            owner: digest of who is counted.
            lease: id of the request.
            requests: a minute; 0 for no limit, as of the others.
            concurrent: requests in progress.
            tokens: a minute.
            reserved: tokens that the request takes until `settle`.

        Raises:
            Unavailable: no Redis.
        """
        held = f"raglan:held:{owner}"
        reply = await self._redis.run(
            _ADMIT,
            [f"raglan:rate:{owner}", held, f"raglan:tokens:{owner}"],
            MINUTE_US // requests if requests else 0,
            concurrent,
            MINUTE_US // tokens if tokens else 0,
            reserved,
            lease,
            self._lease_ms,
        )
        verdict = Verdict(reply[0], reply[1] / 1e6, *reply[2:])
        if concurrent and not verdict.refused:
            self._held[lease] = held
        return verdict

    def release(self, lease: str) -> None:
        """Give the place of a request back, soon."""
        if (held := self._held.pop(lease, None)) and len(self._ended) < _MOST_RELEASES:
            self._ended[lease] = held
            self._more.set()

    def settle(self, owner: str, tokens: int, per_minute: int) -> None:
        """Charge tokens besides those that were reserved, soon; below 0 they are given back."""
        key = f"raglan:tokens:{owner}"
        waiting = self._debts.get(key, (0, 0))[0]
        self._debts[key] = (waiting + tokens, MINUTE_US // per_minute)
        self._more.set()

    async def _settle_all(self) -> None:
        while True:
            await self._more.wait()
            self._more.clear()
            ended, self._ended = self._ended, {}
            debts, self._debts = self._debts, {}
            try:
                if ended:
                    await self._redis.run(_RELEASE, list(ended.values()), *ended)
                for key, (tokens, interval_us) in debts.items():
                    await self._redis.run(_SETTLE, [key], interval_us, tokens)
            except Unavailable as error:
                # Leases end by themselves, and what this gateway counts it knows itself.
                log.debug("quotas are not settled", reason=error.message)

    async def _renew_all(self) -> None:
        while True:
            await asyncio.sleep(self._lease_ms / 1e3 / _RENEWALS)
            held = dict(self._held)
            if not held:
                continue
            try:
                await self._redis.run(_RENEW, list(held.values()), self._lease_ms, *held)
            except Unavailable as error:
                log.debug("leases are not renewed", reason=error.message)
