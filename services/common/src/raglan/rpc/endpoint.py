"""One replica of a service: its channel, health, breaker and calls in flight."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from enum import StrEnum
from typing import Any, Final

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc

from raglan import tenancy
from raglan.background import keep_running
from raglan.resilience.breaker import CircuitBreaker, State
from raglan.resilience.latency import DecayingMean
from raglan.rpc import client, credentials, health_service, tenant_calls

log: Final = structlog.get_logger()

_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 1.0
_WITHOUT_HEALTH_S: Final = 5.0
_SETTLED_S: Final = 1.0
"""A stream of its health that lasted so long is followed by another without a pause."""
_JUDGE_S: Final = 1.0
"""For so long after the end of such a stream, what was said last stands."""
_REPLACED_S: Final = 60.0
"""For the calls of a channel whose certificates were replaced."""


class Reach(StrEnum):
    """Reachability of a replica."""

    CONNECTING = "connecting"
    """Not known yet."""
    SERVING = "serving"
    NOT_SERVING = "not_serving"
    UNREACHABLE = "unreachable"


class Endpoint:
    """Follows the health of one address for as long as it is open.

    Args:
        target: the service's name, e.g. "embedder".
        stub: makes the service's stub.
        on_change: called when `reach` or the breaker's state has changed.
    """

    def __init__(
        self,
        target: str,
        address: str,
        stub: Callable[[grpc.aio.Channel], Any],
        on_change: Callable[[Endpoint], None],
    ) -> None:
        self.address = address
        self.reach = Reach.CONNECTING
        self.in_flight = 0
        self.latency = DecayingMean()
        """Until its replies, or their first messages, came."""
        self.last_failure = ""
        """Message of the last failure."""
        self.breaker = CircuitBreaker(on_change=lambda _: on_change(self))
        self._on_change = on_change
        self._target = target
        self._make_stub = stub
        self._closing: set[asyncio.Task[None]] = set()
        self._connect()
        self._service = health_service.name_of(target)
        name = f"watch {target} {address}"
        self._watching = asyncio.create_task(keep_running(name, self._watch), name=name)

    @property
    def channel(self) -> grpc.aio.Channel:
        """For contracts that every service answers beside its own."""
        return self._channel

    @property
    def cost(self) -> int:
        """Load-balancing cost, lower first: calls in flight plus recent failures.

        Without the failures, a replica that fails at once would look idle and draw all traffic.

        """
        return 1 + self.in_flight + self.breaker.failures

    @property
    def ejected(self) -> bool:
        """True while its breaker is open."""
        return self.breaker.state is State.OPEN

    def method(self, name: str) -> Callable[..., Any]:
        """Return the rpc of this name, as the current tenant calls it."""
        found: Callable[..., Any] = getattr(
            self._tenant_stub if tenancy.current() else self.stub, name
        )
        return found

    async def close(self, grace_s: float | None = None) -> None:
        """Stop following it and close the channel; its calls get `grace_s` to end."""
        self._watching.cancel()
        await asyncio.wait((self._watching,))
        for task in self._closing:
            task.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)
        await self._channel.close(grace_s)

    def _connect(self) -> None:
        self._certificates = credentials.material()
        self._channel = client.connect(self.address, target=self._target)
        self.stub = self._make_stub(self._channel)
        self._tenant_stub = self.stub
        if self._target in tenant_calls.KEEPERS:
            of_tenants: Any = tenant_calls.TenantChannel(self._channel)
            self._tenant_stub = self._make_stub(of_tenants)
        self._health: Any = health_pb2_grpc.HealthStub(self._channel)

    def _renew(self) -> None:
        """Begin a new channel where the certificates are others now: an open one keeps its own."""
        if credentials.material() is not self._certificates:
            old = asyncio.create_task(self._channel.close(_REPLACED_S))
            self._closing.add(old)
            old.add_done_callback(self._closing.discard)
            self._connect()

    async def _watch(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            self._renew()
            began = time.monotonic()
            heard = await self._listen()
            if not heard:
                self._become(Reach.UNREACHABLE)
            elif time.monotonic() - began >= _SETTLED_S:
                # Proxies end long streams. A new check decides whether the replica is gone.
                pause_s = _FIRST_PAUSE_S
                continue
            await asyncio.sleep(random.uniform(pause_s / 2, pause_s))  # noqa: S311 - no secret
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _listen(self) -> bool:
        """Follow one stream of the replica's health to its end; whether it said anything.

        Asked by the service's name: an address may have passed to another service.
        """
        heard = False
        late = asyncio.get_running_loop().call_later(_JUDGE_S, self._judge)
        watch = self._health.Watch(health_pb2.HealthCheckRequest(service=self._service))
        try:
            async for reply in watch:
                late.cancel()
                heard = True
                self._on_status(reply.status)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                # It says nothing of its health: its calls have to tell.
                late.cancel()
                self._become(Reach.SERVING)
                await asyncio.sleep(_WITHOUT_HEALTH_S)
                return True
        finally:
            late.cancel()
            watch.cancel()
        return heard

    def _on_status(self, status: int) -> None:
        if status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN:
            log.warning("another service answers", address=self.address, wanted=self._service)
        serving = status == health_pb2.HealthCheckResponse.SERVING
        self._become(Reach.SERVING if serving else Reach.NOT_SERVING)

    def _judge(self) -> None:
        """It has not answered for a while. One that is not known yet may take longer."""
        if self.reach is not Reach.CONNECTING:
            self._become(Reach.UNREACHABLE)

    def _become(self, reach: Reach) -> None:
        if reach is not self.reach:
            self.reach = reach
            self._on_change(self)
