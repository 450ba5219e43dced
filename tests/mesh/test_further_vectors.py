"""Token vectors and sparse vectors of collections, through whole meshes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import mesh_process
import random_models

DOCUMENTS = [
    {"id": "retry", "text": "A retry budget bounds the retries of a plant of services."},
    {"id": "water", "text": "Water in the plant turns light to sugar."},
    {"id": "words", "text": "Few words of one language are in most sentences."},
]


def search(client: httpx.Client, collection: str, mode: str = "hybrid") -> list[dict[str, Any]]:
    body = {"query": "what turns light to sugar in a plant", "collections": [collection],
            "mode": mode, "rerank": False, "top_k": 3}  # fmt: skip
    found = client.post("/v1/search", json=body).raise_for_status().json()
    assert found["degraded"] == []
    passages: list[dict[str, Any]] = found["passages"]
    return passages


def made(client: httpx.Client, name: str, **vectors: Any) -> dict[str, Any]:
    reply = client.post("/v1/collections", json={"name": name, "vectors": vectors})
    assert reply.status_code == 201, reply.text
    job = mesh_process.ingest(client, name, DOCUMENTS)
    assert job["status"] == "succeeded", job
    held: dict[str, Any] = client.get(f"/v1/collections/{name}").json()
    return held


def test_late_interaction_takes_part_in_the_order(client: httpx.Client) -> None:
    plain = made(client, "plain")
    late = made(client, "late", late_interaction=True)
    made(client, "pooled", late_interaction=True, token_pooling=3)
    assert plain["vectors"] == {"late_interaction": False, "token_pooling": 1, "sparse": False}
    assert late["vectors"] == {"late_interaction": True, "token_pooling": 1, "sparse": False}

    by_vector = {name: search(client, name, "dense") for name in ("plain", "late", "pooled")}
    assert [passage["scores"]["fused"] for passage in by_vector["plain"]] == [None] * 3
    fused = {
        name: [passage["scores"]["fused"] for passage in by_vector[name]]
        for name in ("late", "pooled")
    }
    for name, scores in fused.items():
        assert scores == sorted(scores, reverse=True), name
        assert by_vector[name][0]["document_id"] == "water"
    assert fused["late"] != fused["pooled"]
    hybrid = {name: search(client, name)[0]["scores"]["fused"] for name in ("plain", "late")}
    assert hybrid["plain"] != hybrid["late"]


def test_what_the_model_does_not_give_is_refused(client: httpx.Client) -> None:
    wanted = {"name": "refused", "vectors": {"sparse": True}}
    reply = client.post("/v1/collections", json=wanted)
    assert reply.status_code == 422
    assert "vectors.sparse needs an embedding model that gives sparse" in reply.text
    wanted = {"name": "refused", "vectors": {"token_pooling": 2}}
    reply = client.post("/v1/collections", json=wanted)
    assert reply.status_code == 422
    assert "the collection has no token vectors" in reply.text
    assert client.get("/v1/collections/refused").status_code == 404


def test_the_heads_of_a_model_are_searched(tmp_path: Path) -> None:
    """A model shaped as BGE-M3 with random weights: its dense order means nothing, its terms do."""
    model = random_models.bge_m3(tmp_path / "bge-m3")
    variables = {"RAGLAN_EMBEDDER_MODEL": str(model), "RAGLAN_RERANKER_ENGINE": "null"}
    with mesh_process.running(tmp_path / "mesh", **variables) as mesh, mesh.client() as client:
        made(client, "plain")
        held = made(client, "heads", sparse=True, late_interaction=True, token_pooling=2)
        assert held["vectors"] == {"late_interaction": True, "token_pooling": 2, "sparse": True}
        plain, heads = (search(client, name, "dense") for name in ("plain", "heads"))
        assert [passage["scores"]["fused"] for passage in plain] == [None] * 3
        assert {passage["document_id"] for passage in heads} == {"retry", "water", "words"}
        assert all(passage["scores"]["fused"] is not None for passage in heads)
        assert search(client, "heads")[0]["scores"] != search(client, "plain")[0]["scores"]
