"""What holds a place, what does not, and that every refusal looks and counts alike."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress
from typing import Any

import gateway_serving
import httpx
import pytest
from raglan.errors import Cancelled, PayloadTooLarge, Unavailable
from raglan_gateway.admission.admission import MIN_UPLOAD_RATE
from raglan_gateway.admission.body import BodyLimits, LimitedBody, Quota
from raglan_gateway.admission.checks import Check
from raglan_gateway.error_reply import RequestTimeout

DOCUMENTS = "/v1/collections/default/documents"
ORIGIN = "https://app.example.com"


async def unfinished(stack: AsyncExitStack, port: int, path: str, kind: str, body: bytes) -> None:
    """Send a request whose body does not end, and leave it open until `stack` closes."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
    writer.write(head.encode() + b"Content-Length: 100000\r\n\r\n" + body)
    await writer.drain()
    stack.push_async_callback(aborted, writer)


async def aborted(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with suppress(ConnectionError):
        await writer.wait_closed()


def refused(gateway: gateway_serving.Gateway, check: Check) -> float:
    registry = gateway.app.state.metrics.registry
    name = "raglan_gateway_refused_requests_total"
    return float(registry.get_sample_value(name, {"check": check.value}) or 0)


@pytest.mark.parametrize(
    ("path", "kind", "begun"),
    [
        ("/v1/query", "application/json", b'{"query"'),
        (DOCUMENTS, "application/json", b'{"documents"'),
        (DOCUMENTS, "multipart/form-data; boundary=b", b"--b\r\n"),
    ],
    ids=["query", "documents", "files"],
)
async def test_slow_bodies_hold_no_place_of_a_query(path: str, kind: str, begun: bytes) -> None:
    async with (
        gateway_serving.serving(max_concurrent_requests=2, max_concurrent_uploads=50) as (
            gateway,
            _,
        ),
        httpx.AsyncClient(base_url=gateway.url) as client,
        AsyncExitStack() as stack,
    ):
        for _ in range(20):
            await unfinished(stack, gateway.settings.port, path, kind, begun)
        for _ in range(5):
            reply = await client.post("/v1/search", json={"query": "a", "top_k": 0})
            assert reply.status_code == 422, "it is read and answered"
        assert refused(gateway, Check.CONCURRENCY) == 0


async def test_uploads_above_their_limit_are_503_and_queries_go_on() -> None:
    async with (
        gateway_serving.serving(max_concurrent_uploads=2) as (gateway, _),
        httpx.AsyncClient(base_url=gateway.url) as client,
        AsyncExitStack() as stack,
    ):
        for _ in range(2):
            await unfinished(stack, gateway.settings.port, DOCUMENTS, "application/json", b"{")
        status = 0
        while status != 503:  # until both are being served
            reply = await client.post(DOCUMENTS, content=b"{}", headers={"content-type": "a/b"})
            status = reply.status_code
        assert reply.headers["retry-after"] == "1"
        assert "RAGLAN_GATEWAY_MAX_CONCURRENT_UPLOADS" in reply.json()["error"]["message"]
        assert refused(gateway, Check.CONCURRENCY) >= 1
        assert (await client.post("/v1/query", json={})).status_code == 422


@pytest.mark.parametrize(
    ("options", "send", "status", "check"),
    [
        ({"max_request_bytes": 10}, {"content": b"x" * 11}, 413, Check.BODY_SIZE),
        ({"rate_limit_per_minute": 1}, {"json": {"query": ""}}, 429, Check.RATE),
        ({}, {"headers": {"host": "evil.example.com"}}, 403, Check.ORIGIN),
    ],
    ids=["size", "rate", "host"],
)
async def test_every_refusal_has_the_envelope_and_lets_its_page_read_it(
    options: dict[str, Any], send: dict[str, Any], status: int, check: Check
) -> None:
    async with (
        gateway_serving.serving(cors_origins=ORIGIN, **options) as (gateway, _),
        httpx.AsyncClient(base_url=gateway.url) as client,
    ):
        await client.post("/v1/search", json={})  # the one that its rate allows
        headers = {"origin": ORIGIN, **send.pop("headers", {})}
        reply = await client.post("/v1/search", headers=headers, **send)
        assert reply.status_code == status
        assert set(reply.json()["error"]) == {"type", "code", "message", "request_id", "retryable"}
        assert reply.json()["error"]["request_id"] == reply.headers["x-request-id"]
        assert reply.headers["access-control-allow-origin"] == ORIGIN
        assert ("retry-after" in reply.headers) is (status in (429, 503))
        assert refused(gateway, check) == 1


@pytest.mark.parametrize(
    ("sent", "status", "check"),
    [(b"10000\r\n" + b"x" * 65536, 413, Check.BODY_SIZE), (b"1\r\n", 408, Check.BODY_TIME)],
    ids=["large", "slow"],
)
async def test_a_chunked_body_is_refused_while_it_arrives(
    sent: bytes, status: int, check: Check
) -> None:
    async with gateway_serving.serving(
        max_request_bytes=10_000, body_s=0.3, cors_origins=ORIGIN
    ) as (gateway, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.settings.port)
        head = f"POST /v1/query HTTP/1.1\r\nHost: localhost\r\nOrigin: {ORIGIN}\r\n"
        writer.write(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n" + sent)
        async with asyncio.timeout(gateway_serving.LIMIT_S):
            reply = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        await aborted(writer)
        assert reply.startswith(f"http/1.1 {status} ")
        assert f"access-control-allow-origin: {ORIGIN}" in reply
        assert refused(gateway, check) == 1


async def test_a_refusal_reaches_a_client_that_still_sends() -> None:
    """A proxy that closes each connection would show a reset as its own 502."""
    size = 20_000_000
    async with gateway_serving.serving() as (gateway, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.settings.port)
        head = "POST /v1/query HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        writer.write(f"{head}Content-Length: {size}\r\n\r\n".encode())
        for _ in range(size // 100_000):
            writer.write(b"x" * 100_000)
            await writer.drain()
        async with asyncio.timeout(gateway_serving.LIMIT_S):
            assert (await reader.read()).startswith(b"HTTP/1.1 413 ")
        await aborted(writer)


def pieces(*sizes: int, more: bool = True, pause_s: float = 0.0):  # type: ignore[no-untyped-def]
    """A `receive` of pieces of these sizes; afterwards the client neither sends nor leaves."""
    left = list(sizes)

    async def receive() -> dict[str, Any]:
        if not left:
            await asyncio.Event().wait()
        await asyncio.sleep(pause_s)
        body = b"x" * left.pop(0)
        return {"type": "http.request", "body": body, "more_body": more or bool(left)}

    return receive


def limited(receive: Any, budget: Quota | None = None, **changes: Any) -> LimitedBody:
    limits = BodyLimits(
        **({"max_bytes": 100, "setting": "S", "pause_s": 0.05, "min_rate": None} | changes)
    )
    return LimitedBody(receive, {}, limits, budget, lambda check: None)


async def test_an_upload_slower_than_the_least_rate_is_408() -> None:
    body = limited(pieces(*[1] * 100, pause_s=0.01), min_rate=MIN_UPLOAD_RATE)
    with pytest.raises(RequestTimeout, match="500 bytes a second"):
        await body.receive_whole()


async def test_the_time_of_our_own_reader_is_not_the_clients() -> None:
    body = limited(pieces(10, 10, more=False))
    await body.receive()
    await asyncio.sleep(0.1)
    await body.receive()


async def test_a_whole_body_is_given_once_and_then_the_disconnect() -> None:
    receive = await limited(pieces(10, 20, more=False)).receive_whole()
    assert await receive() == {"type": "http.request", "body": b"x" * 30}
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(receive(), 0.02)


async def test_a_client_that_leaves_is_no_end_of_the_body() -> None:
    async def leave() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    with pytest.raises(Cancelled):
        await limited(leave).receive_whole()


async def test_bodies_share_their_bytes_and_give_them_back() -> None:
    budget = Quota(100, "bytes", "RAGLAN_GATEWAY_MAX_UPLOAD_BYTES", lambda check: None)
    first, second = limited(pieces(60), budget), limited(pieces(60), budget)
    await first.receive()
    with pytest.raises(Unavailable, match="RAGLAN_GATEWAY_MAX_UPLOAD_BYTES"):
        await second.receive()
    first.release()
    second.release()
    assert budget.used == 0
    third = limited(pieces(101), budget)
    with pytest.raises(PayloadTooLarge):
        await third.receive_whole()
    assert budget.used == 0
