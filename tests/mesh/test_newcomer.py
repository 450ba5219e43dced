"""A newcomer's questions over this project's own documentation."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import httpx
import mesh_process
import pytest
from raglan_cli.display import SUGGESTIONS

REPOSITORY = Path(__file__).parents[2]
DOCS = REPOSITORY / "docs"
QUESTIONS = REPOSITORY / "tests" / "newcomer_questions.jsonl"
DECLINED = "The documents do not answer this."
LEAST_RIGHT = 20

_MARKS = re.compile(r"[`*]")


def normal(text: str) -> str:
    return " ".join(_MARKS.sub("", text).lower().split())


@pytest.fixture
def handbook(client: httpx.Client, collection: str) -> str:
    """The collection with the documentation in it."""
    files = [
        ("files", (path.relative_to(DOCS).as_posix(), path.read_bytes(), "text/markdown"))
        for path in sorted(DOCS.rglob("*.md"))
    ]
    reply = client.post(f"/v1/collections/{collection}/documents", files=files)
    job = mesh_process.finished(client, reply.json()["job_id"])
    assert job["status"] == "succeeded", job
    return collection


def ask(client: httpx.Client, collection: str, question: str) -> dict[str, Any]:
    reply = client.post("/v1/query", json={"query": question, "collections": [collection]})
    assert reply.status_code == 200, reply.text
    answer: dict[str, Any] = reply.json()
    return answer


def noise(citation: dict[str, Any]) -> str:
    """Return the fault of a quote; empty if it has none."""
    text = (DOCS / citation["document_id"]).read_text(encoding="utf-8")
    start, end, quote = citation["start"], citation["end"], citation["quote"]
    if text[start:end] != quote:
        return "it is not the document's text at its offsets"
    if quote.count("```") % 2:
        return "half a fence"
    if all(line.startswith("#") for line in quote.splitlines() if line.strip()):
        return "a heading alone"
    first = text[text.rfind("\n", 0, start) + 1 : start]
    last = text[end : text.find("\n", end)]
    if (first.lstrip().startswith("|") or quote.startswith("|")) and (first + last).strip():
        return "half a row"
    return ""


def test_newcomers_are_answered(client: httpx.Client, handbook: str) -> None:
    rows = [json.loads(line) for line in QUESTIONS.read_text(encoding="utf-8").splitlines()]
    wrong, faults = [], []
    for row in rows:
        reply = ask(client, handbook, row["question"])
        answer = normal(reply["answer"])
        if not any(normal(gold) in answer for gold in row["gold"]):
            wrong.append(f"{row['question']} -> {reply['answer'][:120]}")
        faults += [fault for each in reply["citations"] if (fault := noise(each))]
    assert faults == []
    assert len(rows) - len(wrong) >= LEAST_RIGHT, "\n".join(wrong)


@pytest.mark.parametrize("command", [each for each in SUGGESTIONS if not each.startswith("ingest")])
def test_what_raglan_up_suggests_works(client: httpx.Client, handbook: str, command: str) -> None:
    verb, words = shlex.split(command)
    if verb == "ask":
        reply = ask(client, handbook, words)
        assert reply["answer"] != DECLINED
        assert reply["citations"]
    else:
        found = client.post("/v1/search", json={"query": words, "collections": [handbook]})
        assert found.json()["passages"]
