"""Ways to a server for the load generator: gRPC with bytes as they are, and plain HTTP/1.1.

HTTP goes over asyncio's streams, without a client library: httpx takes about a millisecond of the
shared cores a call, which would count against the server that is reached through it.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, Protocol, Self

import grpc
from raglan.v1 import generator_pb2

OK = "OK"
REFUSED = "RESOURCE_EXHAUSTED"
LATE = "DEADLINE_EXCEEDED"
UNREAD = "CANCELLED"
"""Status of a call that gRPC refuses because a busy server has not read it."""

_CUT_OFF = "CUT_OFF"

_CONNECT_S = 30.0

_DELTA = 0x0A
"""First byte of a `GenerateEvent` that holds a delta: field 1, with a length."""
_TEXT = re.compile(rb'"content":"[^"]')
_USAGE = re.compile(rb'"prompt_tokens":(\d+),"total_tokens":\d+,"completion_tokens":(\d+)')
_READ_BYTES = 65_536
_KEPT_BYTES = 1_024
"""Enough of what was read before for what is searched."""


@dataclass(frozen=True)
class Target:
    """A server on this machine."""

    transport: Literal["grpc", "http", "grpc-answers", "http-answers", "http-queries"]
    """The last three stream an answer's text: `Generate`, chat completions, and `/v1/query`."""
    port: int
    path: str
    """The full method name, or the path of a POST with a JSON body."""
    first_s: float | None = None
    """Seconds after which a caller leaves an answer whose text has not begun; None waits."""


class Reply(NamedTuple):
    """Outcome of a call."""

    status: str
    """A gRPC status name; of HTTP "OK" or the number."""
    began: float | None = None
    """Arrival of the first text of a streamed answer, by `time.perf_counter`."""
    read: int = 0
    """Tokens of the prompt, and then of the answer, by the server's own count."""
    written: int = 0


class Caller(Protocol):
    """Makes calls; what the server did comes back as a reply, not as an error."""

    async def __call__(self, request: bytes, timeout_s: float) -> Reply: ...


@asynccontextmanager
async def connected(target: Target, count: int) -> AsyncIterator[list[Caller]]:
    """`count` callers: over one gRPC channel, or with HTTP connections that are kept alive."""
    if target.transport.startswith("http"):
        kind = _HttpConnection if target.transport == "http" else _HttpAnswers
        connections = [await kind.open(target) for _ in range(count)]
        try:
            yield list(connections)
        finally:
            for connection in connections:
                connection.close()
        return
    options = [("grpc.max_receive_message_length", 16 * 2**20)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{target.port}", options) as channel:
        await asyncio.wait_for(channel.channel_ready(), _CONNECT_S)
        kinds = {"grpc": _unary, "grpc-answers": _answers}
        yield [kinds[target.transport](channel, target)] * count


def _unary(channel: grpc.aio.Channel, target: Target) -> Caller:
    method: Any = channel.unary_unary(target.path)

    async def call(request: bytes, timeout_s: float) -> Reply:
        try:
            await method(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            return Reply(str(error.code().name))
        return Reply(OK)

    return call


def _answers(channel: grpc.aio.Channel, target: Target) -> Caller:
    """Reads events to the last one, the only one that is decoded."""
    method: Any = channel.unary_stream(target.path)

    async def call(request: bytes, timeout_s: float) -> Reply:
        began, event = None, b""
        answer = method(request, timeout=timeout_s)
        try:
            async with asyncio.timeout(target.first_s) as limit:
                async for event in answer:
                    if began is None and event[0] == _DELTA:
                        began = time.perf_counter()
                        limit.reschedule(None)
        except grpc.aio.AioRpcError as error:
            return Reply(str(error.code().name), began)
        except TimeoutError:
            answer.cancel()
            return Reply(LATE)
        usage = generator_pb2.GenerateEvent.FromString(event).finished.usage
        return Reply(OK, began, usage.prompt_tokens, usage.completion_tokens)

    return call


class _HttpConnection:
    """Keep-alive POSTs, one at a time; answers must carry a Content-Length."""

    def __init__(
        self, target: Target, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._head = (
            f"POST {target.path} HTTP/1.1\r\nHost: 127.0.0.1:{target.port}\r\n"
            "Content-Type: application/json\r\nContent-Length: "
        ).encode()
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, target: Target) -> Self:
        connecting = asyncio.open_connection("127.0.0.1", target.port)
        return cls(target, *await asyncio.wait_for(connecting, _CONNECT_S))

    async def __call__(self, request: bytes, timeout_s: float) -> Reply:
        async with asyncio.timeout(timeout_s):
            status, head = await self._ask(request)
            await self._read_body(head)
        return Reply(status)

    async def _ask(self, request: bytes) -> tuple[str, bytes]:
        """Status, and the head in lower case."""
        self._writer.write(b"%s%d\r\n\r\n%s" % (self._head, len(request), request))
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        status = head.split(b" ", 2)[1].decode()
        return OK if status == "200" else status, head

    async def _read_body(self, head: bytes) -> None:
        length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
        await self._reader.readexactly(int(length))

    @property
    def usable(self) -> bool:
        """Return True while the server has not closed it."""
        return not self._reader.at_eof() and not self._writer.is_closing()

    def close(self) -> None:
        self._writer.close()


class _EventStream(_HttpConnection):
    """Chat completions as server-sent events, which are searched rather than decoded."""

    text = _TEXT
    usage = _USAGE
    """In the last event of an answer that is whole: tokens read, and written."""

    async def answer(self, request: bytes, timeout_s: float, first_s: float | None) -> Reply:
        """One answer.

        Raises:
            TimeoutError: it had not begun, or was not whole, in time. The connection is of no more
                use.
        """
        async with asyncio.timeout(timeout_s), asyncio.timeout(first_s) as limit:
            status, head = await self._ask(request)
            if status != OK:
                await self._read_body(head)
                return Reply(status)
            began, seen = None, b""
            # The last chunk is an empty one; all others end in the blank line of an event.
            while not seen.endswith(b"\n0\r\n\r\n"):
                more = await self._reader.read(_READ_BYTES)
                if not more:
                    return Reply(_CUT_OFF, began)
                seen = seen[-_KEPT_BYTES:] + more
                if began is None and self.text.search(seen):
                    began = time.perf_counter()
                    limit.reschedule(None)
            usage = self.usage.search(seen)
            return Reply(OK, began, *map(int, usage.groups())) if usage else Reply(_CUT_OFF, began)


class _QueryStream(_EventStream):
    """The gateway's events; an answer for which a stage fell back is not whole."""

    text = re.compile(rb"event: delta\r?\n")
    usage = re.compile(rb'"degraded":\[\],"usage":{"prompt_tokens":(\d+),"completion_tokens":(\d+)')


class _HttpAnswers:
    """As many answers at a time as are asked for, over a connection each."""

    def __init__(self, target: Target, first: _EventStream) -> None:
        self._target = target
        self._idle = [first]

    @classmethod
    async def open(cls, target: Target) -> Self:
        return cls(target, await _KINDS[target.transport].open(target))

    async def __call__(self, request: bytes, timeout_s: float) -> Reply:
        kind = _KINDS[self._target.transport]
        connection = self._idle.pop() if self._idle else await kind.open(self._target)
        if not connection.usable:
            connection.close()
            connection = await kind.open(self._target)
        try:
            reply = await connection.answer(request, timeout_s, self._target.first_s)
        except (TimeoutError, asyncio.IncompleteReadError):
            # Closing it is how the server learns that nobody waits any more.
            connection.close()
            return Reply(LATE)
        self._idle.append(connection)
        return reply

    def close(self) -> None:
        for connection in self._idle:
            connection.close()


_KINDS: Final = {"http-answers": _EventStream, "http-queries": _QueryStream}
