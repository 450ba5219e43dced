"""Stand-alone questions from two-turn conversations over docs_qa, without a model.

Each conversation has a question, whose answer is the mesh's own, and a follow-up, which is searched
as the gateway makes it, as it was asked, and with all turns before it. New subjects are the
questions of docs_qa, each asked after the first question of a conversation: they must stay as they
are.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from typing import Any

import httpx
import mesh_passages
import mesh_process
from report import Row

CONVERSATIONS = mesh_passages.ROOT / "tests" / "conversations.jsonl"
_COLLECTION = "conversations"
_FIRST = 3


def conversations(mesh: mesh_process.Mesh) -> list[Row]:
    """Share of follow-ups with the right document in the top 3, by the form that is searched."""
    folder = mesh_passages.DATA / "docs_qa"
    asked = [json.loads(line) for line in CONVERSATIONS.read_text("utf-8").splitlines()]
    subjects = [
        json.loads(line)["question"]
        for line in (folder / "questions.jsonl").read_text("utf-8").splitlines()
    ]
    command = [sys.executable, "-m", "raglan_cli", "ingest", str(folder / "docs")]
    subprocess.run([*command, "-c", _COLLECTION, "--url", mesh.url], check=True)
    with mesh.client() as client:
        forms = [_forms(client, row) for row in asked]
        found = {
            name: [
                _is_found(client, each[name], row) for each, row in zip(forms, asked, strict=True)
            ]
            for name in forms[0]
        }
        kept = [
            _standalone(client, subject, asked[at % len(asked)]["question"], "Yes.") == subject
            for at, subject in enumerate(subjects)
        ]
    return [
        Row("follow-ups", "", len(asked)),
        Row("right document in the top 3, stand-alone", "share", _mean(found["ours"]), ">= 0.9"),
        Row("as it was asked", "share", _mean(found["raw"])),
        Row("with all turns before it", "share", _mean(found["turns"])),
        Row("with the question before it", "share", _mean(found["questions"])),
        Row("new subjects left as they are", "share", _mean(kept), ">= 0.95"),
    ]


def _forms(client: httpx.Client, row: dict[str, Any]) -> dict[str, str]:
    """The follow-up in each form that is searched."""
    question, follow_up = row["question"], row["follow_up"]
    answer = _post(client, "/v1/query", {"query": question})["answer"]
    return {
        "ours": _standalone(client, follow_up, question, answer),
        "raw": follow_up,
        "turns": f"{question}\n{answer}\n{follow_up}",
        "questions": f"{question}\n{follow_up}",
    }


def _standalone(client: httpx.Client, follow_up: str, question: str, answer: str) -> str:
    history = [{"role": "user", "text": question}, {"role": "assistant", "text": answer}]
    body = {"query": follow_up, "history": history, "top_k": 1, "rerank": False}
    asked: str = _post(client, "/v1/query", body)["standalone_question"]
    return asked


def _is_found(client: httpx.Client, query: str, row: dict[str, Any]) -> bool:
    passages = _post(client, "/v1/search", {"query": query, "top_k": _FIRST})["passages"]
    found = any(passage["document_id"].endswith(tuple(row["documents"])) for passage in passages)
    if not found:
        print(f"not found: {query!r}", file=sys.stderr)
    return found


def _post(client: httpx.Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """The reply; asked again where a busy machine let a stage fall back."""
    for _ in range(5):
        reply = client.post(path, json={"collections": [_COLLECTION], **body})
        content: dict[str, Any] = reply.raise_for_status().json()
        if not content["degraded"]:
            return content
    raise AssertionError(content["degraded"])


def _mean(values: list[bool]) -> float:
    return statistics.fmean(values)
