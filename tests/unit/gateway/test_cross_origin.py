"""Requests of foreign web pages: refused unless a setting allows them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from gateway_serving import NOWHERE
from pydantic import ValidationError
from raglan_gateway.app import build
from raglan_gateway.settings import GatewaySettings

DOCUMENTS = "/v1/collections/default/documents"
PAGE = "https://app.example.com"


@asynccontextmanager
async def gateway(**options: str) -> AsyncIterator[httpx.AsyncClient]:
    app = build(GatewaySettings(**(NOWHERE | options)))
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as client,
    ):
        yield client


def forbidden(response: httpx.Response, setting: str) -> bool:
    if response.status_code != 403:
        return False
    error = response.json()["error"]
    assert error["type"] == "forbidden"
    assert setting in error["message"]
    return True


@pytest.mark.parametrize(
    ("host", "served"),
    [
        ("localhost", True),
        ("localhost:8080", True),
        ("LOCALHOST.:8080", True),
        ("raglan.localhost:8080", True),
        ("127.0.0.1:8080", True),
        ("[::1]:8080", True),
        ("evil.example", False),
        ("evil.example:8080", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.evil.example", False),
        ("evil.example@127.0.0.1.evil.example", False),
        ("[::1", False),
        ("", False),
    ],
)
async def test_on_loopback_only_known_hosts_are_served(host: str, served: bool) -> None:
    async with gateway() as client:
        for path in ("/healthz", "/v1/traces", "/metrics", "/openapi.json"):
            response = await client.get(path, headers={"host": host})
            assert forbidden(response, "RAGLAN_GATEWAY_ALLOWED_HOSTS") is not served


@pytest.mark.parametrize(
    ("options", "host", "served"),
    [
        ({"allowed_hosts": "raglan.example.com, other"}, "raglan.example.com", True),
        ({"allowed_hosts": "raglan.example.com"}, "10.1.2.3:8080", True),
        ({"allowed_hosts": "raglan.example.com"}, "localhost", False),
        (
            {"allowed_hosts": "raglan.example.com", "host": "0.0.0.0", "anonymous": "allow"},
            "evil.example",
            False,
        ),
        ({"allowed_hosts": "*"}, "evil.example", True),
        ({"host": "0.0.0.0", "anonymous": "allow"}, "raglan", True),
        ({"host": "::1"}, "evil.example", False),
    ],
)
async def test_the_setting_names_the_hosts(
    options: dict[str, str], host: str, served: bool
) -> None:
    async with gateway(**options) as client:
        response = await client.get("/healthz", headers={"host": host})
        assert forbidden(response, "RAGLAN_GATEWAY_ALLOWED_HOSTS") is not served


@pytest.mark.parametrize(
    ("headers", "refused"),
    [
        ({}, False),
        ({"sec-fetch-site": "same-origin", "origin": "http://127.0.0.1:8080"}, False),
        ({"sec-fetch-site": "none"}, False),
        ({"sec-fetch-site": "cross-site", "origin": "https://evil.example"}, True),
        ({"sec-fetch-site": "cross-site"}, True),
        ({"sec-fetch-site": "same-site", "origin": "http://127.0.0.1:3000"}, True),
        ({"origin": "http://127.0.0.1:8080"}, False),
        ({"origin": "https://evil.example"}, True),
        ({"origin": "http://127.0.0.1:3000"}, True),
        ({"origin": "null"}, True),
    ],
)
async def test_a_page_of_another_site_changes_nothing(
    headers: dict[str, str], refused: bool
) -> None:
    form = {"files": {"files": b"x"}}
    async with gateway() as client:
        for method, path, body in (
            ("POST", DOCUMENTS, form),
            ("POST", "/v1/query", {"json": {"query": "a"}}),
            ("DELETE", "/v1/collections/default", {}),
            ("POST", "/v1/jobs/1/cancel", {}),
        ):
            response = await client.request(method, path, headers=headers, **body)  # type: ignore[arg-type]
            assert forbidden(response, "RAGLAN_GATEWAY_CORS_ORIGINS") is refused
        read = await client.get("/healthz", headers=headers)
        assert read.status_code == 200
        assert "access-control-allow-origin" not in read.headers


async def test_pages_of_an_allowed_origin_use_the_api() -> None:
    asks = {
        "origin": PAGE,
        "sec-fetch-site": "cross-site",
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type, x-raglan-priority",
    }
    async with gateway(cors_origins=f"http://localhost:3000, {PAGE}") as client:
        allowed = await client.options("/v1/query", headers=asks)
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == PAGE
        sends = {"origin": PAGE, "sec-fetch-site": "cross-site"}
        reply = await client.post("/v1/query", json={}, headers=sends)
        assert reply.status_code == 422
        assert reply.headers["access-control-allow-origin"] == PAGE
        assert "X-Request-ID" in reply.headers["access-control-expose-headers"]

        foreign = await client.options("/v1/query", headers=asks | {"origin": "https://evil"})
        assert forbidden(foreign, "RAGLAN_GATEWAY_CORS_ORIGINS")
        sent = await client.post("/v1/query", json={}, headers=sends | {"origin": "https://evil"})
        assert forbidden(sent, "RAGLAN_GATEWAY_CORS_ORIGINS")


async def test_every_origin_may_be_allowed() -> None:
    async with gateway(cors_origins="*") as client:
        reply = await client.post("/v1/query", json={}, headers={"origin": "https://any.example"})
        assert reply.status_code == 422
        assert reply.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize("origins", ["app.example.com", "https://a/path", "https://a/", "a b"])
def test_what_is_no_origin_is_refused_at_the_start(origins: str) -> None:
    with pytest.raises(ValidationError, match="no origin"):
        GatewaySettings(cors_origins=origins)
