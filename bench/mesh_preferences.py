"""Relevance and repetition of replies by `diversity`, on SciFact."""

from __future__ import annotations

import csv
import json
import statistics
from collections.abc import Sequence
from typing import Any, Final

import httpx
import mesh_process
from raglan.v1 import common_pb2
from raglan_cli import metrics
from raglan_gateway.preferences import likeness
from report import Row
from texts import DATA

_VALUES: Final = (0.0, 0.1, 0.2, 0.3, 0.5)
_QUERIES: Final = 200
_COLLECTION: Final = "preferences"


def preferences(mesh: mesh_process.Mesh) -> list[Row]:
    """nDCG@10 and how alike the passages of a reply are, at the gateway's other defaults."""
    grades = _grades()
    queries = [
        row for row in _lines("queries.jsonl") if row["_id"] in grades
    ][:_QUERIES]  # fmt: skip
    documents = [
        {"id": row["_id"], "title": row["title"], "text": row["text"]}
        for row in _lines("corpus.jsonl")
        if row["text"].strip()
    ]
    rows = []
    with mesh.client() as client:
        client.post("/v1/collections", json={"name": _COLLECTION})
        reply = client.post(
            f"/v1/collections/{_COLLECTION}/documents", json={"documents": documents}
        )
        mesh_process.finished(client, reply.raise_for_status().json()["job_id"], within_s=1200)
        for diversity in _VALUES:
            found = [_ask(client, row["text"], diversity) for row in queries]
            ranked = zip(queries, found, strict=True)
            gains = [
                metrics.ndcg(list(dict.fromkeys(p["document_id"] for p in f)), grades[q["_id"]], 10)
                for q, f in ranked
            ]
            alike = [_repetition([p["text"] for p in f]) for f in found]
            name = f"SciFact, diversity {diversity:g}"
            rows.append(Row(f"{name}: nDCG@10", "", statistics.fmean(gains)))
            rows.append(
                Row(f"{name}: likeness to the nearest passage before", "", statistics.fmean(alike))
            )
    return rows


def _ask(client: httpx.Client, query: str, diversity: float) -> list[dict[str, Any]]:
    body = {"query": query, "collections": [_COLLECTION], "diversity": diversity}
    found = client.post("/v1/search", json=body).raise_for_status().json()
    passages: list[dict[str, Any]] = found["passages"]
    return passages


def _repetition(texts: Sequence[str]) -> float:
    """Return the mean likeness of a passage to the nearest of those before it."""
    alike = likeness([common_pb2.Passage(text=text) for text in texts])
    return statistics.fmean(float(alike[at, :at].max()) for at in range(1, len(texts)))


def _lines(name: str) -> list[dict[str, Any]]:
    text = (DATA / "scifact" / name).read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def _grades() -> dict[str, dict[str, int]]:
    grades: dict[str, dict[str, int]] = {}
    with (DATA / "scifact" / "qrels" / "test.tsv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            grades.setdefault(row["query-id"], {})[row["corpus-id"]] = int(row["score"])
    return grades
