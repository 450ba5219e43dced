"""Stored documents: what an update costs beside a new ingestion, and access tags on searches."""

from __future__ import annotations

import random
import re
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import mesh_process
from report import Row

DOCUMENTS = 10_000
RESULTS = 100_000
TAGS = ("hr", "legal", "board")
_SEARCHES = 200
_BATCH = 2_000
_JOB_S = 1_800
_ADMIN = "k" * 40
_TOPICS = ("pump", "valve", "boiler", "filter", "sensor", "engine", "cable", "tank")


def documents() -> list[Row]:
    """All rows."""
    with tempfile.TemporaryDirectory() as folder:
        variables = {
            "RAGLAN_GATEWAY_ADMIN_KEY": _ADMIN,
            "RAGLAN_GATEWAY_RATE_LIMIT_PER_MINUTE": "0",
        }
        with (
            mesh_process.running(Path(folder) / "mesh", cached=True, **variables) as mesh,
            mesh.client(timeout=600, headers={"Authorization": f"Bearer {_ADMIN}"}) as client,
        ):
            client.post("/v1/collections", json={"name": "c"}).raise_for_status()
            return [*_updates(client), *_searches(client), *_leaks(client)]


def _made(year: int) -> Iterator[dict[str, Any]]:
    for number in range(DOCUMENTS):
        topic = _TOPICS[number % len(_TOPICS)]
        yield {
            "id": f"d{number:05}",
            "text": f"Report {number}: the {topic} of hall {number % 97} was inspected.",
            "metadata": {"topic": topic, "year": year, "kept": "yes"},
        }


def _ingest(client: httpx.Client, year: int) -> float:
    """Send all documents; returns the seconds until they are indexed."""
    began = time.monotonic()
    made = list(_made(year))
    for at in range(0, DOCUMENTS, _BATCH):
        body = {"documents": made[at : at + _BATCH]}
        sent = client.post("/v1/collections/c/documents", json=body).json()
        job = mesh_process.finished(client, sent["job_id"], within_s=_JOB_S)
        assert job["status"] == "succeeded", job
    return time.monotonic() - began


def _embedded(client: httpx.Client) -> float:
    """Texts that the embedder was asked for so far, those that it had in its cache among them."""
    services = client.get("/v1/status").json()["services"]
    (url,) = [each["metrics_url"] for each in services if each["service"] == "embedder"]
    found = re.findall(
        r"^raglan_cache_lookups_total\{[^}]*\} (\S+)$", httpx.get(url).text, re.MULTILINE
    )
    return sum(map(float, found))


def _updates(client: httpx.Client) -> Iterator[Row]:
    first_s = _ingest(client, 2025)
    before = _embedded(client)
    body = {"filter": {"eq": {"field": "kept", "value": "yes"}}, "metadata": {"year": 2026}}
    began = time.monotonic()
    done = client.post("/v1/collections/c/documents/tag", json=body | {"all": True}).json()
    job = mesh_process.finished(client, done["job_id"], within_s=_JOB_S)
    update_s = time.monotonic() - began
    assert job["stages"] == {"tag": {"done": DOCUMENTS, "total": DOCUMENTS}}, job
    embedded = _embedded(client) - before
    times = []
    for number in range(_SEARCHES):
        began = time.monotonic()
        path = f"/v1/collections/c/documents/d{number:05}"
        client.patch(path, json={"metadata": {"year": 2027}}).raise_for_status()
        times.append(time.monotonic() - began)
    again_s = _ingest(client, 2028)
    yield Row(f"metadata of {DOCUMENTS:,} documents, by filter", "s", round(update_s, 1))
    yield Row("the same: texts embedded", "", embedded, target="<= 0")
    yield Row("the same by ingesting again", "s", round(again_s, 1))
    yield Row("the same: first ingestion", "s", round(first_s, 1))
    yield Row("metadata of one document, p50", "ms", round(1e3 * statistics.median(times), 1))


def _key(client: httpx.Client, *access: str) -> dict[str, str]:
    body = {"name": "+".join(access) or "none", "access": list(access)}
    made = client.post("/v1/keys", json=body).json()
    return {"Authorization": f"Bearer {made['key']}", "Cache-Control": "no-store, no-cache"}


def _search(client: httpx.Client, headers: dict[str, str], query: str, top_k: int) -> Any:
    body = {"query": query, "collections": ["c"], "top_k": top_k, "rerank": False}
    reply = client.post("/v1/search", json=body, headers=headers)
    reply.raise_for_status()
    return reply.json()


def _tag_by_topic(client: httpx.Client) -> dict[str, set[str]]:
    """Give topics tags; returns them by topic."""
    chance = random.Random(16)
    tags = {topic: set(chance.sample(TAGS, number % 3)) for number, topic in enumerate(_TOPICS)}
    for topic, given in tags.items():
        if given:
            wanted = {"filter": {"eq": {"field": "topic", "value": topic}}}
            body = wanted | {"add_access": sorted(given)}
            done = client.post("/v1/collections/c/documents/tag", json=body).json()
            mesh_process.finished(client, done["job_id"], within_s=_JOB_S)
    return tags


def _searches(client: httpx.Client) -> Iterator[Row]:
    """Latency with and without the filter by tags, in turns; then with tagged documents."""
    everyone, limited = _key(client, "*"), _key(client, "hr")
    for state in ("no document tagged", "most documents tagged"):
        times: dict[str, list[float]] = {"every document": [], "one tag": []}
        for number in range(_SEARCHES):
            query = f"Which {_TOPICS[number % 8]} was inspected in hall {number % 97}?"
            for name, headers in (("every document", everyone), ("one tag", limited)):
                began = time.monotonic()
                _search(client, headers, query, 10)
                times[name].append(time.monotonic() - began)
        for name, seen in times.items():
            label = f"search, {state}, key that reaches {name}: p50"
            yield Row(label, "ms", round(1e3 * statistics.median(seen), 1))
        if state == "no document tagged":
            _tag_by_topic(client)


def _leaks(client: httpx.Client) -> Iterator[Row]:
    """Random searches of keys with every choice of tags, and what they must not have found."""
    path = "/v1/collections/c/documents"
    tags: dict[str, list[str]] = {}
    for number in range(8):
        tags[_TOPICS[number]] = client.get(f"{path}/d{number:05}").json()["access"]
    keys = {
        choice: _key(client, *choice)
        for choice in ((), ("hr",), ("legal",), ("board",), ("hr", "legal"), ("legal", "board"))
    }
    chance = random.Random(1)
    results = foreign = 0
    while results < RESULTS:
        held, headers = chance.choice(list(keys.items()))
        query = f"Which {chance.choice(_TOPICS)} was inspected in hall {chance.randrange(97)}?"
        for passage in _search(client, headers, query, 100)["passages"]:
            access = tags[passage["metadata"]["topic"]]
            results += 1
            foreign += bool(access) and not set(access) & set(held)
    yield Row(f"foreign passages of {results:,}", "", foreign, target="<= 0")
