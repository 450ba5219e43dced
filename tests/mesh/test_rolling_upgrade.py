"""Processes of a release and of today side by side: the mesh answers through an old wire."""

from __future__ import annotations

from pathlib import Path

import mesh_process
import old_wire
import ports
import pytest

SERVICES = ("embedder", "retriever", "reranker", "generator", "ingester")
TEXT = (
    "The pump of the north well was replaced in March 2024. The new pump delivers forty litres a "
    "second and is serviced every six months by the district workshop."
)


@pytest.mark.parametrize("release", old_wire.releases(), ids=lambda path: path.stem)
def test_documents_and_questions_pass_an_old_wire(
    tmp_path: Path, exported: dict[str, str], release: Path
) -> None:
    """Gateway and ingester call every service over the wire of the release alone, but for the
    embedder, of which an old and a new replica stand side by side."""
    real = {service: ports.free_port() for service in SERVICES}
    old = {service: ports.free_port() for service in SERVICES}
    routes = {old[service]: f"127.0.0.1:{real[service]}" for service in SERVICES}
    fixed = {f"RAGLAN_{name.upper()}_PORT": str(port) for name, port in real.items()}
    both = f"127.0.0.1:{old['embedder']},127.0.0.1:{real['embedder']}"
    called = {"RAGLAN_INGESTER_EMBEDDER_ADDRESS": both}
    called["RAGLAN_INGESTER_RETRIEVER_ADDRESS"] = f"127.0.0.1:{old['retriever']}"
    gateway = {f"RAGLAN_GATEWAY_{s.upper()}_ADDRESS": f"127.0.0.1:{old[s]}" for s in SERVICES}
    gateway["RAGLAN_GATEWAY_EMBEDDER_ADDRESS"] = both
    with (
        old_wire.proxies(old_wire.Release(release), routes) as seen,
        mesh_process.running(tmp_path / "services", **exported, **fixed, **called),
        mesh_process.running(tmp_path / "gateway", **gateway) as mesh,
        mesh.client() as client,
    ):
        assert client.post("/v1/collections", json={"name": "wells"}).status_code == 201
        job = mesh_process.ingest(client, "wells", [{"id": "pump", "text": TEXT, "title": "Well"}])
        assert (job["status"], job["errors"]) == ("succeeded", [])
        asked = {"query": "How much does the new pump deliver?", "collections": ["wells"]}
        answer = client.post("/v1/query", json=asked).json()
        assert answer["degraded"] == []
        citation = answer["citations"][0]
        assert TEXT[citation["start"] : citation["end"]] == citation["quote"]
        assert "forty litres" in citation["quote"]
        streamed = mesh_process.events(client.post("/v1/query", json=asked | {"stream": True}))
        assert streamed[-1][0] == "done"
        assert client.get("/v1/collections/wells/documents/pump").json()["text"] == TEXT
        assert client.delete("/v1/collections/wells/documents/pump").is_success
        assert client.get("/v1/collections/wells").json()["chunks"] == 0
    expected = ("Embedder", "Retriever", "Reranker", "Generator", "Ingester")
    assert {f"raglan.v1.{name}Service" for name in expected} <= {
        method.split("/")[1] for method in seen
    }
