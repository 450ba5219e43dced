"""The replicas of a service: known, eligible now, and the choice among them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import grpc
import structlog

from raglan.background import keep_running
from raglan.deadline import Deadline
from raglan.errors import Unavailable
from raglan.resilience.breaker import Permit, State
from raglan.rpc.addresses import Addresses, Resolver
from raglan.rpc.endpoint import Endpoint, Reach

log: Final = structlog.get_logger()

_CONTACT_S: Final = 2.0
"""Time a call waits for the first health report of new replicas, in seconds."""

_FAR_SLOWER: Final = 3.0
_ALIKE_S: Final = 0.01
"""Differences below it are the machine's noise."""

_REMOVED_S: Final = 60.0
"""Time a removed replica has to finish its calls, in seconds."""


class NoEndpoint(Unavailable):
    """No replica accepts calls now; an immediate retry would fail too."""


class Replicas:
    """A channel to each, for as long as the list has it. Make it inside a running event loop.

    Args:
        target: the service's name, e.g. "embedder".
        addresses: see `Addresses.parse`.
        stub: makes the service's stub from a channel.
        name_servers: see `Resolver`.

    Raises:
            ValueError: `addresses` cannot be read.
    """

    def __init__(
        self,
        target: str,
        addresses: str,
        stub: Callable[[grpc.aio.Channel], Any],
        name_servers: Sequence[str] = (),
    ) -> None:
        self._target = target
        self._stub = stub
        self._endpoints: dict[str, Endpoint] = {}
        self._changed = asyncio.Event()
        self._closing: set[asyncio.Task[None]] = set()
        parsed = Addresses.parse(addresses)
        self.was_serving = False
        """True if any of them has ever served."""
        self._known = parsed.every_s is None
        self._resolver = Resolver(name_servers)
        self._replace(parsed.fixed)
        self._following = (
            None
            if parsed.every_s is None
            else asyncio.create_task(
                keep_running(f"find {target}", partial(self._follow, parsed, parsed.every_s))
            )
        )

    async def close(self) -> None:
        """Close every channel."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait((self._following,))
        await self._resolver.close()
        for task in self._closing:
            task.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)
        await asyncio.gather(*(endpoint.close() for endpoint in self._endpoints.values()))
        self._endpoints.clear()

    def __len__(self) -> int:
        """Number of known replicas."""
        return len(self._endpoints)

    @property
    def all(self) -> list[Endpoint]:
        """Every one that is known now, by address."""
        return [self._endpoints[address] for address in sorted(self._endpoints)]

    async def choose(self, tried: list[Endpoint], deadline: Deadline) -> tuple[Endpoint, Permit]:
        """One to ask, another than those `tried` where there is one.

        Raises:
            NoEndpoint: none takes calls.
        """
        contact = deadline.within(_CONTACT_S)
        while (chosen := self._pick(tried)) is None:
            await self._contact(contact)
        return chosen

    def _pick(self, tried: list[Endpoint]) -> tuple[Endpoint, Permit] | None:
        candidates, is_panic = self.candidates()
        untried = [endpoint for endpoint in candidates if endpoint not in tried] or candidates
        random.shuffle(untried)
        if is_panic:
            # Evenly: by cost or by permit the few that still work would get the traffic of all.
            breaker = untried[0].breaker
            return untried[0], breaker.permit() or breaker.bypass()
        for endpoint in (*_cheaper_first(untried[:2]), *untried[2:]):
            if permit := endpoint.breaker.permit():
                return endpoint, permit
        return None

    def candidates(self) -> tuple[list[Endpoint], bool]:
        """The eligible replicas, and whether breakers are disregarded (panic routing).

        At most half of a pool is kept out by breakers (of a pool of one, that one). If more than
        that is out, the breakers see a fault of something else, and all reachable replicas are
        eligible until enough of them have succeeded.
        """
        serving = [each for each in self._endpoints.values() if each.reach is Reach.SERVING]
        closed = [each for each in serving if each.breaker.state is State.CLOSED]
        out = len(self._endpoints) - len(closed)
        if len(closed) < len(serving) and out > max(1, len(self._endpoints) // 2):
            return serving, True
        return [each for each in serving if not each.ejected], False

    async def _contact(self, limit: Deadline) -> None:
        """Wait for news of replicas that nothing is known of yet; raise when all is known."""
        unknown = [each for each in self._endpoints.values() if each.reach is Reach.CONNECTING]
        if self._known and not unknown:
            raise self._nobody()
        try:
            async with asyncio.timeout(limit.remaining_s()):
                await self._changed.wait()
        except TimeoutError:
            raise self._nobody() from None

    def _nobody(self) -> NoEndpoint:
        resting = [each for each in self._endpoints.values() if each.reach is Reach.SERVING]
        if resting:
            first = min(resting, key=lambda each: each.breaker.retry_after_s())
            return NoEndpoint(
                f"{first.last_failure} After that, the {self._target} is left alone for a while.",
                retry_after_s=first.breaker.retry_after_s(),
            )
        return NoEndpoint(f"The {self._target} cannot be reached.", retry_after_s=1.0)

    async def _follow(self, addresses: Addresses, every_s: float) -> None:
        said: list[str] = []
        while True:
            try:
                found, problems = await self._resolver.resolve(addresses)
                self._replace(found)
            except (OSError, ValueError) as error:
                problems = [str(error)]  # The last good answer stands.
            self._known = True
            self._news()
            if problems and problems != said:
                log.warning("addresses unknown", target=self._target, reasons=problems)
            said = problems
            await asyncio.sleep(every_s)

    def _replace(self, addresses: frozenset[str]) -> None:
        """Open and close channels so that there is one for each of `addresses`."""
        for address in self._endpoints.keys() - addresses:
            closing = asyncio.create_task(self._endpoints.pop(address).close(_REMOVED_S))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
            log.info("endpoint removed", target=self._target, address=address)
        for address in addresses - self._endpoints.keys():
            endpoint = Endpoint(self._target, address, self._stub, self._heard)
            self._endpoints[address] = endpoint

    def _heard(self, endpoint: Endpoint) -> None:
        self.was_serving = self.was_serving or endpoint.reach is Reach.SERVING
        self._news()
        log.info(
            "endpoint",
            target=self._target,
            address=endpoint.address,
            reach=endpoint.reach.value,
            breaker=endpoint.breaker.state.value,
        )

    def _news(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _cheaper_first(pair: list[Endpoint]) -> list[Endpoint]:
    """Compare by calls in flight and, where one is far slower, by that times the latency.

    By work alone, who is forty times slower than the others still gets a fortieth of the calls,
    more than enough to be what the slowest hundredth of them waits for. By speed alone, the faster
    of two that are nearly alike would get everything.
    """
    if len(pair) < 2:
        return pair
    took_s = {each: each.latency.value_s() for each in pair}
    apart = max(took_s.values()) > _FAR_SLOWER * max(min(took_s.values()), _ALIKE_S)
    weighted = apart and all(took_s.values())
    return sorted(pair, key=lambda each: each.cost * (took_s[each] if weighted else 1.0))
