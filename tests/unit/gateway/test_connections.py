"""Clients that are slow to send, slow to read, or do neither: what they cost, and for how long."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator
from contextlib import suppress

import gateway_serving
import pytest
import uvicorn
from raglan.lifecycle import Lifecycle
from raglan_gateway.connections import Connection, Limits
from uvicorn.server import ServerState

SLOW_S = 3.0
"""The longest silence of a slow client, whose own pause is a thirtieth of it."""

HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def opened(port: int, sent: bytes, *, receive_buffer: int | None = None) -> socket.socket:
    """A raw connection that has sent `sent`. Close it."""
    raw = socket.socket()
    if receive_buffer:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    raw.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(raw, ("127.0.0.1", port))
    await loop.sock_sendall(raw, sent)
    return raw


async def everything(raw: socket.socket) -> bytes:
    """What comes until the other side closes."""
    loop, found = asyncio.get_running_loop(), b""
    async with asyncio.timeout(gateway_serving.LIMIT_S):
        try:
            while piece := await loop.sock_recv(raw, 65536):
                found += piece
        except ConnectionResetError:
            pass
    return found


async def test_a_reader_that_stops_holds_the_stream_back_then_loses_it() -> None:
    async with gateway_serving.serving(slow_reader_s=1) as (gateway, _):
        ask = b"GET /flood HTTP/1.1\r\nHost: localhost\r\n\r\n"
        began = time.monotonic()
        with await opened(gateway.settings.port, ask, receive_buffer=4096):
            await gateway_serving.until(lambda: gateway.closed, "the stream is closed")
        assert gateway.produced * 10_000 < 1_000_000, "nobody reads, and yet more is produced"
        assert time.monotonic() - began >= 1


@pytest.mark.slow
async def test_a_reader_that_goes_on_slowly_keeps_its_stream() -> None:
    loop = asyncio.get_running_loop()
    async with gateway_serving.serving(slow_reader_s=SLOW_S) as (gateway, _):
        ask = b"GET /flood HTTP/1.1\r\nHost: localhost\r\n\r\n"
        with await opened(gateway.settings.port, ask, receive_buffer=4096) as raw:
            began = time.monotonic()
            while time.monotonic() < began + 1.5 * SLOW_S:
                await asyncio.sleep(SLOW_S / 30)
                await loop.sock_recv(raw, 65536)
            assert gateway.closed == 0
        await gateway_serving.until(lambda: gateway.closed, "the client's leaving is noticed")


async def test_a_reader_that_stops_does_not_hold_up_the_end() -> None:
    async with gateway_serving.serving(shutdown_drain_s=0, shutdown_grace_s=0.1) as (gateway, task):
        ask = b"GET /flood HTTP/1.1\r\nHost: localhost\r\n\r\n"
        with await opened(gateway.settings.port, ask, receive_buffer=4096):
            await gateway_serving.until(lambda: gateway.produced, "the stream runs")
            await asyncio.sleep(0.2)
            gateway.stopping.set()
            assert await asyncio.wait_for(task, gateway_serving.LIMIT_S) == 0
    assert gateway.closed == 1


def query(announced: int, sent: bytes) -> bytes:
    head = f"POST /v1/query HTTP/1.1\r\nHost: localhost\r\nContent-Length: {announced}\r\n"
    return head.encode() + b"Content-Type: application/json\r\n\r\n" + sent


async def test_a_body_that_does_not_arrive_is_answered_with_408_and_closed() -> None:
    async with gateway_serving.serving(body_s=0.3) as (gateway, _):
        with await opened(gateway.settings.port, query(100, b'{"query"')) as raw:
            reply = await everything(raw)
    head, _, body = reply.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408")
    assert "RAGLAN_GATEWAY_BODY_S" in json.loads(body)["error"]["message"]


async def test_trickling_bytes_do_not_buy_a_small_body_more_time() -> None:
    async with gateway_serving.serving(body_s=0.4) as (gateway, _):
        with await opened(gateway.settings.port, query(1000, b'{"query"')) as raw:
            reading = asyncio.create_task(everything(raw))
            while not reading.done():
                with suppress(ConnectionError):
                    await asyncio.get_running_loop().sock_sendall(raw, b" ")
                await asyncio.wait({reading}, timeout=0.05)
            assert (await reading).startswith(b"HTTP/1.1 408")


@pytest.mark.slow
async def test_an_upload_has_all_the_time_that_it_makes_use_of() -> None:
    loop = asyncio.get_running_loop()
    async with gateway_serving.serving(body_s=SLOW_S) as (gateway, _):
        head = query(1000, b"").replace(b"/v1/query", b"/v1/collections/x/documents")
        with await opened(gateway.settings.port, head) as raw:
            for _ in range(40):
                await asyncio.sleep(SLOW_S / 30)
                await loop.sock_sendall(raw, b" " * 25)
            reply = await asyncio.wait_for(loop.sock_recv(raw, 100), gateway_serving.LIMIT_S)
    assert reply.startswith(b"HTTP/1.1 422"), "the whole body arrived, and is no JSON"


@pytest.fixture
async def connections() -> AsyncIterator[tuple[int, ServerState]]:
    """uvicorn with our connections, around an application that says "ok"."""

    async def ok(scope: object, receive: object, send) -> None:  # type: ignore[no-untyped-def]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    state, config = ServerState(), uvicorn.Config(ok, log_config=None)
    config.load()
    options = {
        "lifecycle": Lifecycle("the gateway"),
        "limits": Limits(idle_s=5.0, head_s=2.0),
    }
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(config, state, {}, **options), "127.0.0.1"
    )
    yield server.sockets[0].getsockname()[1], state
    server.close()
    for connection in list(state.connections):
        connection.transport.abort()
    await server.wait_closed()


async def the_connection(state: ServerState) -> Connection:
    await gateway_serving.until(lambda: state.connections, "it is connected")
    (connection,) = state.connections
    assert isinstance(connection, Connection)
    return connection


async def test_a_request_that_arrives_as_an_idle_connection_closes_is_served(
    connections: tuple[int, ServerState],
) -> None:
    port, state = connections
    with await opened(port, HEALTH) as raw:
        await gateway_serving.until(lambda: state.total_requests == 1, "the first is served")
        connection = await the_connection(state)
        raw.send(HEALTH)  # in the kernel, unread, at the moment of the shutdown
        connection.shutdown()
        await gateway_serving.until(lambda: state.total_requests == 2, "the second is served")


async def test_an_idle_connection_closes_at_the_shutdown(
    connections: tuple[int, ServerState],
) -> None:
    port, state = connections
    with await opened(port, HEALTH) as raw:
        await gateway_serving.until(lambda: state.total_requests, "it is served")
        (await the_connection(state)).shutdown()
        assert (await everything(raw)).endswith(b"ok\r\n0\r\n\r\n")


@pytest.mark.parametrize(
    ("sent", "after_s"),
    [(b"", 5.0), (HEALTH, 5.0), (b"GET /heal", 2.0), (HEALTH + b"GET", 2.0)],
    ids=["never a byte", "one request", "half a head", "half of the second head"],
)
async def test_a_connection_without_a_whole_request_is_closed_in_time(
    connections: tuple[int, ServerState], sent: bytes, after_s: float
) -> None:
    port, state = connections
    began = time.monotonic()
    with await opened(port, sent) as raw:
        connection = await the_connection(state)
        await gateway_serving.until(
            lambda: state.total_requests == sent.count(b"\r\n\r\n"), "requests are served"
        )
        begun = bool(sent.rpartition(b"\r\n\r\n")[2])
        await gateway_serving.until(
            lambda: (connection._head_since is not None) is begun, "what was sent is read"
        )
        connection.close_if_idle(began + after_s)
        assert not connection.transport.is_closing()
        connection.close_if_idle(time.monotonic() + after_s + 0.1)
        await everything(raw)
        assert not state.connections
