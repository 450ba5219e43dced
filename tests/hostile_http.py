"""Clients that break off, stall, or speak something that is nearly HTTP, over raw sockets."""

from __future__ import annotations

import json
import random
import re
import socket
import struct
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

HANG_S: Final = 60.0
_PAUSE_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Target:
    """A request for a stream."""

    method: str
    path: str
    body: bytes = b""

    def head(self, *lines: str, version: str = "1.1", length: bool = True) -> bytes:
        """Build the head of the request, with more lines."""
        sized = [f"Content-Length: {len(self.body)}"] if length and self.body else []
        first = [f"{self.method} {self.path} HTTP/{version}", "Host: localhost"]
        return "\r\n".join([*first, *_JSON, *sized, *lines, "", ""]).encode()

    def whole(self, *lines: str, version: str = "1.1") -> bytes:
        """Build the request."""
        return self.head(*lines, version=version) + self.body


_JSON: Final = ("Content-Type: application/json",)
CLOSE: Final = "Connection: close"


def targets(question: str, job_id: str) -> list[Target]:
    """Return requests for each kind of stream."""
    message = {"role": "user", "content": question}
    posts: Mapping[str, object] = {
        "/v1/query": {"query": question, "stream": True},
        "/v1/chat/completions": {"model": "raglan", "messages": [message], "stream": True},
        "/v1/responses": {"model": "raglan", "input": question, "stream": True},
    }
    made = [Target("POST", path, json.dumps(body).encode()) for path, body in posts.items()]
    return [*made, Target("GET", f"/v1/jobs/{job_id}/events")]


def statuses(received: bytes) -> list[int]:
    """Return the statuses of replies, informational ones left out."""
    found = [int(each) for each in re.findall(rb"HTTP/1\.[01] (\d{3})", received)]
    return [each for each in found if each >= 200]


def read_all(client: socket.socket) -> bytes:
    """Read until the server closes.

    Raises:
        TimeoutError: it neither sends nor closes.
    """
    received = b""
    with suppress(ConnectionResetError):
        while piece := client.recv(65536):
            received += piece
    return received


def stall(client: socket.socket, target: Target, chance: random.Random) -> bytes:
    """Read a few bytes, and then nothing for a while."""
    client.sendall(target.whole())
    received = client.recv(chance.randrange(1, 200))
    time.sleep(_PAUSE_S)
    return received


def close_half_way(client: socket.socket, target: Target, chance: random.Random) -> bytes:
    """Leave in the middle of the stream."""
    client.sendall(target.whole())
    return client.recv(chance.randrange(1, 2000))


def reset(client: socket.socket, target: Target, chance: random.Random) -> bytes:
    """Reset the connection, before or in the middle of the reply."""
    client.sendall(target.whole())
    received = client.recv(chance.randrange(1, 2000)) if chance.random() < 0.5 else b""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return received


def leave_body_unsent(client: socket.socket, target: Target, chance: random.Random) -> bytes:
    """Promise a body, send a part of it, and leave."""
    body = target.body[: chance.randrange(len(target.body) + 1)]
    client.sendall(target.head("Content-Length: 9999", length=False) + body)
    time.sleep(_PAUSE_S * chance.random())
    return b""


def stop_sending(client: socket.socket, target: Target, _: random.Random) -> bytes:
    """Close the half of the connection that sends, and read."""
    client.sendall(target.whole(CLOSE))
    client.shutdown(socket.SHUT_WR)
    return read_all(client)


def garbage_behind(client: socket.socket, target: Target, chance: random.Random) -> bytes:
    """Send what is no request behind one."""
    client.sendall(target.whole() + b"\0" + chance.randbytes(200) + b"\r\n\r\n")
    return read_all(client)


def pipeline(client: socket.socket, target: Target, _: random.Random) -> bytes:
    """Send five requests at once."""
    client.sendall(target.whole() * 4 + target.whole(CLOSE))
    received = read_all(client)
    assert len(statuses(received)) == 5, statuses(received)
    return received


def slow_bytes(client: socket.socket, target: Target, chance: random.Random) -> bytes:
    """Send the request byte by byte."""
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in target.whole(CLOSE):
        client.sendall(bytes([byte]))
        time.sleep(0.001 * chance.random())
    return read_all(client)


def slow_head(client: socket.socket, target: Target, chance: random.Random) -> bytes:
    """Never end the head."""
    client.sendall(target.head()[: -chance.randrange(2, 40)])
    time.sleep(_PAUSE_S)
    return b""


def huge_head(client: socket.socket, target: Target, chance: random.Random) -> bytes:
    """Send a head above the limit: one line or thousands."""
    lines = ["A: " + "x" * 100_000] if chance.random() < 0.5 else ["a: b"] * 20_000
    with suppress(ConnectionError):
        client.sendall(target.head(*lines))
    return read_all(client)


def wrong_chunks(client: socket.socket, target: Target, chance: random.Random) -> bytes:
    """Send a chunked body whose sizes are wrong."""
    size = chance.choice((b"zz", b"-1", b"f" * 40, b"", b"1", b"0x10"))
    head = target.head("Transfer-Encoding: chunked", CLOSE, length=False)
    with suppress(ConnectionError):
        client.sendall(head + size + b"\r\n" + target.body + b"\r\n0\r\n\r\n")
    return read_all(client)


def two_lengths(client: socket.socket, target: Target, _: random.Random) -> bytes:
    """Give two lengths, or a length and chunks."""
    lines = ("Transfer-Encoding: chunked", "Content-Length: 3", "Content-Length: 4", CLOSE)
    client.sendall(target.head(*lines, length=False) + b"0\r\n\r\n")
    return read_all(client)


def expect(client: socket.socket, target: Target, _: random.Random) -> bytes:
    """Wait for 100 before the body."""
    client.sendall(target.head("Expect: 100-continue", CLOSE))
    received = client.recv(4096) if target.body else b""
    client.sendall(target.body)
    return received + read_all(client)


def old_version(client: socket.socket, target: Target, _: random.Random) -> bytes:
    """Speak HTTP/1.0."""
    client.sendall(target.whole(version="1.0"))
    return read_all(client)


def upgrade(client: socket.socket, target: Target, _: random.Random) -> bytes:
    """Ask for HTTP/2; the reply comes in HTTP/1.1."""
    lines = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")
    client.sendall(target.whole(*lines) + Target("GET", "/healthz").whole(CLOSE))
    return read_all(client)


def http2(client: socket.socket, _: Target, chance: random.Random) -> bytes:
    """Begin with the preface of HTTP/2."""
    client.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + chance.randbytes(100))
    return read_all(client)


def noise(client: socket.socket, _: Target, chance: random.Random) -> bytes:
    """Send random bytes."""
    client.sendall(chance.randbytes(chance.randrange(1, 2000)) + b"\r\n\r\n")
    return read_all(client)


def changed(client: socket.socket, target: Target, chance: random.Random) -> bytes:
    """Send a request with some bytes changed, and leave."""
    sent = bytearray(target.whole(CLOSE))
    for _ in range(chance.randrange(1, 6)):
        sent[chance.randrange(len(sent))] = chance.randrange(256)
    client.sendall(sent)
    client.settimeout(1.0)
    with suppress(TimeoutError):
        return read_all(client)
    return b""


Manner = Callable[[socket.socket, Target, random.Random], bytes]
LEAVE: Final[tuple[Manner, ...]] = (
    *(stall, close_half_way, reset, leave_body_unsent, slow_head, changed, stop_sending),
)
"""Clients that do not wait for all of a reply, or may get none."""
WAIT: Final[tuple[Manner, ...]] = (
    *(garbage_behind, pipeline, slow_bytes, huge_head, wrong_chunks, two_lengths, expect),
    *(old_version, upgrade, http2, noise),
)
"""Clients that wait until the server closes: each is answered."""


def visit(address: tuple[str, int], manner: Manner, target: Target, seed: int) -> list[int]:
    """Be one client; returns the statuses of the replies."""
    chance = random.Random(seed)
    with socket.create_connection(address, timeout=HANG_S) as client:
        return statuses(manner(client, target, chance))
