"""A DNS server on loopback that answers as told, or not at all."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

_A = 1
_TTL_S = 600
"""As that of Docker's name server."""


class NameServer(asyncio.DatagramProtocol):
    """Names that are not in `names` do not exist; those in `silent` get no answer."""

    def __init__(self) -> None:
        self.names: dict[str, list[str]] = {}
        self.silent: set[str] = set()
        self.asked: list[str] = []
        self.address = ""
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        """It listens."""
        self._transport = transport
        host, port = transport.get_extra_info("sockname")
        self.address = f"{host}:{port}"

    def datagram_received(self, data: bytes, peer: Any) -> None:
        """A question (RFC 1035, 4.1), with one entry."""
        labels, at = [], 12
        while size := data[at]:
            labels.append(data[at + 1 : at + 1 + size].decode())
            at += 1 + size
        name, kind = ".".join(labels).lower(), int.from_bytes(data[at + 1 : at + 3])
        self.asked.append(name)
        if name in self.silent:
            return
        addresses = self.names.get(name, []) if kind == _A else []
        flags = 0x8180 if name in self.names else 0x8183
        head = data[:2] + struct.pack("!5H", flags, 1, len(addresses), 0, 0)
        record = struct.pack("!3HIH", 0xC00C, _A, 1, _TTL_S, 4)
        answers = b"".join(record + socket.inet_aton(address) for address in addresses)
        self._transport.sendto(head + data[12 : at + 5] + answers, peer)


@asynccontextmanager
async def name_server() -> AsyncIterator[NameServer]:
    """One that listens while the block runs."""
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(NameServer, local_addr=("127.0.0.1", 0))
    try:
        yield server
    finally:
        transport.close()
