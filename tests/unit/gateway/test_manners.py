"""Every reply that is an error has the envelope, and repeats little of what was sent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import gateway_serving
import httpx
import pytest
from raglan.errors import NotFound, Unavailable
from raglan.rpc.server import Server, Service
from raglan.settings import GrpcSettings
from raglan.v1 import retriever_pb2_grpc
from raglan_gateway.app import build
from raglan_gateway.settings import GatewaySettings

FIELDS = {"type", "code", "message", "request_id", "retryable"}
JSON = {"content-type": "application/json"}
DOCUMENTS = "/v1/collections/default/documents"
LONG = "x" * 5_000


@pytest.fixture
async def gateway() -> AsyncIterator[httpx.AsyncClient]:
    app = build(GatewaySettings(**gateway_serving.NOWHERE))
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
    ):
        yield client


def message(response: httpx.Response) -> str:
    error = response.json()["error"]
    assert set(error) == FIELDS
    assert error["request_id"] == response.headers["x-request-id"]
    return str(error["message"])


@pytest.mark.parametrize(
    ("body", "named"),
    [(b"{", "at character 1"), (b'{"query": a}', "at character 10"), (b"x", "at character 0")],
)
async def test_malformed_json_is_named_with_its_place(
    gateway: httpx.AsyncClient, body: bytes, named: str
) -> None:
    response = await gateway.post("/v1/query", content=body, headers=JSON)
    assert response.status_code == 422
    assert message(response).startswith("The body is not JSON: ")
    assert named in message(response)


@pytest.mark.parametrize("body", [b"\xff\xfe\xff", b"[" * 100_000, b'{"top_k": ' + b"9" * 5_000])
async def test_json_that_cannot_be_parsed_at_all_has_the_envelope(
    gateway: httpx.AsyncClient, body: bytes
) -> None:
    response = await gateway.post("/v1/query", content=body, headers=JSON)
    assert response.status_code in (400, 422)
    assert len(message(response)) < 300


@pytest.mark.parametrize("kind", ["text/plain", "application/xml", "", LONG])
@pytest.mark.parametrize("path", ["/v1/query", "/v1/search", "/v1/collections", DOCUMENTS])
async def test_another_content_type_is_415(
    gateway: httpx.AsyncClient, path: str, kind: str
) -> None:
    headers = {"content-type": kind}
    response = await gateway.post(path, content=b'{"query": "a"}', headers=headers)
    assert response.status_code == 415
    assert "application/json" in message(response)
    assert LONG[:101] not in response.text


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/v1/query"),
        ("POST", "/healthz"),
        ("DELETE", "/v1/search"),
        (LONG[:500], "/v1/jobs"),
    ],
)
async def test_another_method_is_405_and_says_what_is_taken(
    gateway: httpx.AsyncClient, method: str, path: str
) -> None:
    response = await gateway.request(method, path)
    assert response.status_code == 405
    assert response.headers["allow"]
    assert LONG[:101] not in message(response)


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_probes_may_ask_for_the_head_alone(gateway: httpx.AsyncClient, path: str) -> None:
    head, whole = await gateway.head(path), await gateway.get(path)
    assert head.status_code == whole.status_code


async def test_no_message_repeats_more_than_a_hundred_characters(
    gateway: httpx.AsyncClient,
) -> None:
    posts: list[dict[str, Any]] = [
        {LONG: 1},
        {"query": "a", LONG: 1},
        {"query": "a", "mode": LONG},
        {"query": "a", "collections": [LONG]},
        {"query": "a", "filter": {LONG: 1}},
        {"query": "a", "filter": {"eq": {LONG: 1}}},
        {"query": "a", "filter": {"eq": {"field": LONG, "value": 1}}},
        {"query": "a", "filter": {"eq": {"field": "a", "value": {LONG: LONG}}}},
        {"query": "a", "top_k": LONG},
    ]
    replies = [await gateway.post("/v1/query", json=body) for body in posts]
    documents: list[dict[str, Any]] = [
        {"id": LONG, "text": "a"},
        {"id": f"../{LONG[:400]}", "text": "a"},
        {"id": f"\0{LONG[:400]}", "text": "a"},
        {"id": "a", "text": "a", LONG: 1},
        {"id": "a", "text": [LONG]},
    ]
    for document in documents:
        replies.append(await gateway.post(DOCUMENTS, json={"documents": [document]}))
    ids = {"ids": ["a", LONG]}
    replies += [
        await gateway.post("/v1/query", json={"query": "a"}, headers={"x-raglan-priority": LONG}),
        await gateway.post(f"{DOCUMENTS}/delete", json=ids),
        await gateway.get(f"/v1/jobs/{LONG}"),
        await gateway.get("/v1/jobs", params={"limit": LONG}),
        await gateway.get(f"/v1/collections/{LONG}"),
        await gateway.delete(f"{DOCUMENTS}/{LONG}"),
        await gateway.get(f"/v1/traces/{LONG}"),
        await gateway.get(f"/{LONG}"),
        await gateway.post(DOCUMENTS, files={LONG: b"x"}),
        await gateway.post(DOCUMENTS, files={"files": b"x", LONG: b"x"}),
        await gateway.post(DOCUMENTS, data={"metadata": LONG}, files={"files": b"x"}),
    ]
    for response in replies:
        assert response.status_code in (400, 404, 422), response.text[:300]
        assert LONG[:101] not in message(response), response.request.url


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nbad header\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
async def test_what_is_not_http_is_400_in_the_envelope(sent: bytes) -> None:
    async with gateway_serving.serving() as (gateway, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.settings.port)
        writer.write(sent)
        head, _, body = (await asyncio.wait_for(reader.read(), 10)).partition(b"\r\n\r\n")
        writer.close()
    assert head.startswith(b"HTTP/1.1 400 ")
    error = json.loads(body)["error"]
    assert set(error) == FIELDS
    assert f"x-request-id: {error['request_id']}".encode() in head.lower()
    assert b"connection: close" in head.lower()


@pytest.mark.parametrize("path", ["/v1/query", DOCUMENTS])
@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data; boundary=b"])
async def test_a_client_that_leaves_in_mid_upload_is_499_without_a_traceback(
    path: str, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    statuses: list[int] = []
    async with gateway_serving.serving() as (gateway, _):
        served = gateway.app.state.metrics.served

        def counted(method: str, route: str, status: int, elapsed_s: float) -> None:
            served(method, route, status, elapsed_s)
            if method == "POST":
                statuses.append(status)

        gateway.app.state.metrics.served = counted
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
        _, writer = await asyncio.open_connection("127.0.0.1", gateway.settings.port)
        begun = "--b\r\n" if kind.startswith("multipart") else '{"'
        writer.write(f"{head}Content-Length: 1000\r\n\r\n{begun}".encode())
        await writer.drain()
        await asyncio.sleep(0)
        writer.transport.abort()
        await gateway_serving.until(lambda: statuses, "the request is recorded")
    if path == "/v1/query" and kind.startswith("multipart"):
        assert statuses in ([499], [415])
    else:
        assert statuses == [499]
    assert "Traceback" not in "".join(capsys.readouterr())


class Refusing(retriever_pb2_grpc.RetrieverServiceServicer):
    """A retriever whose searches fail with `error`."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def Search(self, request: Any, context: Any) -> Any:
        raise self.error


async def asked(error: Exception) -> httpx.Response:
    """The reply to a stream over a retriever that fails with `error`."""
    retriever = Refusing(error)

    def register(server: Any) -> None:
        retriever_pb2_grpc.add_RetrieverServiceServicer_to_server(retriever, server)

    server = Server(
        Service("raglan.v1.RetrieverService", register),
        GrpcSettings(shutdown_drain_s=0, shutdown_grace_s=0),
    )
    await server.start()
    address = f"127.0.0.1:{server.port}"
    app = build(GatewaySettings(**(gateway_serving.NOWHERE | {"retriever_address": address})))
    transport = httpx.ASGITransport(app=app)
    try:
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
        ):
            async with asyncio.timeout(20):
                while (await client.get("/readyz")).status_code != 200:
                    await asyncio.sleep(0.01)
            return await client.post("/v1/query", json={"query": "a", "stream": True})
    finally:
        await server.stop()


async def test_an_unknown_collection_is_404_before_the_stream_begins() -> None:
    response = await asked(NotFound("There is no collection 'x'."))
    assert response.status_code == 404
    assert message(response) == "There is no collection 'x'."


async def test_the_error_event_of_a_stream_has_the_fields_of_the_envelope() -> None:
    response = await asked(Unavailable("The index is away."))
    assert response.status_code == 200
    begin, end = gateway_serving.events(response.text)
    assert begin[0] == "start"
    assert end[0] == "error"
    assert set(end[1]) == FIELDS
    assert end[1]["request_id"] == response.headers["x-request-id"]


@pytest.mark.parametrize(
    ("path", "status"),
    [("/healthz", 200), ("/docs", 200), ("/v1/nothing", 404), ("/v1/query", 405)],
)
async def test_a_browser_takes_no_reply_for_a_script_or_into_a_frame(
    gateway: httpx.AsyncClient, path: str, status: int
) -> None:
    reply = await gateway.get(path)
    assert reply.status_code == status
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["content-security-policy"] == "frame-ancestors 'none'"
    assert reply.headers["referrer-policy"] == "no-referrer"
