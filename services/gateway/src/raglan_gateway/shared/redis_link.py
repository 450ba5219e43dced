"""A Redis that several gateways share and none depends on.

However it fails (refuses, hangs, loses its data), a call ends within twice `CALL_S`, at most five
calls in a row pay that, and from then on a call is refused without touching the network. Requests
never pay for finding out whether it is back: a task of its own asks, and lets calls pass again.

The client's own defaults do the opposite: ten attempts with back-off, and five seconds a read.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import structlog
from pydantic import SecretStr
from raglan.background import keep_running
from raglan.errors import Unavailable
from raglan.resilience.breaker import BreakerOptions, CircuitBreaker, Permit, State
from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.maint_notifications import MaintNotificationsConfig

from raglan_gateway.shared import redis_url

log: Final = structlog.get_logger()

CALL_S: Final = 0.055
"""Longest a call takes. One that has to connect waits so long for that besides, while connecting
goes on for the next one: TCP, TLS, password and database are a round trip each."""

_CONNECT_CALLS: Final = 20
"""Timeout of connecting, in timeouts of a call."""

CONNECTIONS: Final = 32
"""Calls at the same time; more are refused at once, because waiting for one is waiting too."""

BREAKER: Final = BreakerOptions(consecutive=5, open_s=1, max_open_s=5)

_LATE_S: Final = 0.02
"""A limit that is noticed so much too late was missed by this process, not by Redis."""

_SILENCE: Final = 0.4
"""Redis answers in under a millisecond. When nothing has come for this share of a call's limit, and
as many calls as open the breaker are still out, the next one need not wait for them to fail."""


_WATCH_S: Final = 1.0
_PROBE: Final = "redis.call('SET', KEYS[1], 1, 'PX', 60000)"
"""Writes, because a Redis that is full or a replica answers a PING all the same."""


class RedisLink:
    """Runs scripts in one Redis. Make it inside a running event loop; close it.

    Args:
        url: as `redis_url.check` accepts it.

    Raises:
            ValueError: `url` is not one.
    """

    def __init__(
        self,
        url: SecretStr,
        *,
        call_s: float = CALL_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        redis_url.check(url.get_secret_value())
        self._pool = _pool(url.get_secret_value(), _CONNECT_CALLS * call_s)
        self._connecting: set[asyncio.Future[Any]] = set()
        self._call_s = call_s
        self._breaker = CircuitBreaker(BREAKER, clock=clock, on_change=self._changed)
        self._clock = clock
        self._running = 0
        self._unanswered = 0
        self._silent_since = 0.0
        self._problem = ""
        self._up = asyncio.Event()
        self._up.set()
        self._watching = asyncio.create_task(keep_running("watch redis", self._watch))

    async def close(self) -> None:
        """Close the connections."""
        self._watching.cancel()
        await asyncio.wait((self._watching,))
        for task in tuple(self._connecting):
            task.cancel()
        if self._connecting:
            await asyncio.wait(tuple(self._connecting))
        await self._pool.aclose()

    @property
    def state(self) -> State:
        """`State.CLOSED` while calls pass."""
        return self._breaker.state

    @property
    def problem(self) -> str:
        """The last failure in a sentence; empty if there was none."""
        return self._problem

    async def up(self) -> None:
        """Wait until calls pass."""
        await self._up.wait()

    async def run(self, script: str, keys: Sequence[str], *args: bytes | str | int) -> Any:
        """The reply of a Lua script: atomic in Redis, one round trip, texts as bytes.

        Raises:
            Unavailable: no Redis, now or for the moment; nobody knows whether the script ran.
        """
        permit = self._permit()
        if self._unanswered == 0:
            self._silent_since = self._clock()
        self._unanswered += 1
        self._running += 1
        try:
            # EVAL, not EVALSHA: a Redis that restarted would answer that it knows no such script.
            return await self._attempt(permit, "EVAL", script, len(keys), *keys, *args)
        finally:
            self._running -= 1

    def _permit(self) -> Permit:
        """Leave for a call of a request. A half-open breaker's probes are not for requests."""
        silent = (
            self._unanswered >= BREAKER.consecutive
            and self._clock() - self._silent_since > _SILENCE * self._call_s
        )
        if self._breaker.state is State.CLOSED and not silent and self._running < CONNECTIONS:
            permit = self._breaker.permit()
            if permit is not None:
                return permit
        raise Unavailable("Redis is not used for the moment.")

    async def _attempt(
        self, permit: Permit, *command: bytes | str | int, limit_s: float | None = None
    ) -> Any:
        limit_s = limit_s or self._call_s
        begun = self._clock()
        try:
            async with asyncio.timeout(limit_s):
                connection = await self._connected()
            begun = self._clock()
            async with asyncio.timeout(limit_s):
                reply = await self._answer(connection, *command)
        except (RedisError, OSError, TimeoutError) as error:
            if self._clock() - begun > limit_s + _LATE_S:
                permit.released()
                raise Unavailable("This process was too busy to hear Redis.") from None
            self._problem = self._sentence(error)
            permit.failed()
            raise Unavailable(self._problem) from None
        except BaseException:
            permit.released()
            raise
        permit.succeeded()
        self._unanswered = 0
        self._silent_since = self._clock()
        return reply

    async def _connected(self) -> AbstractConnection:
        connecting = asyncio.ensure_future(self._connection())
        self._connecting.add(connecting)
        connecting.add_done_callback(self._connecting.discard)
        try:
            return await asyncio.shield(connecting)
        except asyncio.CancelledError:
            connecting.add_done_callback(self._keep)
            raise

    async def _answer(self, connection: AbstractConnection, *command: bytes | str | int) -> Any:
        try:
            await connection.send_command(*command)
            return await connection.read_response()
        except ResponseError:
            raise
        except BaseException:
            # A reply that is still to come would be taken for the next call's.
            await connection.disconnect(nowait=True)
            raise
        finally:
            await self._pool.release(connection)

    async def _connection(self) -> AbstractConnection:
        async with asyncio.timeout(_CONNECT_CALLS * self._call_s):
            made: AbstractConnection = await self._pool.get_connection()  # type: ignore[no-untyped-call]
            return made

    def _keep(self, connected: asyncio.Future[AbstractConnection]) -> None:
        """Put a connection into the pool that the call which began it did not wait for."""
        if not connected.cancelled() and connected.exception() is None:
            keeping = asyncio.ensure_future(self._pool.release(connected.result()))
            self._connecting.add(keeping)
            keeping.add_done_callback(self._connecting.discard)

    def _sentence(self, error: Exception) -> str:
        """Describe the error without foreign text, which may quote the data."""
        if isinstance(error, AuthenticationError):
            return (
                "Redis refuses the user or the password of RAGLAN_GATEWAY_REDIS_URL "
                "or RAGLAN_GATEWAY_REDIS_PASSWORD."
            )
        if isinstance(error, ResponseError):
            code = str(error).partition(" ")[0]
            return f"Redis refuses a command ({code if code.isupper() else type(error).__name__})."
        if isinstance(error, TimeoutError | RedisTimeoutError):
            return f"Redis did not answer within {self._call_s * 1e3:.0f} ms."
        return "Redis cannot be reached."

    def _changed(self, state: State) -> None:
        if state is State.CLOSED:
            self._up.set()
            log.info("redis is back")
        elif self._up.is_set():
            self._up.clear()
            log.warning("doing without redis", reason=self._problem)

    async def _watch(self) -> None:
        """Notice an outage while nobody calls, and its end: before anybody does, and for them."""
        while True:
            open_ = self._breaker.state is not State.CLOSED
            await asyncio.sleep(self._breaker.retry_after_s() if open_ else _WATCH_S)
            permit = self._breaker.permit()
            if permit is not None:
                limit_s = _CONNECT_CALLS * self._call_s
                try:
                    await self._attempt(permit, "EVAL", _PROBE, 1, "raglan:probe", limit_s=limit_s)
                except Unavailable as error:
                    log.debug("a probe of redis failed", reason=error.message)


def _pool(url: str, connect_s: float) -> ConnectionPool:
    return ConnectionPool.from_url(
        url,
        # The probe comes besides.
        max_connections=CONNECTIONS + 1,
        # Ours is around the whole call. The client's own for one write or read is `wait_for`, which
        # in Python 3.11 may swallow the cancellation of a request whose client has left.
        socket_timeout=None,
        socket_connect_timeout=connect_s,
        retry=Retry(NoBackoff(), 0),
        # RESP3 and these notifications cost round trips at each connection, and may raise the
        # timeouts to ten seconds.
        protocol=2,
        maint_notifications_config=MaintNotificationsConfig(enabled=False),
        driver_info=None,
    )
