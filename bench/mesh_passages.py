"""Record what a mesh gives its generator for every question of a set, to replay it without one.

A mesh is started once and the SQuAD part ingested. Each question then goes through the gateway's
own pipeline, with its defaults, to the services of that mesh, and the generator's own reading of
the request is kept. The files (70 MB) lie in the temporary folder; delete them to ask again (about
six minutes on two cores).
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import mesh_process
from raglan.deadline import Deadline
from raglan.v1 import generator_pb2, retriever_pb2
from raglan_gateway.api import filters, schemas
from raglan_gateway.mesh import STUBS, Mesh
from raglan_gateway.pipeline import Budgets, Pipeline, Query
from raglan_gateway.settings import GatewaySettings
from raglan_generator.generation import Passage
from raglan_generator.servicer import Limits, parse

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("EVAL_DATA_DIR") or ROOT.parent / "shared" / "data")
CACHE = Path(tempfile.gettempdir()) / "raglan-bench"
COLLECTION = "squad"
TIME_S = 30.0

SETS = ("squad", "squad-without-gold", "scifact", "cranfield", "docs_qa")
"""`squad-without-gold`: SQuAD's first 2,000 questions, each without the document that answers.
`docs_qa`: questions over Markdown documentation, in a collection of its own."""
DOCS = "docs_qa"

_WITHOUT_GOLD = 2_000
_TOGETHER = 2


@dataclass(frozen=True)
class Asked:
    """One question and what the generator is given for it."""

    question: str
    answers: tuple[str, ...]
    gold: str
    """The document that answers; "" where none does."""
    documents: tuple[str, ...]
    """Of the passages."""
    passages: tuple[Passage, ...]

    @property
    def gold_rank(self) -> int | None:
        """From 0."""
        return self.documents.index(self.gold) if self.gold in self.documents else None

    def unread(self) -> Asked:
        """As where no reranker that looks at words is up."""
        return self._with(matches=())

    def unscored(self) -> Asked:
        """As where neither embedder nor reranker is up."""
        return self._with(score=None, similarity=None, matches=())

    def _with(self, **changes: Any) -> Asked:
        return replace(self, passages=tuple(replace(p, **changes) for p in self.passages))


def load(name: str) -> list[Asked]:
    """The questions of one of `SETS`, in the order of its file."""
    if not all(_file(each).exists() for each in SETS):
        _ask_a_mesh()
    return [_asked(row) for row in json.loads(_file(name).read_text())]


def questions(name: str) -> list[dict[str, Any]]:
    """Rows of a set's queries.jsonl."""
    return _lines(name, "queries")


def _lines(name: str, file: str) -> list[dict[str, Any]]:
    path = DATA / name / f"{file}.jsonl"
    if not path.is_file():
        sys.exit(f"There is no {path}: set EVAL_DATA_DIR to a folder of BEIR sets.")
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def fill(client: httpx.Client, collection: str) -> None:
    """Ingest the SQuAD part; `without` can leave each document out."""
    with (DATA / "squad" / "corpus.jsonl").open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    documents = [
        {"id": r["_id"], "title": r["title"], "text": r["text"], "metadata": {"id": r["_id"]}}
        for r in rows
    ]
    client.post("/v1/collections", json={"name": collection}).raise_for_status()
    for begin in range(0, len(documents), 1000):
        body = {"documents": documents[begin : begin + 1000]}
        reply = client.post(f"/v1/collections/{collection}/documents", json=body)
        job = mesh_process.finished(client, reply.json()["job_id"], within_s=600)
        assert job["status"] == "succeeded", job


def fill_docs(client: httpx.Client, collection: str) -> None:
    """Ingest the Markdown documents of docs_qa."""
    folder = DATA / DOCS / "docs"
    client.post("/v1/collections", json={"name": collection}).raise_for_status()
    files = [
        ("files", (path.relative_to(folder).as_posix(), path.read_bytes(), "text/markdown"))
        for path in sorted(folder.rglob("*.md"))
    ]
    reply = client.post(f"/v1/collections/{collection}/documents", files=files)
    job = mesh_process.finished(client, reply.json()["job_id"], within_s=600)
    assert job["status"] == "succeeded", job


def without(document: str) -> dict[str, Any]:
    """The filter of a search that leaves one document out."""
    return {"not": {"eq": {"field": "id", "value": document}}}


def gold() -> dict[str, str]:
    """Question -> document of the SQuAD part."""
    lines = (DATA / "squad" / "qrels" / "test.tsv").read_text().splitlines()[1:]
    return {query: document for query, document, _ in (line.split("\t") for line in lines)}


def _ask_a_mesh() -> None:
    CACHE.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        mesh_process.running(Path(folder) / "mesh") as mesh,
    ):
        with mesh.client() as client:
            fill(client, COLLECTION)
            fill_docs(client, DOCS)
        asyncio.run(_ask_all(mesh))


async def _ask_all(running: mesh_process.Mesh) -> None:
    addresses = {each["service"]: each["address"] for each in running.services()}
    settings = GatewaySettings(**{f"{name}_address": addresses[name] for name in STUBS})
    mesh = Mesh(settings)
    budgets = Budgets(embed_s=10, retrieve_s=10, rerank_s=10, first_token_s=10, cite_s=10)
    pipeline = Pipeline(mesh, budgets, rerank_candidates=settings.rerank_candidates)
    for name in SETS:
        rows = await _in_order(pipeline, _wanted(name))
        _file(name).write_text(json.dumps(rows))
        print(f"{name}: {len(rows)} questions asked")
    await mesh.close()


def _wanted(name: str) -> list[tuple[dict[str, Any], str, bool]]:
    """(question, document that answers, whether it is left out)."""
    source = name.split("-")[0]
    if name == DOCS:
        return [(_plain(row), row["document"] or "", False) for row in _lines(name, "questions")]
    golden = gold() if source == "squad" else {}
    leaves_out = name != source
    rows = questions(source)[: _WITHOUT_GOLD if leaves_out else None]
    return [(row, golden.get(row["_id"], ""), leaves_out) for row in rows]


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """A question of docs_qa in the form of the others."""
    answers = {"answers": row["gold"]}
    return {"text": row["question"], "metadata": answers, "collection": DOCS}


async def _in_order(
    pipeline: Pipeline, wanted: Sequence[tuple[dict[str, Any], str, bool]]
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for begin in range(0, len(wanted), _TOGETHER):
        some = wanted[begin : begin + _TOGETHER]
        rows += await asyncio.gather(*(_ask(pipeline, *each) for each in some))
    return rows


async def _ask(
    pipeline: Pipeline, row: dict[str, Any], document: str, leaves_out: bool
) -> dict[str, Any]:
    filter_ = schemas.Filter.model_validate(without(document)) if leaves_out else None
    query = Query(
        text=" ".join(row["text"].split()),
        collections=(row.get("collection", COLLECTION),),
        top_k=schemas.SearchRequest.model_fields["top_k"].default,
        mode=retriever_pb2.SEARCH_MODE_HYBRID,
        rerank=True,
        filter=filters.to_proto(filter_) if filter_ else None,
    )
    run = await pipeline.search(query, Deadline.after(TIME_S))
    assert run.degraded == [], run.degraded
    request = generator_pb2.GenerateRequest(question=query.text, passages=run.passages)
    return {
        "request": base64.b64encode(request.SerializeToString()).decode(),
        "answers": (row.get("metadata") or {}).get("answers", []),
        "gold": document,
        "documents": [passage.document_id for passage in run.passages],
    }


def _asked(row: dict[str, Any]) -> Asked:
    message = generator_pb2.GenerateRequest.FromString(base64.b64decode(row["request"]))
    read = parse(message, Limits())
    return Asked(
        question=read.question,
        answers=tuple(row["answers"]),
        gold=row["gold"],
        documents=tuple(row["documents"]),
        passages=read.passages,
    )


def _file(name: str) -> Path:
    return CACHE / f"mesh-passages-{name}.json"
