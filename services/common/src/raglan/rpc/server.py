"""The gRPC server that every service runs: health, deadlines, error mapping, graceful stop."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Final

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from raglan import heap, logs
from raglan.errors import RaglanError, Unavailable
from raglan.health import Health
from raglan.rpc.interceptor import BoundaryInterceptor
from raglan.settings import GrpcSettings
from raglan.telemetry.metrics import Endpoint

log: Final = structlog.get_logger()

_HEALTH_EVERY_S: Final = 0.25


async def _nothing() -> None:
    return None


def _always() -> Health:
    return Health.SERVING


@dataclass(frozen=True, slots=True)
class Service:
    """What `build(settings)` of a service returns."""

    name: str
    """The full gRPC name, e.g. "raglan.v1.EmbedderService"."""

    register: Callable[[grpc.aio.Server], None]
    """Adds the servicer to a server."""

    start: Callable[[], Awaitable[None]] = _nothing
    """Loads and warms up; the service reports SERVING after it, and exits if it raises."""

    close: Callable[[], Awaitable[None]] = _nothing
    """Gives back what `start` or `build` took. Called once, also after a failed start."""

    health: Callable[[], Health] = _always
    """Asked a few times a second once started; must return at once."""

    metrics: Endpoint | None = None
    """Serves `/metrics` from before `start` until after `close`."""


class Server:
    """A listening server: `await start()`, then `await stop()`. Installs no signal handlers."""

    def __init__(self, service: Service, settings: GrpcSettings) -> None:
        self.service = service
        self.settings = settings
        self.port = 0
        self.dead = asyncio.Event()
        """Set when the service will never work again."""
        self._health = health.aio.HealthServicer()
        self._watching: asyncio.Task[None] | None = None
        self._grpc = grpc.aio.server(
            interceptors=[BoundaryInterceptor()],
            # Past it gRPC refuses at once, before Python has seen the call.
            maximum_concurrent_rpcs=settings.max_calls,
            options=[
                ("grpc.max_receive_message_length", settings.max_message_bytes),
                ("grpc.max_send_message_length", settings.max_message_bytes),
                # Two processes on one port would share calls in silence.
                ("grpc.so_reuseport", 0),
                # Clients ping silent calls every 10 s; the default would cut them off.
                ("grpc.http2.min_ping_interval_without_data_ms", 5000),
            ],
        )
        service.register(self._grpc)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._grpc)
        if settings.reflection:
            names = [service.name, health.SERVICE_NAME, reflection.SERVICE_NAME]
            reflection.enable_server_reflection(names, self._grpc)

    async def start(self) -> None:
        """Bind, load, and report SERVING.

        Raises:
            RaglanError: the port is taken or the service cannot start; the message says why.
        """
        address = f"{self.settings.host}:{self.settings.port}"
        await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        try:
            self.port = self._grpc.add_insecure_port(address)
        except RuntimeError as error:
            variable = f"{self.settings.model_config.get('env_prefix', '')}PORT"
            raise Unavailable(
                f"{address} cannot be listened on; is it in use? ({variable})"
            ) from error
        await self._grpc.start()
        if self.service.metrics is not None:
            self.service.metrics.start()
        await self.service.start()
        await self._set_health(health_pb2.HealthCheckResponse.SERVING)
        self._watching = asyncio.create_task(self._watch())
        log.info("serving", address=f"{self.settings.host}:{self.port}")

    async def stop(self) -> None:
        """Report NOT_SERVING, let callers notice, let running calls finish, close."""
        if self._watching is not None:
            self._watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watching
        await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        await asyncio.sleep(self.settings.shutdown_drain_s)
        await self._grpc.stop(self.settings.shutdown_grace_s)
        await self.service.close()
        if self.service.metrics is not None:
            self.service.metrics.stop()

    async def _watch(self) -> None:
        """Follow what the service says of itself."""
        before = Health.SERVING
        while before is not Health.DEAD:
            await asyncio.sleep(_HEALTH_EVERY_S)
            now = self.service.health()
            if now is before:
                continue
            serving = now is Health.SERVING
            response = health_pb2.HealthCheckResponse
            await self._set_health(response.SERVING if serving else response.NOT_SERVING)
            log.log(20 if serving else 40, "health changed", health=now.value, was=before.value)
            before = now
        self.dead.set()

    async def _set_health(self, status: int) -> None:
        for name in ("", self.service.name):
            await self._health.set(name, status)


def serve(build: Callable[[], Service], settings: GrpcSettings) -> None:
    """Run the service until SIGTERM or SIGINT. Exits with 1 when it cannot start."""
    logs.configure(settings, type(settings).__name__.removesuffix("Settings").lower())
    raise SystemExit(asyncio.run(_serve(build, settings)))


async def _serve(build: Callable[[], Service], settings: GrpcSettings) -> int:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    try:
        server = Server(build(), settings)
    except (RaglanError, OSError) as error:
        log.error("cannot start", reason=str(error))
        return 1
    try:
        await _until(server.start(), stopping)
        heap.freeze()
        await _first(stopping, server.dead)
    except (RaglanError, OSError) as error:
        log.error("cannot start", reason=str(error))
        return 1
    finally:
        log.info("stopping")
        await server.stop()
    return 1 if server.dead.is_set() else 0


async def _first(*events: asyncio.Event) -> None:
    """Wait for one of `events`."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for each in waiting:
        each.cancel()


async def _until(work: Coroutine[object, object, None], stopping: asyncio.Event) -> None:
    """Await `work`; give it up when `stopping` is set first."""
    working = asyncio.ensure_future(work)
    waiting = asyncio.ensure_future(stopping.wait())
    await asyncio.wait((working, waiting), return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if not working.done():
        working.cancel()
        return
    await working
