"""A whole mesh over mutual TLS, and one on IPv6: every connection between processes is made so."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import mesh_process
import pytest
from certificates import SERVICES, Authority

pytestmark = pytest.mark.timeout(300)
"""A mesh starts in each test."""

NULL = {f"RAGLAN_{service}_ENGINE": "null" for service in ("EMBEDDER", "RERANKER")}


def raglan(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "raglan_cli", *words],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def use(mesh: mesh_process.Mesh, collection: str) -> None:
    """Ingest, search and ask: every service is called, by the gateway or by the ingester."""
    with mesh.client() as client:
        assert client.post("/v1/collections", json={"name": collection}).status_code == 201
        document = {"id": "a.md", "text": "The lighthouse was built in 1902."}
        job = mesh_process.ingest(client, collection, [document])
        assert job["status"] == "succeeded", job
        body = {"query": "When was the lighthouse built?", "collections": [collection]}
        found = client.post("/v1/search", json=body).json()
        assert [hit["document_id"] for hit in found["passages"]] == ["a.md"]
        assert found["degraded"] == []
        answered = client.post("/v1/query", json=body)
        assert "1902" in answered.json()["answer"]


def states(mesh: mesh_process.Mesh) -> dict[str, tuple[str, str]]:
    """What `raglan status` says: service -> address and state."""
    listed: list[dict[str, Any]] = json.loads(raglan("status", "--json", "--url", mesh.url))[
        "services"
    ]
    return {each["service"]: (each["address"], each["state"]) for each in listed}


def test_a_mesh_over_mutual_tls_takes_new_certificates(tmp_path: Path) -> None:
    """The second set is of another authority: whoever still held the first would be refused."""
    variables = Authority().write(tmp_path / "tls")
    with mesh_process.running(tmp_path / "mesh", **NULL, **variables) as mesh:
        use(mesh, "first")
        Authority().write(tmp_path / "tls")
        raglan("restart", "retriever", "--data", str(mesh.data))
        use(mesh, "second")
        assert {state for _, state in states(mesh).values()} == {"serving"}


def test_a_mesh_on_ipv6(tmp_path: Path) -> None:
    variables = {f"RAGLAN_{service.upper()}_HOST": "::1" for service in SERVICES}
    with mesh_process.running(tmp_path / "mesh", **NULL, **variables) as mesh:
        use(mesh, "first")
        raglan("restart", "embedder", "--data", str(mesh.data))
        use(mesh, "second")
        for address, state in states(mesh).values():
            assert (address.rpartition(":")[0], state) == ("[::1]", "serving")
