"""One line a request, whatever becomes of it, and none that holds what was asked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from raglan_gateway.app import build
from raglan_gateway.settings import GatewaySettings
from structlog.testing import capture_logs

ASKED = "how-many-angels-dance"


@pytest.fixture
async def gateway() -> AsyncIterator[httpx.AsyncClient]:
    nowhere = {
        f"{name}_address": "127.0.0.1:1"
        for name in ("embedder", "retriever", "reranker", "generator", "ingester")
    }
    settings = GatewaySettings(**nowhere, default_collection="", max_request_bytes=2_000)
    app = build(settings)

    async def fail() -> None:
        raise ValueError("unforeseen")

    app.add_api_route("/fail", fail)
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
    ):
        yield client


JSON = {"content-type": "application/json"}
REQUESTS: list[tuple[str, str, dict[str, Any], int, str]] = [
    ("POST", "/v1/query", {"json": {"query": ASKED, "timeout_ms": 500}}, 503, "/v1/query"),
    ("POST", "/v1/search", {"json": {"query": ASKED, "timeout_ms": 500}}, 503, "/v1/search"),
    ("POST", "/v1/query", {"json": {"query": ASKED, "top_k": "x"}}, 422, "/v1/query"),
    ("POST", "/v1/query", {"content": b"{" + ASKED.encode(), "headers": JSON}, 422, "/v1/query"),
    ("POST", "/v1/query", {"content": b"{" + ASKED.encode()}, 415, "/v1/query"),
    ("POST", "/v1/query", {"content": ASKED.encode() * 200}, 413, "/v1/query"),
    ("GET", f"/nowhere?q={ASKED}", {}, 404, "other"),
    ("GET", "/v1/query", {}, 405, "/v1/query"),
    ("GET", "/fail", {}, 500, "/fail"),
]


def shown(logs: list[Any]) -> list[Any]:
    """Lines at INFO, less those of replicas that come and go: they belong to no request."""
    lines = [each for each in logs if each["log_level"] == "info"]
    return [each for each in lines if each["event"] != "endpoint"]


@pytest.mark.parametrize(("method", "path", "more", "status", "route"), REQUESTS)
async def test_a_request_is_one_line(
    gateway: httpx.AsyncClient,
    method: str,
    path: str,
    more: dict[str, Any],
    status: int,
    route: str,
) -> None:
    with capture_logs() as logs:
        reply = await gateway.request(method, path, **more)
    assert reply.status_code == status, reply.text
    (line,) = shown(logs)
    elapsed_ms = line.pop("elapsed_ms")
    assert elapsed_ms >= 0
    assert line == {
        "event": "request",
        "method": method,
        "route": route,
        "status": status,
        "log_level": "info",
    }
    assert ASKED not in str(logs)


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
async def test_what_asks_every_few_seconds_is_no_line(
    gateway: httpx.AsyncClient, path: str
) -> None:
    with capture_logs() as logs:
        await gateway.get(path)
    assert shown(logs) == []
