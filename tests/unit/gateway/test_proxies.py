"""Whose requests are counted: the connection's, or those that a trusted proxy names."""

from __future__ import annotations

import gateway_serving
import httpx
import pytest
from pydantic import ValidationError
from raglan_gateway.settings import GatewaySettings


async def statuses(forwarded: list[str], **options: object) -> list[int]:
    """The status of a request each, where a caller may send one a minute."""
    async with (
        gateway_serving.serving(rate_limit_per_minute=1, **options) as (gateway, _),
        httpx.AsyncClient(base_url=gateway.url) as client,
    ):
        return [
            (await client.get("/openapi.json", headers={"x-forwarded-for": each})).status_code
            for each in forwarded
        ]


async def test_who_says_to_be_somebody_else_is_counted_all_the_same() -> None:
    assert await statuses(["10.0.0.1", "10.0.0.2"]) == [200, 429]
    others = {"trusted_proxies": "10.0.0.0/8, 192.168.1.1"}
    assert await statuses(["10.0.0.1", "10.0.0.2"], **others) == [200, 429]


async def test_callers_behind_a_trusted_proxy_are_counted_each() -> None:
    proxies = {"trusted_proxies": "127.0.0.0/8"}
    assert await statuses(["1.1.1.1", "2.2.2.2", "1.1.1.1"], **proxies) == [200, 200, 429]


async def test_what_a_caller_put_before_the_proxys_word_does_not_count() -> None:
    forwarded = ["9.9.9.1, 1.1.1.1", "9.9.9.2, 1.1.1.1"]
    assert await statuses(forwarded, trusted_proxies="127.0.0.1") == [200, 429]


async def test_what_prometheus_asks_is_not_limited() -> None:
    async with (
        gateway_serving.serving(rate_limit_per_minute=1) as (gateway, _),
        httpx.AsyncClient(base_url=gateway.url) as client,
    ):
        for path in ("/metrics", "/metrics/targets", "/healthz") * 3:
            assert (await client.get(path)).status_code == 200


@pytest.mark.parametrize("proxies", ["proxy.example.com", "10.0.0.1/8", "10.0.0", "*"])
def test_what_is_no_address_is_refused_at_the_start(proxies: str) -> None:
    with pytest.raises(ValidationError, match="trusted_proxies"):
        GatewaySettings(trusted_proxies=proxies)
