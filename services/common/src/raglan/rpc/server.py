"""The gRPC server that every service runs: health, deadlines, error mapping, graceful stop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import grpc
import structlog
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import CollectorRegistry

from raglan import event_loop, heap, logs
from raglan.background import keep_running
from raglan.errors import RaglanError, Unavailable
from raglan.health import Health
from raglan.lifecycle import LAST_WORD_S, Lifecycle, stop_signals
from raglan.rpc import credentials, health_service, tenant_calls, trace_service
from raglan.rpc.addresses import format_address
from raglan.rpc.interceptor import BoundaryInterceptor
from raglan.rpc.metrics import ServedCalls
from raglan.rpc.trace_service import MAX_REPLY_BYTES, TraceServicer
from raglan.settings import GrpcSettings, load_or_exit
from raglan.telemetry import tracing
from raglan.telemetry.metrics import Endpoint
from raglan.telemetry.process import ProcessMetrics
from raglan.v1 import traces_pb2_grpc

log: Final = structlog.get_logger()

S = TypeVar("S", bound=GrpcSettings)

_HEALTH_EVERY_S: Final = 0.25
_GIVE_UP_S: Final = 5.0
"""Time limit for closing a service that is stopped during its start, in seconds."""


async def _nothing() -> None:
    return None


def _always() -> Health:
    return Health.SERVING


@dataclass(frozen=True, slots=True)
class Service:
    """The result of a service's `build(settings)`."""

    name: str
    """The full gRPC name, e.g. "raglan.v1.EmbedderService"."""

    register: Callable[[grpc.aio.Server], None]
    """Adds the servicer to a server."""

    start: Callable[[], Awaitable[None]] = _nothing
    """Loads and warms up; the service reports SERVING after it, and exits if it raises.

    Unavailable with `retry_after_s` says that something else is not there yet: `start` is then
    called again after that time, and the service begins late instead of never.
    """

    close: Callable[[], Awaitable[None]] = _nothing
    """Gives back what `start` or `build` took. Called once, also after a failed start."""

    health: Callable[[], Health] = _always
    """Polled a few times a second once started; must return at once."""

    metrics: Endpoint | None = None
    """Serves `/metrics` from before `start` until after `close`; calls and process are added."""


class Server:
    """A listening server: `await start()`, then `await stop()`. Installs no signal handlers."""

    def __init__(self, service: Service, settings: GrpcSettings) -> None:
        self.service = service
        self.settings = settings
        self.port = 0
        self.dead = asyncio.Event()
        """Set when the service will never work again."""
        self._serves = False
        self._lifecycle = Lifecycle(f"the {health_service.short_name(service.name)}")
        registry = service.metrics.registry if service.metrics else CollectorRegistry()
        self._process = ProcessMetrics(registry, health_service.short_name(service.name))
        self._health = health_service.HealthService(["", service.name])
        self._watching: asyncio.Task[None] | None = None
        self._grpc = grpc.aio.server(
            interceptors=[BoundaryInterceptor(self._lifecycle, ServedCalls(registry))],
            # Past it gRPC refuses at once, before Python has seen the call.
            maximum_concurrent_rpcs=settings.max_calls,
            options=[
                ("grpc.max_receive_message_length", settings.max_message_bytes),
                ("grpc.max_send_message_length", settings.max_message_bytes),
                # By default a thousand calls wait unread under overload: refusals come late, and
                # refusing each of them by ourselves takes the time of the work. One limit for both:
                # between two, refusals begin early and the last call waits twice as long.
                ("grpc.server.max_pending_requests", settings.max_unread_calls),
                ("grpc.server.max_pending_requests_hard_limit", settings.max_unread_calls),
                # Two processes on one port would share calls in silence.
                ("grpc.so_reuseport", 0),
                # Clients ping silent calls every 10 s; the default would cut them off.
                ("grpc.http2.min_ping_interval_without_data_ms", 5000),
            ],
        )
        with_tenants: Any = tenant_calls.TenantServer(self._grpc)
        service.register(with_tenants)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._grpc)
        traces = TraceServicer(min(MAX_REPLY_BYTES, settings.max_message_bytes // 2))
        traces_pb2_grpc.add_TraceServiceServicer_to_server(traces, self._grpc)
        if settings.reflection:
            others = [health_service.NAME, trace_service.NAME, reflection.SERVICE_NAME]
            names = [service.name, *others]
            reflection.enable_server_reflection(names, self._grpc)

    async def start(self) -> None:
        """Bind, load, and report SERVING.

        Raises:
            RaglanError: the port is taken or the service cannot start; the message says why.
        """
        address = format_address(self.settings.host, self.settings.port)
        secured = credentials.for_server()
        try:
            self.port = (
                self._grpc.add_secure_port(address, secured)
                if secured
                else self._grpc.add_insecure_port(address)
            )
        except RuntimeError as error:
            variable = f"{self.settings.model_config.get('env_prefix', '')}PORT"
            raise Unavailable(
                f"{address} cannot be listened on; is it in use? ({variable})"
            ) from error
        await self._grpc.start()
        self._process.start()
        if self.service.metrics is not None:
            self.service.metrics.start()
        await self._begin()
        self._serves = True
        self._process.becomes(Health.SERVING.value)
        self._health.set(serving=True)
        self._watching = asyncio.create_task(keep_running("health", self._watch))
        log.info("serving", address=format_address(self.settings.host, self.port))

    async def stop(self) -> None:
        """Report NOT_SERVING, let callers notice, let running calls finish, close.

        Calls that outlast the grace end with UNAVAILABLE and a sentence.
        """
        if self._watching is not None:
            self._watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watching
        self._lifecycle.drain()
        self._process.becomes("stopping")
        self._health.set(serving=False)
        if self._serves:
            await asyncio.sleep(self.settings.shutdown_drain_s)
        self._health.end()
        grace_s = self.settings.shutdown_grace_s
        ending = asyncio.get_running_loop().call_later(grace_s, self._lifecycle.end)
        await self._grpc.stop(grace_s + LAST_WORD_S)
        ending.cancel()
        await self.service.close()
        await self._process.stop()
        if self.service.metrics is not None:
            # Its thread looks up every half second.
            await asyncio.to_thread(self.service.metrics.stop)

    async def _begin(self) -> None:
        """Start the service, again and again while it lacks something that may yet come."""
        said = ""
        while True:
            try:
                await self.service.start()
            except Unavailable as error:
                if error.retry_after_s is None:
                    raise
                if error.message != said:
                    log.warning("waiting", reason=error.message)
                said = error.message
                await asyncio.sleep(error.retry_after_s)
            else:
                return

    async def _watch(self) -> None:
        """Follow what the service says of itself."""
        before = Health.SERVING
        while before is not Health.DEAD:
            await asyncio.sleep(_HEALTH_EVERY_S)
            now = self.service.health()
            if now is before:
                continue
            serving = now is Health.SERVING
            self._process.becomes(now.value)
            live = now not in (Health.STALLED, Health.DEAD)
            self._health.set(serving=serving, live=live)
            log.log(20 if serving else 40, "health changed", health=now.value, was=before.value)
            before = now
        self.dead.set()


def serve(build: Callable[[S], Service], read: type[S]) -> None:
    """Run a service until SIGTERM or SIGINT: the `main` of each.

    Exits with 2 when its settings, which are read from the environment, are wrong, and with 1 when
    it cannot start.
    """
    settings = load_or_exit(read)
    name = read.__name__.removesuffix("Settings").lower()
    logs.configure(settings, name)
    traces = tracing.install(name)
    try:
        raise SystemExit(event_loop.run(_serve(lambda: build(settings), settings)))
    finally:
        traces.close()


async def _serve(build: Callable[[], Service], settings: GrpcSettings) -> int:
    stopping = stop_signals()
    try:
        server = Server(build(), settings)
    except (RaglanError, OSError) as error:
        log.error("cannot start", reason=str(error))
        return 1
    asked = asyncio.create_task(stopping.wait())
    starting = asyncio.create_task(server.start())
    try:
        await asyncio.wait((starting, asked), return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            await _give_up(starting, server)
        starting.result()
        heap.freeze()
        dying = asyncio.create_task(server.dead.wait())
        await asyncio.wait((asked, dying), return_when=asyncio.FIRST_COMPLETED)
    except (RaglanError, OSError) as error:
        log.error("cannot start", reason=str(error))
        return 1
    finally:
        log.info("stopping")
        await server.stop()
    return 1 if server.dead.is_set() else 0


async def _give_up(starting: asyncio.Task[None], server: Server) -> None:
    """End the process in the middle of its start. Never returns."""
    log.info("stopping", during="start")
    starting.cancel()
    await asyncio.wait((starting,))
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(server.stop(), _GIVE_UP_S)
    sys.stderr.flush()
    # A thread that still reads a model cannot be stopped, and a plain exit would wait for it.
    os._exit(0)
