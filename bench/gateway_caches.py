"""Limits and caches of the gateway: throughput of hits, what a hit saves, freshness, exactness."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import mesh_process
import ports
from report import Row
from texts import DATA

QUESTION = "How often is pump number 7 maintained?"
_LIMIT = 600
_INGEST_S = 600
_CHANGES = 5
_LAYERS = ("embedding", "evidence", "answer")


def caches() -> list[Row]:
    """All rows."""
    return [*_hits(), *_replay(), *_limits()]


@contextmanager
def _redis() -> Iterator[str]:
    """The URL of an empty Redis."""
    program = shutil.which("redis-server")
    if program is None:
        raise SystemExit("redis-server is missing: apt-get install redis-server")
    port = ports.free_port()
    with tempfile.TemporaryDirectory() as folder:
        options = ("--bind", "127.0.0.1", "--dir", folder, "--save", "", "--appendonly", "no")
        process = subprocess.Popen(
            [program, "--port", str(port), *options], stdout=subprocess.DEVNULL
        )
        try:
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.kill()
            process.wait()


@contextmanager
def _mesh(*options: str, **variables: str) -> Iterator[mesh_process.Mesh]:
    with tempfile.TemporaryDirectory() as folder, _redis() as url:
        data = Path(folder) / "mesh"
        with mesh_process.running(
            data, *options, cached=True, RAGLAN_GATEWAY_REDIS_URL=url, **variables
        ) as mesh:
            with mesh.client() as client:
                mesh_process.until(
                    lambda: client.get("/v1/collections/default").status_code == 200,
                    within_s=60,
                    what="the default collection is there",
                )
            yield mesh


def _ingest(client: httpx.Client, texts: dict[str, str]) -> None:
    documents = [{"id": id_, "title": id_, "text": text} for id_, text in texts.items()]
    reply = client.post("/v1/collections/default/documents", json={"documents": documents})
    job = reply.raise_for_status().json()["job_id"]
    ended = ("succeeded", "partial", "failed")
    while (status := client.get(f"/v1/jobs/{job}").json()["status"]) not in ended:
        time.sleep(0.02)
    if status != "succeeded":
        raise RuntimeError(f"the ingestion ended as {status}")


@dataclass
class _Load:
    """Results of h2load."""

    statuses: list[int]
    took_ms: list[float]
    seconds: float

    @property
    def per_s(self) -> float:
        return len(self.statuses) / self.seconds

    def count(self, status: int) -> int:
        return self.statuses.count(status)

    def p99_ms(self) -> float:
        return statistics.quantiles(self.took_ms, n=100)[98]


def _h2load(url: str, *options: str, key: str = "", body: dict[str, Any] | None = None) -> _Load:
    program = shutil.which("h2load")
    if program is None:
        raise SystemExit("h2load is missing: apt-get install nghttp2-client")
    with tempfile.TemporaryDirectory() as folder:
        log, data = Path(folder) / "log", Path(folder) / "body"
        sent = ["-H", f"authorization: Bearer {key}"] if key else []
        if body is not None:
            data.write_text(json.dumps(body))
            sent += ["-d", str(data), "-H", "content-type: application/json"]
        command = [program, "--h1", "-t", "1", "--log-file", str(log), *sent, *options, url]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=300)
        rows = [[int(cell) for cell in line.split()] for line in log.read_text().splitlines()]
    began = min(row[0] for row in rows)
    ended = max(row[0] + row[2] for row in rows)
    return _Load([row[1] for row in rows], [row[2] / 1e3 for row in rows], (ended - began) / 1e6)


def _hits() -> list[Row]:
    """Requests through a key, limits and a hit, one gateway process; and a hit against a miss."""
    limits = {
        "RAGLAN_GATEWAY_RATE_LIMIT_PER_MINUTE": "1000000",
        "RAGLAN_GATEWAY_CONCURRENT_PER_CALLER": "1000",
        "RAGLAN_GATEWAY_TOKENS_PER_MINUTE": "10000000",
    }
    with _mesh(**limits) as mesh, mesh.client() as client:
        _ingest(
            client,
            {
                f"pump-{n}": f"Pump number {n} is maintained every {n + 3} weeks by the crew. " * 5
                for n in range(200)
            },
        )
        made = client.post("/v1/keys", json={"name": "load", "scopes": ["admin"]})
        key = made.raise_for_status().json()["key"]
        client.headers["authorization"] = f"Bearer {key}"
        short = [f"How often is pump number {n} maintained, in weeks?" for n in range(100)]
        rows = _again(client, "default", short, "200 documents of one sentence")
        _ingest_docs(mesh, key)
        asked = (DATA / "docs_qa" / "questions.jsonl").read_text("utf-8").splitlines()
        questions = [json.loads(line)["question"] for line in asked]
        rows += _again(client, "docs", questions, "real documentation", "<= 0.1")
        client.post("/v1/query", json={"query": QUESTION}).raise_for_status()
        sent = ("-c", "16", "-n", "12000")
        load = _h2load(f"{mesh.url}/v1/query", *sent, key=key, body={"query": QUESTION})
        sessions = _h2load(f"{mesh.url}/v1/sessions", "-c", "8", "-n", "2000", key=key, body={})
    if load.count(200) != len(load.statuses) or sessions.count(201) != len(sessions.statuses):
        raise RuntimeError("a request of the load was refused")
    return [
        Row("key, limits and cache hit, one gateway", "requests/s", load.per_s, ">= 800"),
        Row("key, limits and cache hit, p99 at 16 connections", "ms", load.p99_ms(), "<= 60"),
        *rows,
        Row("sessions made, one gateway, 8 connections", "sessions/s", sessions.per_s, ">= 200"),
    ]


def _ingest_docs(mesh: mesh_process.Mesh, key: str) -> None:
    """Ingest the documentation of the evaluation data into the collection `docs`."""
    folder = DATA / "docs_qa" / "docs"
    command = [*(sys.executable, "-m", "raglan_cli", "ingest", str(folder)), "-c", "docs"]
    environment = os.environ | {"RAGLAN_API_KEY": key}
    subprocess.run([*command, "--url", mesh.url], check=True, env=environment, timeout=_INGEST_S)


def _again(
    client: httpx.Client,
    collection: str,
    questions: Sequence[str],
    of: str,
    goal: str | None = None,
) -> list[Row]:
    """Each question when first asked, against the same one asked again."""
    cold: list[float] = []
    warm: list[float] = []
    for question in questions:
        for taken in (cold, warm):
            begun = time.perf_counter()
            asked = {"query": question, "collections": [collection]}
            client.post("/v1/query", json=asked).raise_for_status()
            taken.append((time.perf_counter() - begun) * 1e3)
    cold, warm = cold[10:], warm[10:]
    ratio = statistics.median(warm) / statistics.median(cold)
    return [
        Row(f"uncached query, {of}", "ms", statistics.median(cold), samples=cold, statistic="p50"),
        Row(f"cached query, {of}", "ms", statistics.median(warm), samples=warm, statistic="p50"),
        Row(f"cached against uncached query, p50, {of}", "ratio", ratio, goal),
    ]


def _trace() -> list[tuple[str, str]]:
    """Question and section of the requests of the campus trace, in its order."""
    path = DATA / "ragpulse" / "0_trace.jsonl"
    asked = []
    for line in filter(None, path.read_text().splitlines()):
        ids = json.loads(line)["hash_ids"]
        section = str((ids["passages_ids"] or [0])[0])
        asked.append(
            (f"Question {ids['user_input'][0]}: what does section {section} say?", section)
        )
    return asked


def _replay() -> list[Row]:
    """The trace in its order from cold over three gateways, with changes in between."""
    asked = _trace()
    stale = checks = 0
    with _mesh("--replicas", "gateway=3") as mesh, mesh.client() as client:
        sections = {section for _, section in asked}
        _ingest(
            client, {s: f"Section {s} says that item {s} is kept in hall {s}." for s in sections}
        )
        pool = ThreadPoolExecutor(4)
        answered: list[dict[str, Any]] = []
        every = -(-len(asked) // _CHANGES)
        for change in range(_CHANGES):
            number = f"release {change + 1:03}"
            _ingest(client, {"release": f"The handbook in the hall is of {number}, as printed."})
            for reply in _ask_releases(mesh.url):
                checks += 1
                stale += number not in reply
            part = asked[change * every : (change + 1) * every]
            answered += pool.map(lambda row: _ask(mesh.url, row[0]), part)
        pool.shutdown()
    rates = {
        layer: sum(layer in reply["cached"] for reply in answered) / len(answered)
        for layer in _LAYERS
    }
    note = f"{len(asked)} requests, {_CHANGES} changes of the collection in between"
    return [
        *(
            Row(f"replay, hit rate of the {layer} cache", "share", rate, note=note)
            for layer, rate in rates.items()
        ),
        Row("stale replies after re-ingestion, three gateways", f"of {checks}", stale, "<= 0"),
    ]


def _ask(url: str, question: str) -> dict[str, Any]:
    reply = httpx.post(f"{url}/v1/query", json={"query": question, "top_k": 3}, timeout=60)
    found: dict[str, Any] = reply.raise_for_status().json()
    return found


def _ask_releases(url: str) -> Iterator[str]:
    """Replies about what has just changed, on connections of their own, in every form."""
    asked = {"query": "Of which release is the handbook in the hall, as printed?", "top_k": 1}
    for _ in range(4):
        for path, more in (("search", {}), ("query", {}), ("query", {"stream": True})):
            reply = httpx.post(f"{url}/v1/{path}", json=asked | more, timeout=60)
            yield reply.raise_for_status().text


def _limits() -> list[Row]:
    """Requests that pass three gateways with one Redis, against what the limit allows."""
    limit = {"RAGLAN_GATEWAY_RATE_LIMIT_PER_MINUTE": str(_LIMIT)}
    with _mesh("--replicas", "gateway=3", **limit) as mesh:
        time.sleep(60)  # what the start has used is paid by then
        load = _h2load(f"{mesh.url}/v1/jobs", "-c", "12", "-D", "20")
    passed = load.count(200)
    nominal = _LIMIT * (1 + load.seconds / 60)
    if passed + load.count(429) != len(load.statuses):
        raise RuntimeError("a request was neither served nor refused by its rate")
    return [
        Row(
            "requests that pass three gateways, away from the limit",
            "%",
            abs(passed / nominal - 1) * 100,
            "<= 2",
            note=f"{passed} of {len(load.statuses)} passed, {nominal:.0f} allowed",
        )
    ]
