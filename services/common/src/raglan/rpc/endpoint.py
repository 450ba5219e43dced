"""One replica of a service: its channel, its health, its breaker, its work in hand."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from enum import StrEnum
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from raglan.resilience.breaker import CircuitBreaker, State
from raglan.resilience.latency import FadingMean
from raglan.rpc import client

_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 1.0
_WITHOUT_HEALTH_S: Final = 5.0


class Reach(StrEnum):
    """Whether a replica takes calls."""

    CONNECTING = "connecting"
    """Not known yet."""
    SERVING = "serving"
    NOT_SERVING = "not_serving"
    UNREACHABLE = "unreachable"


class Endpoint:
    """Follows the health of one address for as long as it is open."""

    def __init__(
        self,
        target: str,
        address: str,
        stub: Callable[[grpc.aio.Channel], Any],
        on_change: Callable[[Endpoint], None],
    ) -> None:
        """Args:
        target: the service's name, e.g. "embedder".
        stub: makes the service's stub.
        on_change: told when `reach` or the breaker's state has changed.
        """
        self.address = address
        self.reach = Reach.CONNECTING
        self.in_flight = 0
        self.latency = FadingMean()
        """Until its replies, or their first messages, came."""
        self.last_failure = ""
        """What went wrong last, as a sentence."""
        self.breaker = CircuitBreaker(on_change=lambda _: on_change(self))
        self._on_change = on_change
        self._channel = client.connect(address, target=target)
        self.stub = stub(self._channel)
        self._health: Any = health_pb2_grpc.HealthStub(self._channel)
        self._watching = asyncio.create_task(self._watch(), name=f"watch {target} {address}")

    @property
    def channel(self) -> grpc.aio.Channel:
        """For contracts that every service answers beside its own."""
        return self._channel

    @property
    def cost(self) -> int:
        """What a choice goes by, lower first: work in hand with the call to come, and failures
        lately, without which a replica that fails at once would look idle and draw all traffic.
        """
        return 1 + self.in_flight + self.breaker.failures

    @property
    def ejected(self) -> bool:
        """Whether its breaker is open."""
        return self.breaker.state is State.OPEN

    async def close(self, grace_s: float | None = None) -> None:
        """Stop following it and close the channel; its calls get `grace_s` to end."""
        self._watching.cancel()
        await asyncio.wait((self._watching,))
        await self._channel.close(grace_s)

    async def _watch(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            watch = self._health.Watch(health_pb2.HealthCheckRequest())
            try:
                async for reply in watch:
                    serving = reply.status == health_pb2.HealthCheckResponse.SERVING
                    self._become(Reach.SERVING if serving else Reach.NOT_SERVING)
                    pause_s = _FIRST_PAUSE_S
                self._become(Reach.UNREACHABLE)
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                    # It says nothing of its health: its calls have to tell.
                    self._become(Reach.SERVING)
                    await asyncio.sleep(_WITHOUT_HEALTH_S)
                    continue
                self._become(Reach.UNREACHABLE)
            finally:
                watch.cancel()
            await asyncio.sleep(random.uniform(pause_s / 2, pause_s))  # noqa: S311 - no secret
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _become(self, reach: Reach) -> None:
        if reach is not self.reach:
            self.reach = reach
            self._on_change(self)
