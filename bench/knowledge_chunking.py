"""Chunking strategies on one mesh: retrieval, answers, chunks and cost; and the entries of logs.

Documents are those of docs_qa, and the articles of SQuAD: its paragraphs joined by title, so that
the cuts are the chunker's.
"""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import log_corpus
import mesh_documents
import mesh_passages
import mesh_process
from raglan_cli import beir, metrics
from raglan_ingester import parsers
from raglan_ingester.chunking import Sizes, chunk
from raglan_ingester.logs.entries import read_log
from raglan_ingester.logs.templates import TemplateMiner
from raglan_ingester.parsers.parsed import Source
from report import Row

CHUNKINGS: Mapping[str, dict[str, Any]] = {
    "structure": {"strategy": "structure"},
    "sentences": {"strategy": "sentences"},
    "semantic": {"strategy": "semantic"},
}
"""The first is the default."""
SQUAD_QUESTIONS = slice(0, None, 30)
_LOG_CHARS = 1_200


def chunking() -> list[Row]:
    """Each way to cut, on documentation and on articles."""
    rows: list[Row] = []
    with _mesh() as mesh:
        for measure, kind in ((_documentation, "docs"), (_articles, "squad")):
            for number, (name, settings) in enumerate(CHUNKINGS.items()):
                for row in measure(mesh, f"{kind}-{number}", name, settings):
                    print(f"  {row.what}: {row.ours:.3f} {row.unit}", flush=True)
                    rows.append(row)
    return rows


@contextmanager
def _mesh() -> Iterator[mesh_process.Mesh]:
    with tempfile.TemporaryDirectory() as folder, mesh_process.running(Path(folder)) as mesh:
        yield mesh


def _documentation(
    mesh: mesh_process.Mesh, collection: str, name: str, settings: Mapping[str, Any]
) -> Iterator[Row]:
    scoring = mesh_documents.load_scoring()
    folder = mesh_passages.DATA / "docs_qa"
    questions, documents = scoring.read(folder)
    with mesh.client() as client:
        body = {"name": collection, "chunking": settings}
        client.post("/v1/collections", json=body).raise_for_status()
        begun = time.monotonic()
        marks = mesh_documents.replies(
            mesh, scoring, collection, folder / "docs", questions, documents
        )
        seconds = time.monotonic() - begun
        held = client.get(f"/v1/collections/{collection}").json()
    answerable = [row for row in marks if row["kind"] != "unanswerable"]
    for what, mark in (
        ("gold in the first three passages", "gold@3"),
        ("right", "right"),
        ("wrongly declined", "declined"),
    ):
        yield Row(f"docs_qa, {name}: {what}", "share", mesh_documents.share(answerable, mark))
    yield Row(f"docs_qa, {name}: chunks a document", "", held["chunks"] / held["documents"])
    yield Row(f"docs_qa, {name}: ingestion and questions", "s", seconds)


def _articles(
    mesh: mesh_process.Mesh, collection: str, name: str, settings: Mapping[str, Any]
) -> Iterator[Row]:
    questions = beir.load(mesh_passages.DATA / "squad").questions[SQUAD_QUESTIONS]
    with mesh.client() as client:
        body = {"name": collection, "chunking": settings}
        client.post("/v1/collections", json=body).raise_for_status()
        begun = time.monotonic()
        documents = _joined()
        job = client.post(f"/v1/collections/{collection}/documents", json={"documents": documents})
        mesh_process.finished(client, job.raise_for_status().json()["job_id"], within_s=1800)
        seconds = time.monotonic() - begun
        held = client.get(f"/v1/collections/{collection}").json()
        asked = [_asked(client, collection, each.text, each.answers) for each in questions]
    hits, right, declined = (sum(column) / len(asked) for column in zip(*asked, strict=True))
    yield Row(f"SQuAD, {name}: an answer in the first three passages", "share", hits)
    yield Row(f"SQuAD, {name}: right", "share", right)
    yield Row(f"SQuAD, {name}: declined", "share", declined)
    yield Row(f"SQuAD, {name}: chunks a document", "", held["chunks"] / held["documents"])
    yield Row(f"SQuAD, {name}: ingestion", "s", seconds)


def _asked(
    client: httpx.Client, collection: str, question: str, answers: Sequence[str]
) -> tuple[bool, bool, bool]:
    body = {"query": question, "collections": [collection]}
    reply = mesh_documents.ask(client, "/v1/query", body)
    found = mesh_documents.ask(client, "/v1/search", body)
    texts = "\n".join(passage["text"] for passage in found["passages"][:3])
    return (
        metrics.contains_any(texts, answers),
        metrics.contains_any(reply["answer"], answers),
        not reply["citations"],
    )


def _joined() -> list[dict[str, str]]:
    """The paragraphs of each article, in order, as one document."""
    texts = defaultdict[str, list[str]](list)
    for row in beir.load(mesh_passages.DATA / "squad").corpus():
        texts[row["title"]].append(row["text"])
    return [
        {"id": title, "title": title, "text": "\n\n".join(paragraphs)}
        for title, paragraphs in texts.items()
    ]


def logs() -> list[Row]:
    """Entries cut in two, and templates, over all formats of the test's corpus."""
    cut = entries = right = mined = 0
    for name in log_corpus.FORMATS:
        made = log_corpus.make(name, entries=1_000)
        source = Source(made.text.encode(), f"{name}.log", "")
        pieces = chunk(parsers.parse(source, "log"), Sizes(_LOG_CHARS), strategy="log")
        at = 0
        for wanted in made.entries:
            start = made.text.index(wanted.text, at)
            at = start + len(wanted.text)
            cut += not any(each.start <= start and at <= each.end for each in pieces)
        entries += len(made.entries)
        if name != "access":  # whose lines have no events
            right += _grouped(made)
            mined += len(made.entries)
    return [
        Row("formats", "", len(log_corpus.FORMATS), ">= 8"),
        Row("entries", "", entries),
        Row("entries cut in two", "", cut, "<= 0"),
        Row("templates, grouping accuracy", "share", right / mined, ">= 0.9"),
    ]


def _grouped(made: log_corpus.LogFile) -> int:
    """Entries whose template has exactly the entries of their event."""
    log = read_log(made.text, datetime.now(UTC))
    assert log is not None
    miner = TemplateMiner()
    templates, events = defaultdict[int, set[int]](set), defaultdict[int, set[int]](set)
    for at, (entry, wanted) in enumerate(zip(log.entries, made.entries, strict=True)):
        templates[miner.add(entry.message).cluster_id].add(at)
        events[wanted.event].add(at)
    whole = list(events.values())
    return sum(len(found) for found in templates.values() if found in whole)
