"""Questions in languages that the default model does not read: `make bench-mesh ONLY=languages`.

The XQuAD parts hold the same 240 paragraphs and questions in several languages, so that only the
language makes a difference. Each leg alone says what hybrid search and reranking must not lose.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from typing import Any

import httpx
import mesh_process
from mesh_passages import DATA
from raglan_cli import beir, metrics
from report import Row

QUESTIONS = 150
WAYS: dict[str, dict[str, Any]] = {
    "words": {"mode": "lexical", "rerank": False},
    "dense": {"mode": "dense", "rerank": False},
    "hybrid": {"rerank": False},
    "default": {},
}


def languages(mesh: mesh_process.Mesh) -> list[Row]:
    """Recall@1 of each way to search each XQuAD part, and whether the answers are right."""
    with mesh.client() as client:
        return [
            row for folder in sorted(DATA.glob("xquad_*")) for row in _figures(client, folder.name)
        ]


def _figures(client: httpx.Client, name: str) -> Iterator[Row]:
    _fill(client, name)
    questions = beir.load(DATA / name).questions[:QUESTIONS]
    recall = {
        way: statistics.fmean(_is_first(client, name, each, way) for each in questions)
        for way in WAYS
    }
    better = max(recall["words"], recall["dense"])
    for way, share in recall.items():
        target = f">= {better - 0.01:.3f}" if way in ("hybrid", "default") else None
        yield Row(f"{name} Recall@1, {way}", "", share, target, better, "the better leg alone")
    right = [
        metrics.contains_any(_post(client, "/v1/query", name, each.text)["answer"], each.answers)
        for each in questions
    ]
    yield Row(f"{name}, an answer string is in the answer", "share", statistics.fmean(right))


def _is_first(client: httpx.Client, name: str, question: beir.Question, way: str) -> bool:
    passages = _post(client, "/v1/search", name, question.text, **WAYS[way])["passages"]
    return bool(passages) and passages[0]["document_id"] in question.grades


def _post(
    client: httpx.Client, path: str, collection: str, query: str, **options: Any
) -> dict[str, Any]:
    body = {"query": query, "collections": [collection], **options}
    reply: dict[str, Any] = client.post(path, json=body).raise_for_status().json()
    return reply


def _fill(client: httpx.Client, name: str) -> None:
    with (DATA / name / "corpus.jsonl").open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    documents = [{"id": row["_id"], "title": row["title"], "text": row["text"]} for row in rows]
    client.post("/v1/collections", json={"name": name}).raise_for_status()
    reply = client.post(f"/v1/collections/{name}/documents", json={"documents": documents})
    job = mesh_process.finished(client, reply.json()["job_id"], within_s=600)
    assert job["status"] == "succeeded", job
