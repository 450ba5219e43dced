"""Connections of uvicorn with the limits and the end that it does not give them.

uvicorn's httptools protocol reads heads without a limit of size or time, loses the body of a
request that asks for an upgrade and takes it for the next request, and appends trailers to the
headers. Its methods are private to uvicorn: the version is pinned, and tests drive each of them
over sockets. Parsing stays llhttp's.
"""

from __future__ import annotations

import asyncio
import math
import select
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import httptools
from raglan.errors import RaglanError
from raglan.lifecycle import Lifecycle
from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from raglan_gateway.admission.checks import Check
from raglan_gateway.error_reply import HeadTooLarge, MalformedRequest, RequestTimeout, reply

_SWEEP_S: Final = 1.0
_LINGER_S: Final = 2.0
"""Time for the client to read the reply to a request that was refused by its head."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a connection."""

    idle_s: float
    """Longest time without a request."""
    head_s: float = 30.0
    """Longest time between the first byte of a request and the end of its head."""
    max_head_bytes: int = 32 * 1024


class Connection(HttpToolsProtocol):
    """A client's connection. While the gateway drains, each reply is its last.

    Args:
        reject: builds and counts the reply to a request that is refused by its head.
    """

    def __init__(
        self,
        *args: Any,
        lifecycle: Lifecycle,
        limits: Limits,
        reject: Callable[[RaglanError, Check], Response] = lambda error, check: reply(error),
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self._reject = reject
        self._lifecycle = lifecycle
        self._limits = limits
        self._idle_since = time.monotonic()
        self._head_since: float | None = None
        self._unparsed = 0
        """Bytes since the parser last completed something: part of a head, of trailers, of the
        extensions of a chunk."""
        self._too_large = False
        self._refused = False
        self._lingers_until = math.inf

    # --- Parsing ----------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Parse `data`. A head above its limit is refused with 431, what is not HTTP with 400."""
        self._unset_keepalive_if_required()
        self._unparsed += len(data)
        try:
            while data and not self._refused:
                data = self._parse(data)
        except httptools.HttpParserError:
            self._refuse_head(self._too_large)
            return
        if self._unparsed > self._limits.max_head_bytes:
            self._refuse_head(too_large=True)

    def _parse(self, data: bytes) -> bytes:
        """Return what has to be parsed yet: after a head with an upgrade, the request without it.

        The server may ignore an upgrade (RFC 9110, 7.8), but llhttp then treats the body as the
        new protocol: https://github.com/MagicStack/httptools/issues/124.
        """
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            method = self.parser.get_method()
            if method == b"CONNECT":
                raise httptools.HttpParserError("CONNECT is for proxies") from None
            version = self.parser.get_http_version().encode()
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            kept = [header for header in self.headers if header[0] != b"upgrade"]
            lines = [b"%b: %b\r\n" % header for header in kept]
            head = b"%b %b HTTP/%b\r\n%b\r\n" % (method, self.url, version, b"".join(lines))
            return head + bytes(data[upgrade.args[0] :])
        return b""

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self._head_since = time.monotonic()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; drop a trailer, which would pass for one (RFC 9110, 6.5.1)."""
        if self._head_since is not None:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begin to serve a request."""
        if self.parser.should_upgrade():
            return  # `_parse` gives the head once more
        if self._unparsed > self._limits.max_head_bytes:  # not all of it need be of this head
            size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            if size > self._limits.max_head_bytes:
                self._too_large = True
                raise ValueError("the head is too large")
        self._unparsed = 0
        self._head_since = None
        super().on_headers_complete()
        if self._lifecycle.draining:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Receive a part of the body."""
        self._unparsed = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request's body."""
        if not self.parser.should_upgrade():
            self._unparsed = 0
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """End a reply."""
        super().on_response_complete()
        self._idle_since = time.monotonic()

    # --- Refusing ---------------------------------------------------------------------------------

    def _refuse_head(self, too_large: bool) -> None:
        limit = self._limits.max_head_bytes
        if too_large:
            sentence = (
                f"The request line and the headers have more than {limit} bytes, the limit "
                "(RAGLAN_GATEWAY_MAX_HEAD_BYTES)."
            )
            self._refuse(HeadTooLarge(sentence), Check.HEAD_SIZE)
        else:
            self._refuse(MalformedRequest("The request is not valid HTTP."), Check.MALFORMED)

    def _refuse(self, error: RaglanError, check: Check) -> None:
        """Answer in the envelope and close. A request that is complete is still answered first."""
        if self._refused:
            return
        self._refused = True
        response = self._reject(error, check)
        cycle = self.cycle
        if self.serves and (self.pipeline or cycle.response_started or not cycle.more_body):
            # A reply now would be taken for that of the request that runs.
            cycle.keep_alive = False
            return
        if self.serves:
            cycle.disconnected = cycle.response_complete = True
            cycle.message_event.set()
        phrase = HTTPStatus(response.status_code).phrase.encode()
        lines = [b"%b: %b\r\n" % header for header in response.raw_headers]
        status = b"HTTP/1.1 %d %b\r\n" % (response.status_code, phrase)
        self.transport.write(b"".join((status, *lines, b"\r\n", bytes(response.body))))
        # Closing resets the connection of a client that still sends, which loses the reply.
        if check is Check.HEAD_TIME:
            self.transport.close()
        else:
            self.transport.write_eof()
            self._lingers_until = time.monotonic() + _LINGER_S

    # --- Closing ----------------------------------------------------------------------------------

    @property
    def serves(self) -> bool:
        """True while a request runs."""
        return self.cycle is not None and not self.cycle.response_complete

    def last_request(self) -> None:
        """Close after the reply to the request that runs, if one does."""
        if self.serves:
            self.cycle.keep_alive = False

    def shutdown(self) -> None:
        """Close when idle. A request that is on its way in is still served, as the last one."""
        if self.serves:
            self.cycle.keep_alive = False
        elif self._refused:
            self.transport.close()
        elif self._head_since is None and not _readable(self.transport):
            # At once, so that the client knows before it sends; close waits for the loop.
            self.transport.write_eof()
            self.transport.close()

    def close_if_idle(self, now: float) -> None:
        """Close where no request has come for too long; answer a head that is too slow with 408."""
        if self.serves:
            return
        if now > self._lingers_until:
            self.transport.close()
        elif self._head_since is not None and now - self._head_since > self._limits.head_s:
            sentence = (
                f"The headers took longer than {self._limits.head_s:g} s to arrive "
                "(RAGLAN_GATEWAY_HEAD_S)."
            )
            self._refuse(RequestTimeout(sentence), Check.HEAD_TIME)
        elif now - self._idle_since > self._limits.idle_s:
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
    """Return whether the kernel holds unread bytes."""
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
    return bool(poll.poll(0))
