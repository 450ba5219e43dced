"""What the gateway counts, and that no request can make it count in more series."""

from __future__ import annotations

import asyncio
import random
import string
from typing import Any

import httpx
import pytest
from gateway_serving import Gateway, serving
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families
from raglan.errors import (
    TABLE,
    Cancelled,
    DeadlineExceeded,
    InvalidInput,
    NotFound,
    Overloaded,
    RaglanError,
    Unavailable,
)
from raglan.telemetry.metrics import SECONDS
from raglan_gateway.degradation import LEVELS
from raglan_gateway.mesh import STUBS
from raglan_gateway.metrics import QUERY_STAGES, Metrics

CHARACTERS = string.ascii_letters + string.digits + "/._-~%{}é日"
METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "PURGE", "PROPFIND", "MKCOL", "FOO")


def odd(chance: random.Random, longest: int = 40) -> str:
    return "".join(chance.choices(CHARACTERS, k=chance.randrange(1, longest)))


def path(chance: random.Random) -> str:
    name = odd(chance)
    return chance.choice(
        (
            f"/{name}",
            f"/v1/{name}",
            f"/v1/collections/{name}",
            f"/v1/collections/{name}/documents/{odd(chance)}",
            f"/v1/jobs/{name}",
            f"/v1/jobs/{name}/cancel",
            f"/v1/query?{name}={odd(chance)}",
        )
    )


async def send(client: httpx.AsyncClient, url: str, chance: random.Random) -> None:
    """One request that nobody in their right mind would send."""
    asked: dict[str, Any] = {"query": odd(chance), "collections": [odd(chance)], "timeout_ms": 100}
    priority = chance.choice(("critical", "default", "batch", odd(chance)))
    headers = {b"x-raglan-priority": priority.encode(), b"x-request-id": odd(chance).encode()}
    if chance.random() < 0.5:
        await client.post(f"{url}/v1/search", json=asked, headers=headers)
    else:
        await client.request(chance.choice(METHODS), url + path(chance), headers=headers)


async def shown(gateway: Gateway) -> set[tuple[str, ...]]:
    """Every series: its name and its labels."""
    async with httpx.AsyncClient() as client:
        text = (await client.get(f"{gateway.url}/metrics")).text
    return {
        (sample.name, *(f"{name}={value}" for name, value in sorted(sample.labels.items())))
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


STATUSES = {wire.status for wire in TABLE.values()} | {"OK"}
ALLOWED: dict[str, set[str]] = {
    "method": {"GET", "POST", "PUT", "DELETE", "PATCH", "other"},
    "stage": {"door", "history", "profile", "collection", *QUERY_STAGES},
    "service": {"gateway", *STUBS},
    "address": {"127.0.0.1:1"},
    "rung": {level.name for level in LEVELS},
    "le": {str(bound) for bound in SECONDS} | {"+Inf"},
}
"""Label -> what it may be, where there is more than a handful or a request could have a say."""


@pytest.mark.slow
async def test_no_part_of_a_request_becomes_the_value_of_a_label() -> None:
    chance = random.Random(6)
    async with serving() as (gateway, _), httpx.AsyncClient(timeout=10) as client:
        await asyncio.gather(*(send(client, gateway.url, chance) for _ in range(200)))
        series = await shown(gateway)
        routes = {"other", *(await asyncio.to_thread(gateway.app.openapi))["paths"]}
    seen: dict[str, set[str]] = {}
    for _, *labels in series:
        for label in labels:
            name, _, value = label.partition("=")
            seen.setdefault(name, set()).add(value)
    assert {route.replace(":path", "") for route in seen["route"]} <= routes
    assert len(seen["route"]) > 5
    assert all(each.isdigit() or each in STATUSES for each in seen["status"])
    for name, allowed in ALLOWED.items():
        assert seen[name] <= allowed, name
    for name in seen.keys() - ALLOWED.keys() - {"route", "status"}:
        assert len(seen[name]) <= 12, (name, seen[name])


@pytest.mark.slow
async def test_new_names_in_requests_make_no_new_series() -> None:
    async with serving() as (gateway, _), httpx.AsyncClient(timeout=10) as client:

        async def hammer(seed: int, count: int) -> int:
            chance = random.Random(seed)
            await asyncio.gather(*(send(client, gateway.url, chance) for _ in range(count)))
            return len(await shown(gateway))

        # By then the statuses and routes that such requests meet have nearly all come.
        for seed in (1, 3, 4):
            before = await hammer(seed, 300)
        # A name that leaks makes 22 series: the buckets, the sum and the count of a histogram.
        assert await hammer(2, 200) - before < 200


async def test_openmetrics_on_request_has_the_trace_id() -> None:
    """Metrics come as openmetrics with the trace id where that is asked for."""
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    async with serving() as (gateway, _), httpx.AsyncClient() as client:
        caller = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
        await client.post(f"{gateway.url}/v1/search", json={"query": "What?"}, headers=caller)
        asked = {"accept": "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"}
        reply = await client.get(f"{gateway.url}/metrics", headers=asked)
        plain = await client.get(f"{gateway.url}/metrics")
    assert reply.headers["content-type"].startswith("application/openmetrics-text")
    named = {
        family.name
        for family in open_metrics(reply.text)
        for sample in family.samples
        if sample.exemplar and sample.exemplar.labels["trace_id"] == trace
    }
    assert "raglan_gateway_request_duration_seconds" in named
    assert "raglan_gateway_stage_duration_seconds" in named
    assert plain.headers["content-type"].startswith("text/plain")
    assert trace not in plain.text


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (Overloaded("full"), "refused"),
        (DeadlineExceeded("late"), "late"),
        (Unavailable("away"), "failed"),
        (ValueError("a bug"), "failed"),
        (Cancelled("left"), "left"),
        (asyncio.CancelledError(), "left"),
    ],
)
async def test_a_query_that_was_not_answered_counts_by_what_it_met(
    error: BaseException, outcome: str
) -> None:
    metrics = Metrics()
    metrics.failed(error)
    assert queries(metrics) == {outcome: 1}


@pytest.mark.parametrize("error", [InvalidInput("wrong"), NotFound("no such collection")])
async def test_a_query_that_is_wrong_in_itself_costs_no_budget(error: RaglanError) -> None:
    metrics = Metrics()
    metrics.failed(error)
    assert queries(metrics) == {}


async def test_a_search_without_a_mesh_counts_as_failed_once() -> None:
    async with serving() as (gateway, _), httpx.AsyncClient(timeout=10) as client:
        for stream in (False, True):
            body = {"query": "What?", "stream": stream}
            await client.post(f"{gateway.url}/v1/query", json=body)
        text = (await client.get(f"{gateway.url}/metrics")).text
    assert 'raglan_gateway_queries_total{outcome="failed"} 2.0' in text
    assert 'raglan_gateway_rung{rung="kept_answers"} 1.0' in text


def queries(metrics: Metrics) -> dict[str, float]:
    """Outcome -> how many, those that there were."""
    families = metrics.registry.collect()
    family = next(each for each in families if each.name == "raglan_gateway_queries")
    return {each.labels["outcome"]: each.value for each in family.samples if each.value}


async def test_prometheus_is_told_of_every_process_that_can_be_reached() -> None:
    async with serving() as (gateway, _), httpx.AsyncClient() as client:
        found = (await client.get(f"{gateway.url}/metrics/targets")).json()
    address = gateway.url.removeprefix("http://")
    assert found == [{"targets": [address], "labels": {"component": "gateway"}}]
