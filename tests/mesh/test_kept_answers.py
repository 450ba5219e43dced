"""Answers that were kept of a document go with it, whichever route asked or deletes."""

from __future__ import annotations

import httpx
import mesh_process
import pytest

QUESTION = "When does the pump start?"
DOCUMENTS = [
    {"id": "pump", "text": "The pump starts at nine in the evening. It stops at noon."},
    {"id": "tides", "text": "Tides are caused by the gravity of the Moon and the Sun."},
]


@pytest.fixture
def filled(client: httpx.Client, collection: str) -> str:
    assert mesh_process.ingest(client, collection, DOCUMENTS)["status"] == "succeeded"
    return collection


def asked(client: httpx.Client, collection: str, **body: object) -> str:
    """Ask; returns the id of the answer."""
    body = {"query": QUESTION, "collections": [collection], "top_k": 1} | body
    reply = client.post("/v1/query", json=body)
    assert reply.status_code == 200, reply.text
    return reply.headers["x-request-id"]


def is_kept(client: httpx.Client, id_: str) -> bool:
    return client.get(f"/v1/queries/{id_}").status_code == 200


@pytest.mark.parametrize("way", ["one", "by ids", "vector store", "collection"])
def test_a_deleted_document_leaves_no_answer(client: httpx.Client, filled: str, way: str) -> None:
    of_pump = [
        asked(client, filled, session_id=f"s-{filled}"),
        asked(client, filled, stream=True),
    ]
    of_tides = asked(client, filled, query="What causes tides?")
    assert all(is_kept(client, id_) for id_ in (*of_pump, of_tides))
    documents = f"/v1/collections/{filled}/documents"
    done = {
        "one": lambda: client.delete(f"{documents}/pump"),
        "by ids": lambda: client.post(f"{documents}/delete", json={"ids": ["pump"]}),
        "vector store": lambda: client.delete(f"/v1/vector_stores/{filled}/files/pump"),
        "collection": lambda: client.delete(f"/v1/collections/{filled}"),
    }[way]()
    assert done.status_code == 200, done.text
    assert not any(is_kept(client, id_) for id_ in of_pump)
    assert client.get(f"/v1/sessions/s-{filled}").json()["turns"] == []
    assert is_kept(client, of_tides) == (way != "collection")
