"""Answers over real documentation: docs_qa, and this project's own docs as a newcomer asks of them.

The set, its questions and the script that scores a reply lie in the evaluation data; its README
says how they were made.
"""

from __future__ import annotations

import importlib.util
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import mesh_passages
import mesh_process
from report import Row

DOCS = mesh_passages.ROOT / "docs"
NEWCOMER = mesh_passages.ROOT / "tests" / "newcomer_questions.jsonl"


def docs(mesh: mesh_process.Mesh) -> list[Row]:
    """Score `/v1/query` and `/v1/search` at their defaults."""
    scoring = load_scoring()
    folder = mesh_passages.DATA / "docs_qa"
    questions, documents = scoring.read(folder)
    rows = replies(mesh, scoring, "docs-qa", folder / "docs", questions, documents)
    answerable = [row for row in rows if row["kind"] != "unanswerable"]
    unanswerable = [row for row in rows if row["kind"] == "unanswerable"]
    given = [row for row in rows if not row["declined"]]
    how_tos = [row for row in answerable if row["also"]]
    own = {p.relative_to(DOCS).as_posix(): p for p in sorted(DOCS.rglob("*.md"))}
    read = {name: scoring.Document(name, path.read_text("utf-8")) for name, path in own.items()}
    asked = [{"also": [], **json.loads(line)} for line in NEWCOMER.read_text("utf-8").splitlines()]
    newcomer = replies(mesh, scoring, "own-docs", DOCS, asked, read)
    return [
        Row("gold in the first three passages", "share", share(answerable, "gold@3"), ">= 0.9"),
        Row("right", "share", share(answerable, "right"), ">= 0.72"),
        Row("how-tos complete", "share", share(how_tos, "full"), ">= 0.6"),
        Row("wrongly declined", "share", share(answerable, "declined"), "<= 0.12"),
        Row("unanswerable, declined", "share", share(unanswerable, "declined"), ">= 0.75"),
        Row("answers with a quote that is cut or only a heading", "", _count(given), "<= 0"),
        Row("newcomer's questions: right", "", sum(r["right"] for r in newcomer), ">= 20"),
        Row("newcomer's questions asked", "", len(newcomer)),
        Row("newcomer's questions: with a quote that is cut", "", _count(newcomer), "<= 0"),
    ]


def replies(
    mesh: mesh_process.Mesh,
    scoring: ModuleType,
    collection: str,
    folder: Path,
    questions: Sequence[dict[str, Any]],
    documents: dict[str, Any],
) -> list[dict[str, Any]]:
    """The marks of every question, beside its `kind` and further strings (`also`)."""
    subprocess.run(
        [
            *(sys.executable, "-m", "raglan_cli", "ingest", str(folder)),
            *("-c", collection, "--url", mesh.url),
        ],
        check=True,
    )
    rows = []
    with mesh.client() as client:
        for question in questions:
            body = {"query": question["question"], "collections": [collection]}
            reply, found = ask(client, "/v1/query", body), ask(client, "/v1/search", body)
            marks = scoring.marked(question, reply, found, documents)
            rows.append({"kind": question["kind"], "also": question["also"], **marks})
    return rows


def ask(client: httpx.Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """The reply; asked again where a busy machine let a stage fall back."""
    for _ in range(5):
        reply: dict[str, Any] = client.post(path, json=body).raise_for_status().json()
        if not reply["degraded"]:
            return reply
    raise AssertionError(reply["degraded"])


def share(rows: Sequence[dict[str, Any]], mark: str) -> float:
    return statistics.fmean(row[mark] for row in rows)


def _count(rows: Sequence[dict[str, Any]]) -> int:
    return sum(row.get("noise", False) for row in rows)


def load_scoring() -> ModuleType:
    """The set's own scoring script."""
    path = mesh_passages.DATA / "docs_qa" / "score.py"
    if not path.is_file():
        sys.exit(f"There is no {path}: set EVAL_DATA_DIR to a folder that holds docs_qa.")
    spec = importlib.util.spec_from_file_location("docs_qa_score", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and the like look their module up.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
