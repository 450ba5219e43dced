"""Rank of exact matches: identifiers that one chunk holds, asked bare and inside a question."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

import httpx
import identifier_set
import mesh_process
from report import Row


def identifiers(mesh: mesh_process.Mesh) -> list[Row]:
    """Recall@1 of 50 identifiers among 400 texts about error codes, at the gateway's defaults."""
    with mesh.client() as client:
        return [row for is_long in (False, True) for row in _rows(client, is_long)]


def _rows(client: httpx.Client, is_long: bool) -> Iterator[Row]:
    held = identifier_set.make(is_long=is_long)
    name, size = ("identifiers-long", "700") if is_long else ("identifiers", "150")
    client.post("/v1/collections", json={"name": name})
    documents = [{"id": id_, "text": text} for id_, text in held.texts.items()]
    job = mesh_process.ingest(client, name, documents)
    assert job["status"] == "succeeded", job
    for question in identifier_set.QUESTIONS:
        right = []
        for identifier, holder in held.holders.items():
            body = {"query": question.format(identifier), "collections": [name], "top_k": 1}
            found = client.post("/v1/search", json=body).raise_for_status().json()
            right.append(found["passages"][0]["document_id"] == holder)
        yield Row(
            f"identifiers in texts of {size} characters, asked {question.format('KX-88213')!r}",
            "Recall@1",
            statistics.fmean(right),
            ">= 0.98",
        )
