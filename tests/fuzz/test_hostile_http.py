"""Hostile clients of every stream: no 5xx, no hang, and nothing is left of them."""

from __future__ import annotations

import os
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import hostile_http
import httpx
import mesh_process
import pytest

ROUNDS = int(os.environ.get("ROUNDS", "1"))
"""Clients of each manner to each stream: `make test-fuzz ROUNDS=100`."""
AT_ONCE = 8
MEMORY_MB = 48
"""Growth of the gateway's memory over the second half of the clients."""
QUESTION = "When does a pump stop?"

pytestmark = pytest.mark.timeout(240 + 60 * ROUNDS)


def test_hostile_clients_leave_nothing_behind(mesh: mesh_process.Mesh) -> None:
    with mesh.client() as client:
        client.post("/v1/collections", json={"name": "default"})
        text = "A pump stops at 90 C. " * 20
        job = mesh_process.ingest(client, "default", [{"id": "hostile", "text": text}])
        targets = hostile_http.targets(QUESTION, job["id"])
        before = _settled(client, mesh, most=None)
        _visit_all(mesh, targets, range(ROUNDS))
        halfway = _memory_mb(mesh)
        _visit_all(mesh, targets, range(ROUNDS, 2 * ROUNDS))
        after = _settled(client, mesh, most=before)
        assert after <= before
        assert _memory_mb(mesh) - halfway <= MEMORY_MB
        reply = client.post("/v1/query", json={"query": QUESTION})
        assert reply.status_code == 200
        assert "90" in reply.json()["answer"]


def _visit_all(mesh: mesh_process.Mesh, targets: list[hostile_http.Target], seeds: range) -> None:
    url = urlsplit(mesh.url)
    address = (url.hostname or "", url.port or 0)
    visits = [
        (manner, target, seed)
        for seed in seeds
        for target in targets
        for manner in (*hostile_http.LEAVE, *hostile_http.WAIT)
    ]
    random.Random(seeds[0]).shuffle(visits)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = pool.map(lambda visit: hostile_http.visit(address, *visit), visits)
        for (manner, target, seed), statuses in zip(visits, found, strict=True):
            said = f"{manner.__name__} to {target.path}, seed {seed}: {statuses}"
            assert all(status < 500 for status in statuses), said
            assert statuses or manner in hostile_http.LEAVE, said


def _settled(client: httpx.Client, mesh: mesh_process.Mesh, most: int | None) -> int:
    """Return how many tasks and descriptors the gateway has, once few enough are left."""
    counted = 0

    def few() -> bool:
        nonlocal counted
        lines = client.get("/metrics").text.splitlines()
        tasks = next(line for line in lines if line.startswith("raglan_gateway_tasks "))
        descriptors = len(list(Path(f"/proc/{mesh.pid('gateway')}/fd").iterdir()))
        counted = int(float(tasks.split()[1])) + descriptors
        return most is None or counted <= most

    mesh_process.until(few, within_s=60, what="tasks and descriptors are as before")
    return counted


def _memory_mb(mesh: mesh_process.Mesh) -> float:
    pages = int(Path(f"/proc/{mesh.pid('gateway')}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
