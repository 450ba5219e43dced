"""Tenants that keep the same documents, and requests that would show a leak between them.

Each tenant's texts, titles and metadata hold a word of its own in every sentence, and all else is
alike: ids, names of collections, questions. A reply that holds another tenant's word is a leak.
"""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import ports
from fastapi import FastAPI
from gateway_serving import events
from postgres_server import PostgresServer
from pydantic import SecretStr
from raglan.lifecycle import Lifecycle
from raglan_gateway import app, caller, lifecycle
from raglan_gateway.caller import Caller
from raglan_gateway.settings import GatewaySettings
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

MARKS: Final = {"": "meshword", "acme": "acmeword", "a-c": "beeword"}
"""Tenant -> its word."""

COLLECTION: Final = "shared"
_HEADER: Final = b"x-test-tenant"
_ACCESS: Final = b"x-test-access"
_TOPICS: Final = ("pump", "valve", "boiler", "filter", "sensor", "engine", "cable", "tank")
_ACTIONS: Final = ("replaced", "inspected", "cleaned", "measured", "painted", "sealed")
_START_S: Final = 30
_JOB_S: Final = 120


@contextmanager
def redis(folder: Path) -> Iterator[SecretStr]:
    """Run a Redis of its own; yields its URL."""
    program = shutil.which("redis-server")
    assert program, "redis-server is missing: apt-get install redis-server"
    port = ports.free_port()
    options = ("--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder), "--save", "")
    process = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL)
    try:
        yield SecretStr(f"redis://127.0.0.1:{port}/0")
    finally:
        process.kill()
        process.wait()


@contextmanager
def database(kind: str) -> Iterator[SecretStr]:
    """Yield the URL of a new database: empty for SQLite, or that of a PostgreSQL of its own."""
    if kind == "sqlite":
        yield SecretStr("")
        return
    server = PostgresServer()
    try:
        yield SecretStr(server.url)
    finally:
        server.remove()


class TenantByHeader:
    """Makes the caller of a request that of the tenant and the access tags which headers name."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = dict(scope["headers"])
            tenant = headers.get(_HEADER, b"").decode()
            given = headers.get(_ACCESS, b"").decode()
            access = None if given == "*" else tuple(given.split(",")) if given else ()
            name = f"key-{tenant}{'+' if given else ''}{given}"
            caller.use(Caller(id=name, tenant=tenant, access=access))
        await self.app(scope, receive, send)


@asynccontextmanager
async def gateway(addresses: dict[str, str], **options: Any) -> AsyncIterator[str]:
    """Serve a gateway of this process on the services at `addresses`; yields its URL."""
    named = {f"{name}_address": address for name, address in addresses.items()}
    settings = GatewaySettings(**named, port=ports.free_port(), **options)
    stopping = asyncio.Event()

    def build(settings: GatewaySettings, life: Lifecycle) -> FastAPI:
        built = app.build(settings, life)
        built.user_middleware.append(Middleware(TenantByHeader))
        return built

    task = asyncio.create_task(lifecycle.serve(build, settings, stopping))
    url = f"http://127.0.0.1:{settings.port}"
    try:
        async with httpx.AsyncClient() as client, asyncio.timeout(_START_S):
            while not await _is_ready(client, url):
                await asyncio.sleep(0.05)
        yield url
    finally:
        stopping.set()
        await asyncio.wait_for(task, _START_S)


async def _is_ready(client: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await client.get(f"{url}/readyz")).is_success
    except httpx.TransportError:
        return False


def documents(tenant: str, count: int, *, edition: int = 1) -> list[dict[str, Any]]:
    """Documents whose every sentence holds the tenant's word."""
    mark = MARKS[tenant]
    made = []
    for number in range(count):
        topic, action = _TOPICS[number % len(_TOPICS)], _ACTIONS[number % len(_ACTIONS)]
        text = " ".join(
            f"The {mark} report {number}.{part} says that the {topic} was {action} by {mark} in "
            f"week {number + part} of edition {edition}."
            for part in range(4)
        )
        metadata = {"topic": topic, "owner": mark, "number": number}
        made.append({"id": f"d{number}", "title": f"{mark} {topic} {number}", "text": text,
                     "metadata": metadata})  # fmt: skip
    return made


@dataclass
class Tally:
    """Results seen, by route, and those of another tenant."""

    results: Counter[str] = field(default_factory=Counter)
    foreign: list[str] = field(default_factory=list)
    jobs: dict[str, str] = field(default_factory=dict)
    """Job -> the tenant that it belongs to."""

    def see(self, route: str, tenant: str, items: list[Any]) -> None:
        """Count `items`, and report those that hold another tenant's word."""
        self.results[route] += len(items)
        for item in items:
            text = json.dumps(_of_documents(item))
            if route == "jobs":
                others = (job for job, owner in self.jobs.items() if owner != tenant)
                self.foreign += [f"{job} shown to {tenant or '-'}" for job in others if job in text]
            for owner, mark in MARKS.items():
                if owner != tenant and (mark in text or (owner and f"{owner}~" in text)):
                    at = max(text.find(mark), text.find(f"{owner}~"), 100)
                    who = f"{owner or 'the mesh'} shown to {tenant or '-'}"
                    self.foreign.append(f"{route}: {who}: {text[at - 100 : at + 100]}")

    @property
    def total(self) -> int:
        return self.results.total()


class Tenant:
    """One tenant's client of a gateway."""

    def __init__(self, client: httpx.AsyncClient, name: str, tally: Tally) -> None:
        self.name = name
        self.jobs: list[str] = []
        self._client = client
        self.tally = tally
        self._headers = {_HEADER.decode(): name} if name else {}

    async def call(self, method: str, path: str, url: str = "", **options: Any) -> httpx.Response:
        """Call the gateway as this tenant."""
        headers = options.pop("headers", {}) | self._headers
        return await self._client.request(method, f"{url}{path}", headers=headers, **options)

    async def ingest(self, made: list[dict[str, Any]], collection: str = COLLECTION) -> None:
        """Send documents and wait for their job."""
        body = {"documents": made}
        reply = await self.call("POST", f"/v1/collections/{collection}/documents", json=body)
        assert reply.status_code == 202, reply.text
        job = reply.json()["job_id"]
        self.jobs.append(job)
        self.tally.jobs[job] = self.name
        for _ in range(_JOB_S * 20):
            state = (await self.call("GET", f"/v1/jobs/{job}")).json()
            if state.get("finished_at"):
                assert state["status"] == "succeeded", state
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"{job} did not end")

    async def fill(self, count: int, collection: str = COLLECTION) -> None:
        """Make a collection that all tenants have, and one whose name tells its owner."""
        for name, made in ((collection, count), (f"{MARKS[self.name]}-{collection}", 1)):
            body = {"name": name}
            reply = await self.call("POST", "/v1/collections", json=body)
            assert reply.status_code == 201, reply.text
            await self.ingest(documents(self.name, made), name)

    async def empty(self, collection: str = COLLECTION) -> None:
        """Delete the collections that `fill` has made."""
        for name in (collection, f"{MARKS[self.name]}-{collection}"):
            reply = await self.call("DELETE", f"/v1/collections/{name}")
            assert reply.is_success, reply.text

    async def ask(self, route: str, url: str = "", **body: Any) -> dict[str, Any]:
        """Search or query, and look at every part of the reply."""
        reply = await self.call("POST", f"/v1/{route}", url, json=body)
        assert reply.status_code == 200, reply.text
        found: dict[str, Any] = reply.json()
        self.see(route, found)
        return found

    def see(self, route: str, found: dict[str, Any]) -> None:
        """Count what a reply shows."""
        answer = [{"answer": found["answer"]}] if "answer" in found else []
        self.tally.see(route, self.name, [*found["passages"], *found.get("citations", []), *answer])

    async def stream(self, url: str = "", **body: Any) -> None:
        """Query as a stream, and look at every event."""
        reply = await self.call("POST", "/v1/query", url, json=body | {"stream": True})
        # Some events name what was asked, in which others' words stand too.
        told = events(reply.text.replace(body["query"], ""))
        assert told[-1][0] == "done", told[-1]
        self.tally.see("stream", self.name, [data for _, data in told])

    async def lists(self, chance: random.Random, count: int) -> None:
        """Look at what the tenant keeps, route by route."""
        base = f"/v1/collections/{COLLECTION}/documents"
        document = chance.randrange(count)
        for route, path, key in (
            ("collections", "/v1/collections", "collections"),
            ("documents", f"{base}?limit={chance.choice((3, 20, 100))}", "documents"),
            ("document", f"{base}/d{document}", "chunks"),
            ("jobs", chance.choice(("/v1/jobs", f"/v1/jobs?collection={COLLECTION}")), "jobs"),
        ):
            reply = await self.call("GET", path)
            assert reply.status_code == 200, reply.text
            body = reply.json()
            self.tally.see(route, self.name, [*body.pop(key), body])

    async def touch_others(self, others: list[Tenant], chance: random.Random) -> None:
        """Try to reach what belongs to another tenant; each reply must be that of nothing."""
        other = chance.choice([each for each in others if each is not self])
        job = chance.choice(other.jobs)
        kept_as = f"{other.name}~{COLLECTION}" if other.name else f"~{COLLECTION}"
        for method, path, refusals in (
            ("GET", f"/v1/jobs/{job}", (404,)),
            ("GET", f"/v1/jobs/{job}/events", (404,)),
            ("POST", f"/v1/jobs/{job}/cancel", (404,)),
            ("POST", f"/v1/jobs/{job}/retry", (404,)),
            ("GET", f"/v1/collections/{kept_as}", (422,)),
            ("DELETE", f"/v1/collections/{kept_as}", (422,)),
            ("GET", f"/v1/collections/{kept_as}/documents", (422,)),
        ):
            reply = await self.call(method, path)
            if reply.status_code not in refusals:
                self.tally.foreign.append(f"{method} {path}: {reply.status_code} to {self.name}")
            if reply.status_code == 404:  # the others name what was asked for
                self.tally.see("refusals", self.name, [reply.text])

    async def replace_some(self, chance: random.Random, count: int, edition: int) -> None:
        """Delete some documents, and send new versions of others."""
        made = chance.sample(documents(self.name, count, edition=edition), 3)
        gone = made[0]["id"]
        base = f"/v1/collections/{COLLECTION}/documents"
        assert (await self.call("DELETE", f"{base}/{gone}")).status_code == 200
        assert (await self.call("GET", f"{base}/{gone}")).status_code == 404
        await self.ingest(made)


def _of_documents(item: Any) -> Any:
    """Return a reply without the words of its question, which may be another tenant's."""
    if isinstance(item, dict):
        own = {"keywords", "technical_terms"} if "synonyms" in item else frozenset()
        return {name: _of_documents(value) for name, value in item.items() if name not in own}
    return [_of_documents(each) for each in item] if isinstance(item, list) else item


def questions(chance: random.Random, count: int) -> Iterator[dict[str, Any]]:
    """Random requests, with and without filters; others' words are asked for too."""
    while True:
        topic, action = chance.choice(_TOPICS), chance.choice(_ACTIONS)
        mark = chance.choice([*MARKS.values(), ""])
        body: dict[str, Any] = {
            "query": f"When was the {mark} {topic} {action} in report {chance.randrange(count)}?",
            "collections": [COLLECTION],
            "top_k": chance.choice((5, 20, 50)),
            "mode": chance.choice(("hybrid", "dense", "lexical")),
            "rerank": chance.random() < 0.1,
        }
        if chance.random() < 0.3:
            body["filter"] = chance.choice(
                (
                    {"eq": {"field": "owner", "value": chance.choice(list(MARKS.values()))}},
                    {"not": {"eq": {"field": "topic", "value": topic}}},
                    {"range": {"field": "number", "gte": chance.randrange(count)}},
                )
            )
        yield body
