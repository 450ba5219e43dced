"""The vector index of a collection, as the REST interface describes it."""

from __future__ import annotations

import httpx
import mesh_process


def test_the_index_is_described_and_takes_a_recall(client: httpx.Client) -> None:
    client.post("/v1/collections", json={"name": "aimed"}).raise_for_status()
    documents = [{"id": "one", "text": "The pump runs at night."}]
    assert mesh_process.ingest(client, "aimed", documents)["status"] == "succeeded"
    found = client.get("/v1/collections/aimed").raise_for_status().json()
    assert found["index"] == {
        "state": "scanned",
        "chunks": 0,
        "recall_target": 0.95,
        "m": 0,
        "ef_construct": 0,
        "ef": 0,
        "quantization": "",
        "oversampling": 0,
        "on_disk": [],
    }
    profiled = client.patch("/v1/collections/aimed", json={"profile": "fast"}).json()
    aimed = client.patch("/v1/collections/aimed", json={"recall_target": 0.99}).json()
    assert aimed["index"]["recall_target"] == 0.99
    assert aimed["profile"] == profiled["profile"] == "fast"
    back = client.patch("/v1/collections/aimed", json={"recall_target": None}).json()
    assert back["index"]["recall_target"] == 0.95
    assert client.get("/v1/collections/aimed").json()["profile"] == "fast"


def test_a_recall_out_of_range_is_refused(client: httpx.Client) -> None:
    client.post("/v1/collections", json={"name": "unaimed"})
    refused = client.patch("/v1/collections/unaimed", json={"recall_target": 1})
    assert refused.status_code == 422
    assert "recall_target" in refused.text
