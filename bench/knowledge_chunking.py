"""Chunking strategies on one mesh: retrieval, answers, chunks and cost; and the entries of logs.

Documents are those of docs_qa, and the articles of SQuAD: its paragraphs joined by title, so that
the cuts are the chunker's.
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
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


@dataclass(frozen=True)
class Way:
    """A way to cut documents, and to ask for answers from them."""

    collection: str
    chunking: Mapping[str, Any]
    asking: Mapping[str, Any] = field(default_factory=dict)


WAYS: Mapping[str, Way] = {
    "structure": Way("structure", {"strategy": "structure"}),
    "structure, 2,000 tokens of neighbours": Way("structure", {}, {"expand_tokens": 2_000}),
    "parent": Way("parent", {"strategy": "parent"}),
    "parent, without sections": Way("parent", {"strategy": "parent"}, {"expand_tokens": 0}),
    "sentences": Way("sentences", {"strategy": "sentences"}),
    "semantic": Way("semantic", {"strategy": "semantic"}),
}
"""The first is the default. Ways with the same collection share it."""
_ARTICLES = slice(0, None, 5)
"""Of SQuAD, by title: all of it makes more chunks than two cores embed in the time, eight times."""
_QUESTIONS = slice(0, None, 20)
_LOG_CHARS = 1_200
_TOP_K = 10
_NEAR_END_S = 15 * 60
"""No further way is begun after so long."""
_BUDGETS = {
    f"RAGLAN_GATEWAY_{stage}_BUDGET_MS": "14000" for stage in ("EMBED", "RERANK", "EXPAND", "CITE")
}
"""On a machine that does other things too, no stage falls back."""


def chunking() -> list[Row]:
    """Each way to cut, on documentation and on articles."""
    begun = time.monotonic()
    rows: list[Row] = []
    sets = (_articles(), _documentation())
    with _mesh() as mesh, mesh.client() as client:
        for name, way in WAYS.items():
            if time.monotonic() - begun > _NEAR_END_S:
                print(f"  {name}: left out, the time is over", flush=True)
                continue
            for asked in sets:
                for row in _measured(client, asked, name, way):
                    print(f"  {row.what}: {row.ours:.3f} {row.unit}", flush=True)
                    rows.append(row)
    return rows


@contextmanager
def _mesh() -> Iterator[mesh_process.Mesh]:
    with (
        tempfile.TemporaryDirectory() as folder,
        mesh_process.running(Path(folder) / "mesh", **_BUDGETS) as mesh,
    ):
        yield mesh


@dataclass(frozen=True)
class Asked:
    """Documents and questions about them."""

    name: str
    documents: Sequence[Mapping[str, str]]
    questions: Sequence[str]
    holds: Callable[[int, str], bool]
    """Predicate: a text has an answer to the question of that number."""
    is_right: Callable[[int, Mapping[str, Any]], bool]
    """Predicate: a reply answers the question of that number."""


def _documentation() -> Asked:
    scoring = mesh_documents.load_scoring()
    folder = mesh_passages.DATA / "docs_qa"
    every, read = scoring.read(folder)
    questions = [each for each in every if each["kind"] != "unanswerable"]
    documents = [
        {
            "id": path.relative_to(folder / "docs").as_posix(),
            "text": path.read_text("utf-8"),
            "media_type": "text/markdown",
        }
        for path in sorted((folder / "docs").rglob("*.md"))
    ]

    def holds(number: int, text: str) -> bool:
        shown = (scoring.normal(text),)
        return any(scoring.found(gold, shown) for gold in questions[number]["gold"])

    def is_right(number: int, reply: Mapping[str, Any]) -> bool:
        return bool(scoring.marked(questions[number], reply, reply, read)["right"])

    name = f"docs_qa ({len(questions)} questions)"
    return Asked(name, documents, [each["question"] for each in questions], holds, is_right)


def _articles() -> Asked:
    data = beir.load(mesh_passages.DATA / "squad")
    texts = defaultdict[str, list[str]](list)
    title_of = {}
    for row in data.corpus():
        texts[row["title"]].append(row["text"])
        title_of[row["id"]] = row["title"]
    chosen = sorted(texts)[_ARTICLES]
    documents = [
        {"id": title, "title": title, "text": "\n\n".join(texts[title])} for title in chosen
    ]
    gold = mesh_passages.gold()
    questions = [each for each in data.questions if title_of[gold[each.id]] in chosen]
    questions = questions[_QUESTIONS]

    def holds(number: int, text: str) -> bool:
        return metrics.contains_any(text, questions[number].answers)

    def is_right(number: int, reply: Mapping[str, Any]) -> bool:
        return holds(number, reply["answer"])

    name = f"SQuAD ({len(questions)} questions to {len(chosen)} of {len(texts)} articles)"
    return Asked(name, documents, [each.text for each in questions], holds, is_right)


def _measured(client: httpx.Client, asked: Asked, name: str, way: Way) -> Iterator[Row]:
    prefix = f"{asked.name}, {name}"
    collection = f"{asked.name.split()[0].lower()}-{way.collection}"
    seconds = _filled(client, collection, asked.documents, way.chunking)
    ranks, right, chars, took = [], 0, 0, []
    for number, question in enumerate(asked.questions):
        body = {"query": question, "collections": [collection], "top_k": _TOP_K, **way.asking}
        begun = time.monotonic()
        reply = mesh_documents.ask(client, "/v1/query", body)
        took.append(time.monotonic() - begun)
        texts = [passage["text"] for passage in reply["passages"]]
        ranks.append(next((at for at, text in enumerate(texts) if asked.holds(number, text)), None))
        right += asked.is_right(number, reply)
        chars += sum(map(len, texts))
    count = len(asked.questions)
    found = [rank for rank in ranks if rank is not None]
    gains = sum(1 / math.log2(rank + 2) for rank in found)
    yield Row(f"{prefix}: nDCG@10 of the first passage with an answer", "", gains / count)
    yield Row(f"{prefix}: R@3", "share", sum(rank < 3 for rank in found) / count)
    yield Row(f"{prefix}: answers right", "share", right / count)
    yield Row(f"{prefix}: characters of all passages", "", chars / count)
    yield Row(f"{prefix}: a query, p50", "ms", 1e3 * statistics.median(took))
    if seconds:
        held = client.get(f"/v1/collections/{collection}").json()
        yield Row(f"{prefix}: chunks a document", "", held["chunks"] / held["documents"])
        yield Row(f"{prefix}: ingestion", "s", seconds)


def _filled(
    client: httpx.Client,
    collection: str,
    documents: Sequence[Mapping[str, str]],
    chunking: Mapping[str, Any],
) -> float:
    """Ingest the documents if the collection is new; returns the seconds that it took, or 0."""
    if client.get(f"/v1/collections/{collection}").status_code != 404:
        return 0
    client.post("/v1/collections", json={"name": collection, "chunking": chunking})
    begun = time.monotonic()
    path = f"/v1/collections/{collection}/documents"
    sent = client.post(path, json={"documents": documents}).raise_for_status().json()
    job = mesh_process.finished(client, sent["job_id"], within_s=1_200)
    assert job["status"] == "succeeded", job
    return time.monotonic() - begun


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
