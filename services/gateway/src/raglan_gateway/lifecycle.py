"""The gateway's life: serve until a signal, drain, let requests finish, tell the rest, end.

uvicorn would take the signals for itself, refuse callers at once, and cancel what still runs at
the end of the grace; here it only serves.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

import structlog
import uvicorn
from fastapi import FastAPI
from raglan import heap
from raglan.background import keep_running
from raglan.errors import RaglanError
from raglan.lifecycle import LAST_WORD_S, Lifecycle, stop_signals
from raglan.rpc.addresses import LISTEN_BACKLOG

from raglan_gateway import connections, listening
from raglan_gateway.settings import GatewaySettings, listed

log: Final = structlog.get_logger()


class Server(uvicorn.Server):
    """uvicorn without its signal handlers."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to `serve`."""
        yield

    def drain(self) -> None:
        """Tell clients, with the replies that they wait for, to come back on a new connection."""
        for connection in list(self.server_state.connections):
            if isinstance(connection, connections.Connection):
                connection.last_request()


async def serve(
    build: Callable[[GatewaySettings, Lifecycle], FastAPI],
    settings: GatewaySettings,
    stopping: asyncio.Event | None = None,
) -> int:
    """Serve until `stopping`, by default a signal, is set, be it during the start; exit status."""
    stopping = stopping or stop_signals()
    lifecycle = Lifecycle("the gateway")
    try:
        listeners = listening.sockets(settings)
        app = build(settings, lifecycle)
        await app.state.prepare()
    except RaglanError as error:
        log.error("cannot start", reason=error.message)
        return 1
    server = Server(_config(app, settings, lifecycle))
    heap.freeze()
    serving = asyncio.create_task(server.serve(listeners))
    sweeping = asyncio.create_task(
        keep_running("sweep connections", partial(connections.sweep, server.server_state))
    )
    asked = asyncio.create_task(stopping.wait())
    await asyncio.wait((serving, asked), return_when=asyncio.FIRST_COMPLETED)
    if asked.done():
        await _end(server, serving, lifecycle, settings)
    sweeping.cancel()
    await serving
    return 0


async def _end(
    server: Server, serving: asyncio.Task[None], lifecycle: Lifecycle, settings: GatewaySettings
) -> None:
    log.info("draining", drain_s=settings.shutdown_drain_s, grace_s=settings.shutdown_grace_s)
    lifecycle.drain()
    server.drain()
    if server.started:
        await asyncio.wait((serving,), timeout=settings.shutdown_drain_s)
    asyncio.get_running_loop().call_later(settings.shutdown_grace_s, lifecycle.end)
    server.should_exit = True
    await asyncio.wait((serving,))
    log.info("stopped")


def _config(app: FastAPI, settings: GatewaySettings, lifecycle: Lifecycle) -> uvicorn.Config:
    connection: Any = partial(
        connections.Connection,
        lifecycle=lifecycle,
        limits=connections.Limits(
            idle_s=settings.keep_alive_s,
            head_s=settings.head_s,
            max_head_bytes=settings.max_head_bytes,
        ),
        reject=app.state.reject_head,
    )
    return uvicorn.Config(
        app,
        http=connection,
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=listed(settings.trusted_proxies),
        backlog=LISTEN_BACKLOG,
        timeout_keep_alive=math.ceil(settings.keep_alive_s),
        timeout_graceful_shutdown=math.ceil(settings.shutdown_grace_s + LAST_WORD_S),
    )
