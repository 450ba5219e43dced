"""Ways to a server for the load generator: gRPC with bytes as they are, and plain HTTP/1.1.

HTTP goes over asyncio's streams, without a client library: httpx takes about a millisecond of the
shared cores a call, which would count against the server that is reached through it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal, Protocol

import grpc

OK = "OK"
REFUSED = "RESOURCE_EXHAUSTED"
LATE = "DEADLINE_EXCEEDED"

_CONNECT_S = 30.0


@dataclass(frozen=True)
class Target:
    """A server on this machine."""

    transport: Literal["grpc", "http"]
    port: int
    path: str
    """The full method name, or the path of a POST with a JSON body."""


class Caller(Protocol):
    """Makes one call at a time; what the server did comes back as a status, not as an error."""

    async def __call__(self, request: bytes, timeout_s: float) -> str: ...


@asynccontextmanager
async def connected(target: Target, count: int) -> AsyncIterator[list[Caller]]:
    """`count` callers: over one gRPC channel, or with an HTTP connection each, kept alive."""
    if target.transport == "http":
        connections = [await _HttpConnection.open(target) for _ in range(count)]
        try:
            yield list(connections)
        finally:
            for connection in connections:
                connection.close()
        return
    options = [("grpc.max_receive_message_length", 16 * 2**20)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{target.port}", options) as channel:
        await asyncio.wait_for(channel.channel_ready(), _CONNECT_S)
        method = channel.unary_unary(target.path)

        async def call(request: bytes, timeout_s: float) -> str:
            try:
                await method(request, timeout=timeout_s)
            except grpc.aio.AioRpcError as error:
                return str(error.code().name)
            return OK

        yield [call] * count


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
    async def open(cls, target: Target) -> _HttpConnection:
        connecting = asyncio.open_connection("127.0.0.1", target.port)
        return cls(target, *await asyncio.wait_for(connecting, _CONNECT_S))

    async def __call__(self, request: bytes, timeout_s: float) -> str:
        async with asyncio.timeout(timeout_s):
            self._writer.write(b"%s%d\r\n\r\n%s" % (self._head, len(request), request))
            head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
            length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
            await self._reader.readexactly(int(length))
        status = head.split(b" ", 2)[1].decode()
        return OK if status == "200" else status

    def close(self) -> None:
        self._writer.close()
