"""Queries that are refused before they are read, on real connections."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import httpx
import pytest
import uvicorn
from raglan.deadline import Deadline
from raglan.lifecycle import Lifecycle
from raglan.resilience.limiter import AdaptiveLimiter, Priority
from raglan_gateway.access.access import Access
from raglan_gateway.access.audit import AuditLog
from raglan_gateway.admission.admission import Admission
from raglan_gateway.admission.load_shedder import LoadShedder
from raglan_gateway.admission.rate_limit import RateLimit
from raglan_gateway.api.request_middleware import RequestMiddleware
from raglan_gateway.connections import Connection, Limits
from raglan_gateway.metrics import Metrics
from raglan_gateway.settings import GatewaySettings
from raglan_gateway.store import open_database, require_folder
from raglan_gateway.traces.reporter import TraceReporter
from uvicorn.server import ServerState

ASK = {"query": "What?"}


class Served:
    """A limiter with one place, a metric registry, and what was admitted."""

    def __init__(self) -> None:
        self.limiter = AdaptiveLimiter(initial=1, smallest=1, largest=1, queue=0)
        self.metrics = Metrics()
        self.came_in: list[str] = []
        self.port = 0

    async def app(self, scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        self.came_in.append(scope["path"])
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    def refused(self) -> float:
        name = "raglan_gateway_request_duration_seconds_count"
        labels = {"method": "POST", "route": "/v1/query", "status": "429"}
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    served = Served()
    state = ServerState()
    settings = GatewaySettings()
    database = open_database(settings)
    require_folder(settings)
    access = Access(database, keep_entries=1_000)
    await access.prepare()
    admission = Admission(
        settings,
        load_shedder=LoadShedder(served.limiter),
        rate_limit=RateLimit(),
        check_origin=lambda scope: None,
        access=access,
        count=served.metrics.refused,
    )
    app = RequestMiddleware(
        served.app,
        admission=admission,
        lifecycle=Lifecycle("it"),
        metrics=served.metrics,
        reporter=TraceReporter(None),
        audit=AuditLog(database, 1_000),
    )
    config = uvicorn.Config(app, interface="asgi3", access_log=False, log_config=None)
    config.load()
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(
            config,
            state,
            {},
            lifecycle=Lifecycle("it"),
            limits=Limits(idle_s=5.0),
        ),
        "127.0.0.1",
    )
    served.port = server.sockets[0].getsockname()[1]
    yield served
    server.close()
    for connection in list(state.connections):
        connection.transport.abort()
    await server.wait_closed()


@pytest.fixture
async def client(served: Served) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=1)
    url = f"http://127.0.0.1:{served.port}"
    async with httpx.AsyncClient(base_url=url, limits=limits) as client:
        yield client


async def test_a_query_without_a_place_is_refused_and_the_connection_goes_on(
    served: Served, client: httpx.AsyncClient
) -> None:
    async with served.limiter.slot(Priority.DEFAULT, Deadline.after(5)):
        refused = await client.post("/v1/query", json=ASK, headers={"x-request-id": "mine"})
        assert refused.status_code == 429
        error = refused.json()["error"]
        assert (error["code"], error["request_id"]) == ("RESOURCE_EXHAUSTED", "mine")
        assert refused.headers["x-request-id"] == "mine"
        assert int(refused.headers["retry-after"]) >= 1
        assert served.came_in == []
        assert served.refused() == 1
        health = await client.get("/healthz")
        assert health.status_code == 200, "only queries are refused"
    assert (await client.post("/v1/query", json=ASK)).status_code == 200
    assert served.came_in == ["/healthz", "/v1/query"]


async def test_a_large_body_that_is_still_to_come_is_read_over(
    served: Served, client: httpx.AsyncClient
) -> None:
    async with served.limiter.slot(Priority.DEFAULT, Deadline.after(5)):
        large = json.dumps(ASK | {"query": "x" * 500_000}).encode()
        for _ in range(3):
            refused = await client.post("/v1/query", content=large)
            assert refused.status_code == 429
    assert (await client.get("/healthz")).status_code == 200
    assert served.came_in == ["/healthz"]


async def test_an_id_that_cannot_be_used_is_replaced(
    served: Served, client: httpx.AsyncClient
) -> None:
    async with served.limiter.slot(Priority.DEFAULT, Deadline.after(5)):
        hostile = {"x-request-id": "a b<script>"}
        refused = await client.post("/v1/query", json=ASK, headers=hostile)
        assert "<" not in refused.text
        assert refused.headers["x-request-id"] == refused.json()["error"]["request_id"]


async def test_pipelined_requests_are_answered_in_their_order(served: Served) -> None:
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(served.limiter.slot(Priority.DEFAULT, Deadline.after(5)))
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        post = b"POST /v1/query HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"
        get = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
        last = post.replace(b"Host: localhost", b"Host: x\r\nConnection: close")
        writer.write(get + post + get + last)
        async with asyncio.timeout(5):
            replies = await reader.read()
        writer.close()
        await writer.wait_closed()
    assert re.findall(rb"HTTP/1.1 (\d+)", replies) == [b"200", b"429", b"200", b"429"]
