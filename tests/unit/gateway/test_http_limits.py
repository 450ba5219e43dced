"""HTTP as no honest client sends it, over raw sockets: limits of heads, upgrades, framing.

These tests hold the methods of uvicorn that `connections` builds on: they fail where a new version
no longer calls them.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from importlib.metadata import version

import gateway_serving
import pytest
import uvicorn
from raglan.errors import RaglanError
from raglan.lifecycle import Lifecycle
from raglan_gateway.admission.checks import Check
from raglan_gateway.connections import Connection, Limits
from raglan_gateway.error_reply import reply
from starlette.responses import Response
from uvicorn.server import ServerState

MAX_HEAD = 4096
GET = b"GET /get HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Echo:
    """A server whose application replies with what it was sent."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, bytes]] = []
        self.headers: list[list[bytes]] = []
        self.refused: list[Check] = []
        self.gate = asyncio.Event()
        self.port = 0

    async def app(self, scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        body = b""
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body, more = body + message["body"], message["more_body"]
        if scope["path"] == "/wait":
            await self.gate.wait()
        self.requests.append((scope["method"], scope["path"], body))
        self.headers.append([name for name, _ in scope["headers"]])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    def reject(self, error: RaglanError, check: Check) -> Response:
        self.refused.append(check)
        return reply(error)

    async def exchange(self, *pieces: bytes, pause_s: float = 0.0) -> list[bytes]:
        """Send `pieces` and return the status of each reply, once the server has closed."""
        return re.findall(rb"HTTP/1.1 (\d+)", await self.raw(*pieces, pause_s=pause_s))

    async def raw(self, *pieces: bytes, pause_s: float = 0.0) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        reading = asyncio.create_task(reader.read())
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(pause_s)
        async with asyncio.timeout(gateway_serving.LIMIT_S):
            replies = await reading
        writer.close()
        await writer.wait_closed()
        return replies


@pytest.fixture
async def echo() -> AsyncIterator[Echo]:
    echo, state = Echo(), ServerState()
    config = uvicorn.Config(echo.app, interface="asgi3", access_log=False, log_config=None)
    config.load()
    limits = Limits(idle_s=60, head_s=1, max_head_bytes=MAX_HEAD)
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(
            config, state, {}, lifecycle=Lifecycle("it"), limits=limits, reject=echo.reject
        ),
        "127.0.0.1",
    )
    echo.port = server.sockets[0].getsockname()[1]
    yield echo
    server.close()
    for connection in list(state.connections):
        connection.transport.abort()
    await server.wait_closed()


def test_uvicorn_is_the_version_whose_methods_are_known() -> None:
    assert version("uvicorn") == "0.54.0", (
        "`connections` overrides private methods of uvicorn's httptools protocol: read their new "
        "form, try the tests of this file, and pin the new version here and in pyproject.toml"
    )


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"x" * 2 * MAX_HEAD + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nA: " + b"x" * 2 * MAX_HEAD + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"a: b\r\n" * MAX_HEAD + b"\r\n",
        b"GET / HTTP/1.1\r\n" + b"x" * 2 * MAX_HEAD,
    ],
    ids=["url", "one header", "many headers", "endless name"],
)
@pytest.mark.parametrize("piece", [500, 10**6], ids=["in pieces", "at once"])
async def test_a_head_above_its_limit_is_431(echo: Echo, head: bytes, piece: int) -> None:
    pieces = [head[at : at + piece] for at in range(0, len(head), piece)]
    replies = await echo.raw(*pieces)
    assert replies.startswith(b"HTTP/1.1 431 ")
    assert b"connection: close" in replies.lower()
    error = json.loads(replies.partition(b"\r\n\r\n")[2])["error"]
    assert "RAGLAN_GATEWAY_MAX_HEAD_BYTES" in error["message"]
    assert echo.requests == []
    assert echo.refused == [Check.HEAD_SIZE]


@pytest.mark.parametrize(
    "begun", [b"0\r\nTrailer: ", b"1;extension="], ids=["trailer", "extension"]
)
async def test_what_is_neither_head_nor_body_has_the_same_limit(echo: Echo, begun: bytes) -> None:
    head = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n"
    replies = await echo.exchange(head + begun, *[b"x" * 500] * 20, pause_s=0.001)
    assert replies == [b"431"]
    assert echo.requests == []


async def test_a_megabyte_of_head_is_not_kept(echo: Echo) -> None:
    """The connection stops to parse at the limit, and still reads so that the reply arrives."""
    replies = await echo.raw(b"GET / HTTP/1.1\r\nA: ", *[b"x" * 65536] * 64, pause_s=0.001)
    assert replies.startswith(b"HTTP/1.1 431 ")
    assert echo.refused == [Check.HEAD_SIZE]


async def test_the_limit_is_of_each_head_not_of_the_connection(echo: Echo) -> None:
    large = b"GET /get HTTP/1.1\r\nHost: localhost\r\nA: " + b"x" * (MAX_HEAD - 100) + b"\r\n\r\n"
    last = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    assert await echo.exchange(large * 3 + last) == [b"200"] * 4


async def test_a_large_body_before_a_head_does_not_count_as_head(echo: Echo) -> None:
    body = b"x" * 3 * MAX_HEAD
    post = b"POST /p HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
    last = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    assert await echo.exchange(post + body + last[:20], last[20:], pause_s=0.05) == [b"200"] * 2


H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQ\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize(
    ("framing", "body"),
    [
        (b"Content-Length: %d\r\n" % len(SMUGGLED), SMUGGLED),
        (
            b"Transfer-Encoding: chunked\r\n",
            b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED),
        ),
    ],
    ids=["length", "chunked"],
)
@pytest.mark.parametrize("upgrade", [H2C, H2C.replace(b"h2c", b"websocket")], ids=["h2c", "ws"])
@pytest.mark.parametrize("piece", [7, 10**6], ids=["in pieces", "at once"])
async def test_the_body_of_an_upgrade_is_a_body(
    echo: Echo, framing: bytes, body: bytes, upgrade: bytes, piece: int
) -> None:
    head = b"POST /post?a=b HTTP/1.1\r\nHost: localhost\r\n" + upgrade + framing + b"\r\n"
    last = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    sent = head + body + last
    pieces = [sent[at : at + piece] for at in range(0, len(sent), piece)]
    assert await echo.exchange(*pieces) == [b"200", b"200"]
    assert echo.requests == [("POST", "/post", SMUGGLED), ("GET", "/get", b"")]


async def test_an_upgrade_without_a_body_leaves_the_connection_as_it_is(echo: Echo) -> None:
    head = b"GET /get HTTP/1.1\r\nHost: localhost\r\n" + H2C + b"\r\n"
    last = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    assert await echo.exchange(head * 2 + last) == [b"200"] * 3
    assert [path for _, path, _ in echo.requests] == ["/get"] * 3


@pytest.mark.parametrize(
    "sent",
    [
        b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nFolded: b\r\n c\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
    ids=["connect", "h2", "two framings", "two lengths", "bad chunk", "folded", "bytes in url"],
)
async def test_what_may_be_read_in_two_ways_is_400(echo: Echo, sent: bytes) -> None:
    assert await echo.exchange(sent) == [b"400"]
    assert echo.requests == []
    assert echo.refused == [Check.MALFORMED]


async def test_trailers_are_no_headers(echo: Echo) -> None:
    sent = (
        b"POST /p HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
        b"Connection: close\r\n\r\n1\r\na\r\n0\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n"
    )
    assert await echo.exchange(sent) == [b"200"]
    assert echo.headers == [[b"host", b"transfer-encoding", b"connection"]]


async def test_a_bad_request_behind_one_that_runs_waits_for_its_reply(echo: Echo) -> None:
    """Sent at once, the 400 would be taken for the reply to the request that runs."""
    wait = b"GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n"
    exchange = asyncio.create_task(echo.exchange(wait + GET, b"nonsense\r\n\r\n", pause_s=0.05))
    await gateway_serving.until(lambda: echo.refused, "the bad request is seen")
    echo.gate.set()
    assert await exchange == [b"200", b"200"]
    assert [path for _, path, _ in echo.requests] == ["/wait", "/get"]


async def test_a_slow_head_is_408() -> None:
    async with gateway_serving.serving(head_s=0.2) as (gateway, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.settings.port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost:")
        async with asyncio.timeout(gateway_serving.LIMIT_S):
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        await writer.wait_closed()
    assert head.startswith(b"HTTP/1.1 408 ")
    assert "RAGLAN_GATEWAY_HEAD_S" in json.loads(body)["error"]["message"]


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /healthz HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: 127.0.0.1\r\n\r\n", b"400"),
        (b"GET /healthz HTTP/1.0\r\n\r\n", b"200"),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", b"200"),
    ],
)
async def test_a_request_has_one_host(head: bytes, status: bytes) -> None:
    async with gateway_serving.serving() as (gateway, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.settings.port)
        writer.write(head)
        async with asyncio.timeout(gateway_serving.LIMIT_S):
            line = await reader.readline()
            if status == b"400":
                assert b"connection: close" in (await reader.read()).lower()
        writer.close()
        await writer.wait_closed()
    assert line.split()[1] == status
