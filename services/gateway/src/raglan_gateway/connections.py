"""What the gateway adds to uvicorn's connections: an end without losses, and a limit on idling."""

from __future__ import annotations

import asyncio
import select
import time
from collections.abc import Callable
from typing import Any, Final

from raglan.errors import InvalidInput
from raglan.lifecycle import Lifecycle
from raglan.telemetry import context as request_context
from starlette.responses import Response
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)
from uvicorn.server import ServerState

from raglan_gateway.api.problem import reply

HEAD_S: Final = 30.0
"""How long the first line and the headers of a request may take to arrive."""

_SWEEP_S: Final = 1.0


class Connection(HttpToolsProtocol):
    """A client's connection. While the gateway drains, each reply is its last."""

    def __init__(
        self,
        *args: Any,
        lifecycle: Lifecycle,
        idle_s: float,
        head_s: float = HEAD_S,
        refusal: Callable[[Any], Response | None] = lambda scope: None,
        **options: Any,
    ) -> None:
        """Args:
        refusal: the reply to a request that is not even to be read, or None.
        """
        super().__init__(*args, **options)
        self._refusal = refusal
        self._lifecycle = lifecycle
        self._idle_s = idle_s
        self._head_s = head_s
        self._idle_since = time.monotonic()
        self._head_since: float | None = None

    def on_message_begin(self) -> None:
        """A request begins to arrive."""
        super().on_message_begin()
        self._head_since = time.monotonic()

    def on_headers_complete(self) -> None:
        """A request begins to be served."""
        super().on_headers_complete()
        self._head_since = None
        if self._lifecycle.draining:
            self.cycle.keep_alive = False

    def on_response_complete(self) -> None:
        """A request was served."""
        super().on_response_complete()
        self._idle_since = time.monotonic()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        """Serve a request, or refuse it here, at a tenth of what a task and the layers cost."""
        if (response := self._refusal(cycle.scope)) is None:
            super()._start_asgi_task(cycle, app)
            return
        headers = [*cycle.default_headers, *response.raw_headers]
        if not cycle.keep_alive:
            headers.append((b"connection", b"close"))
        lines = [b"%b: %b\r\n" % header for header in headers]
        head = (STATUS_LINE[response.status_code], *lines, b"\r\n")
        self.transport.write(b"".join((*head, bytes(response.body))))
        cycle.response_started = cycle.response_complete = True
        if not cycle.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what cannot be read as HTTP, in the envelope, and close."""
        id_ = request_context.id_from("")
        response = reply(InvalidInput("The request is not valid HTTP."), status=400, request_id=id_)
        response.headers["X-Request-ID"] = id_
        response.headers["Connection"] = "close"
        lines = [b"%b: %b\r\n" % header for header in response.raw_headers]
        head = (STATUS_LINE[response.status_code], *lines, b"\r\n")
        self.transport.write(b"".join((*head, bytes(response.body))))
        self.transport.close()

    @property
    def serves(self) -> bool:
        """Whether a request runs."""
        return self.cycle is not None and not self.cycle.response_complete

    def last_request(self) -> None:
        """Close after the reply to the request that runs, if one does."""
        if self.serves:
            self.cycle.keep_alive = False

    def shutdown(self) -> None:
        """Close when idle. A request that is on its way in is still served, as the last one."""
        if self.serves:
            self.cycle.keep_alive = False
        elif self._head_since is None and not _readable(self.transport):
            # At once, so that the client knows before it sends; close waits for the loop.
            self.transport.write_eof()
            self.transport.close()

    def close_if_idle(self, now: float) -> None:
        """Close when no request has come for too long, or one does not get past its head."""
        if self.serves:
            return
        head_late = self._head_since is not None and now - self._head_since > self._head_s
        if head_late or now - self._idle_since > self._idle_s:
            self.transport.close()


async def sweep(state: ServerState) -> None:
    """Close idle connections until cancelled."""
    while True:
        await asyncio.sleep(_SWEEP_S)
        now = time.monotonic()
        for connection in list(state.connections):
            if isinstance(connection, Connection):
                connection.close_if_idle(now)


def _readable(transport: asyncio.Transport) -> bool:
    """Whether the kernel holds bytes that the loop has not read yet."""
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
    return bool(poll.poll(0))
