"""Tenants on one mesh: what one keeps, no other finds, lists, changes or is answered with."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import old_wire
import ports
import pytest
import tenant_apis
import tenant_leaks
from mesh_process import Mesh
from pydantic import SecretStr
from tenant_leaks import COLLECTION, Tally, Tenant

COUNT = 24
RESULTS = 2_500


@pytest.fixture
def addresses(mesh: Mesh) -> dict[str, str]:
    return {
        each["service"]: each["address"] for each in mesh.services() if each["service"] != "gateway"
    }


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> Iterator[SecretStr]:
    """Of the gateways, for sessions, past answers, feedback and the audit log."""
    with tenant_leaks.database(request.param) as url:
        yield url


@asynccontextmanager
async def tenants(
    addresses: dict[str, str], *names: str, **options: object
) -> AsyncIterator[tuple[list[Tenant], Tally]]:
    """Tenants on a gateway of this process."""
    tally = Tally()
    async with (
        tenant_leaks.gateway(addresses, **options) as url,
        httpx.AsyncClient(base_url=url, timeout=60) as client,
    ):
        made = [Tenant(client, name, tally) for name in names or tenant_leaks.MARKS]
        yield made, tally


async def filled(tenants: list[Tenant], collection: str = COLLECTION) -> None:
    """Give each tenant its documents, all with the same ids."""
    for tenant in tenants:
        await tenant.fill(COUNT, collection)


async def emptied(tenants: list[Tenant], collection: str = COLLECTION) -> None:
    for tenant in tenants:
        await tenant.empty(collection)


@asynccontextmanager
async def removed(addresses: dict[str, str], collection: str) -> AsyncIterator[None]:
    """Remove a collection of each tenant at the end of a block."""
    async with tenants(addresses) as (others, _):
        yield
        await emptied(others, collection)


async def test_random_requests_of_three_tenants_show_none_of_them_anothers(
    addresses: dict[str, str], redis_url: SecretStr, database_url: SecretStr, tmp_path: Path
) -> None:
    """Two gateways with one Redis, so that what one has learnt reaches the other."""
    shared = {"redis_url": redis_url, "database_url": database_url, "data_dir": tmp_path}
    async with (
        tenants(addresses, **shared) as (some, tally),
        tenant_leaks.gateway(addresses, **shared) as other,
    ):
        await attacked(some, tally, other)


async def attacked(some: list[Tenant], tally: Tally, other: str) -> None:
    await filled(some)
    try:
        await tenant_apis.attack(
            some, tally, results=RESULTS, count=COUNT, seed=1, urls=("", other)
        )
    finally:
        await emptied(some)
    assert tally.foreign == []
    assert tally.total >= RESULTS
    kinds = {"search", "query", "stream", "collections", "documents", "document", "jobs"}
    others = {"chat", "responses", "vector_search", "mcp", "files", "sessions", "kept", "audit"}
    assert kinds | others | {"feedback"} <= set(tally.results)


async def test_what_one_tenant_asked_is_in_no_cache_of_another(
    addresses: dict[str, str], redis_url: SecretStr
) -> None:
    """Of the vectors of queries too, which hold no document."""
    body = {"query": "When was the cable painted?", "collections": ["cached"]}
    async with (
        tenants(addresses, redis_url=redis_url) as (some, _),
        removed(addresses, "cached"),
    ):
        await filled(some, "cached")
        for tenant in some:
            first, again = [await tenant.ask("query", **body) for _ in range(2)]
            assert first["cached"] == {}, tenant.name
            assert "answer" in again["cached"]


async def test_deleting_a_collection_leaves_the_others_of_its_name(
    addresses: dict[str, str],
) -> None:
    async with tenants(addresses) as (some, tally):
        await filled(some)
        own, acme, third = some
        await emptied([acme])
        assert (await acme.call("GET", f"/v1/collections/{COLLECTION}")).status_code == 404
        gone = await acme.call(
            "POST", "/v1/search", json={"query": "pump", "collections": [COLLECTION]}
        )
        assert gone.status_code == 404
        assert "acme" not in gone.text
        for tenant in (own, third):
            found = await tenant.ask("search", query="pump", collections=[COLLECTION], top_k=50)
            assert len(found["passages"]) == COUNT
        await emptied([own, third])
    assert tally.foreign == []


async def test_equal_bytes_outlive_their_deletion_by_another_tenant(
    addresses: dict[str, str], mesh: Mesh
) -> None:
    """Bytes are stored once, by their hash."""
    document = {"id": "same", "text": "The same sentence about a lighthouse, word for word."}
    async with tenants(addresses, "acme", "a-c") as ((acme, third), _):
        await filled([acme, third], "bytes")
        for tenant in (acme, third):
            await tenant.ingest([document], "bytes")
        path = "/v1/collections/bytes/documents/same"
        sha256 = (await third.call("GET", path)).json()["sha256"]
        assert (await acme.call("DELETE", path)).status_code == 200
        assert (await third.call("GET", path)).json()["text"] == document["text"]
        assert list((mesh.data / "ingester" / "blobs").rglob(f"*{sha256[4:]}"))
        await emptied([acme, third], "bytes")


async def test_the_default_collection_of_a_tenant_is_made_by_its_first_upload(
    addresses: dict[str, str],
) -> None:
    async with tenants(addresses, "a-c", "acme") as ((tenant, other), _):
        asked = {"query": "Where is the lighthouse?"}
        before = await tenant.call("POST", "/v1/query", json=asked)
        assert before.status_code == 404
        assert before.json()["error"]["message"] == "There is no collection 'default'."
        await tenant.ingest([{"id": "l", "text": "The lighthouse is at Cape Horn."}], "default")
        await tenant.ingest([{"id": "m", "text": "The harbour is at Cape Town."}], "default")
        found = (await tenant.call("POST", "/v1/query", json=asked)).json()
        assert "Cape Horn" in found["answer"]
        assert (await other.call("POST", "/v1/query", json=asked)).status_code == 404
        assert (await tenant.call("DELETE", "/v1/collections/default")).is_success


async def test_traces_name_the_tenant_and_are_shown_to_the_mesh_s_own_keys_alone(
    addresses: dict[str, str],
) -> None:
    async with tenants(addresses, "acme", "") as ((acme, own), _):
        await filled([acme], "traced")
        body = {"query": "When was the pump replaced?", "collections": ["traced"]}
        reply = (await acme.call("POST", "/v1/query", json=body)).json()
        for path in ("/v1/traces", f"/v1/traces/{reply['trace_id']}", "/v1/status"):
            refused = await acme.call("GET", path)
            assert refused.status_code == 403
            assert "a key that belongs to no tenant" in refused.json()["error"]["message"]
        trace = (await own.call("GET", f"/v1/traces/{reply['trace_id']}")).json()
        served = [span for span in trace["spans"] if span["kind"] == "server"]
        assert {span["attributes"].get("raglan.tenant") for span in served} == {"acme"}
        services = {span["service"] for span in served}
        assert services >= {"embedder", "retriever", "reranker", "generator"}
        assert (await own.call("GET", "/v1/traces")).status_code == 200
        await emptied([acme], "traced")


async def test_a_stale_answer_is_given_to_the_tenant_that_was_given_it(
    addresses: dict[str, str], redis_url: SecretStr, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = tmp_path / "faults.json"
    plan.write_text("{}")
    monkeypatch.setenv("RAGLAN_FAULTS", f"@{plan}")
    body = {"query": "When was the pump replaced?", "collections": ["stale"], "top_k": 10}
    async with (
        tenants(addresses, redis_url=redis_url, stale_answer_s=600) as (some, tally),
        removed(addresses, "stale"),
    ):
        own, acme, third = some
        await filled(some, "stale")
        fresh = {tenant.name: await tenant.ask("query", **body) for tenant in (own, acme)}
        plan.write_text(json.dumps({"retriever": {"error": "UNAVAILABLE"}}))
        for tenant in (own, acme):
            stale = await tenant.ask("query", **body)
            assert stale["degraded"][0]["stage"] == "retrieve"
            assert stale["answer"] == fresh[tenant.name]["answer"]
        none = await third.call("POST", "/v1/query", json=body)
        assert none.status_code == 503
        plan.write_text("{}")
        # What one tenant changes makes the answers of another neither stale nor new.
        assert (await own.call("DELETE", "/v1/collections/stale/documents/d0")).is_success
        plan.write_text(json.dumps({"retriever": {"error": "UNAVAILABLE"}}))
        assert (await own.call("POST", "/v1/query", json=body)).status_code == 503
        assert (await acme.ask("query", **body))["answer"] == fresh["acme"]["answer"]
        plan.write_text("{}")
    assert tally.foreign == []


@pytest.mark.parametrize("release", old_wire.releases(), ids=lambda path: path.stem)
async def test_a_service_of_before_tenants_is_sent_no_tenant_s_call(
    addresses: dict[str, str], release: Path
) -> None:
    """It would answer with the mesh's own data, and delete them."""
    keepers = {name: ports.free_port() for name in ("retriever", "ingester")}
    routes = {port: addresses[name] for name, port in keepers.items()}
    through = {name: f"127.0.0.1:{port}" for name, port in keepers.items()}
    with old_wire.proxies(old_wire.Release(release), routes):
        async with tenants(addresses | through, "", "acme") as ((own, acme), _):
            await filled([own], "mine")
            base = "/v1/collections/mine"
            for method, path, body in (
                ("GET", "/v1/collections", None),
                ("GET", base, None),
                ("DELETE", f"{base}/documents/d1", None),
                ("GET", "/v1/jobs", None),
                ("POST", "/v1/search", {"query": "pump", "collections": ["mine"]}),
                ("DELETE", base, None),
                ("POST", "/v1/collections", {"name": "mine"}),
            ):
                refused = await acme.call(method, path, json=body)
                assert refused.status_code == 501, (path, refused.text)
                assert "may be of an earlier version" in refused.json()["error"]["message"]
            found = await own.ask("search", query="pump", collections=["mine"], top_k=50)
            assert len(found["passages"]) == COUNT
            await emptied([own], "mine")


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[SecretStr]:
    """The URL of a real Redis."""
    with tenant_leaks.redis(tmp_path) as url:
        yield url
