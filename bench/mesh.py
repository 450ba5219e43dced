"""The figures of docs/benchmarks.md, measured on a mesh that this starts: `make bench-mesh`.

    python bench/mesh.py [ingest] [scifact] [squad] [answers] [search] [identifiers] [docs]
                         [languages] [strategies] [preferences]
                         [collections] [overhead] [streams] [traces] [tracing] [collectors]
                         [understanding]

Without names, all of them. Each ends in `bench/results/mesh-<name>.json`. Those of the third
line on start services of their own.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import mesh_collections
import mesh_conversations
import mesh_documents
import mesh_identifiers
import mesh_languages
import mesh_overhead
import mesh_passages
import mesh_preferences
import mesh_process
import mesh_strategies
import mesh_streams
import mesh_traces
import mesh_tracing
import mesh_understanding
import psutil
import report
from raglan_cli import metrics
from raglan_generator.generation import ABSTENTION
from report import Row, publish
from sklearn.metrics import roc_auc_score

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("EVAL_DATA_DIR") or ROOT.parent / "shared" / "data")
CHUNKS = 20_000
QUERIES = 200


def main() -> None:
    """Measure what the command line names."""
    figures = {
        "ingest": ingest,
        "scifact": scifact,
        "squad": squad,
        "answers": answers,
        "search": search,
        "identifiers": mesh_identifiers.identifiers,
        "docs": mesh_documents.docs,
        "conversations": mesh_conversations.conversations,
        "languages": mesh_languages.languages,
        "strategies": mesh_strategies.strategies,
        "preferences": mesh_preferences.preferences,
    }
    own = {
        "collections": mesh_collections.collections,
        "overhead": mesh_overhead.overhead,
        "streams": mesh_streams.streams,
        "traces": mesh_traces.traces,
        "tracing": mesh_tracing.tracing,
        "collectors": mesh_tracing.collectors,
        "understanding": mesh_understanding.understanding,
    }
    chosen = sys.argv[1:] or [*figures, *own]
    if unknown := set(chosen) - set(figures) - set(own):
        raise SystemExit(
            f"There is no {', '.join(unknown)}; there are {', '.join([*figures, *own])}."
        )
    if shared := [name for name in chosen if name in figures]:
        with (
            tempfile.TemporaryDirectory() as folder,
            mesh_process.running(Path(folder) / "mesh") as mesh,
        ):
            for name in shared:
                publish(f"mesh-{name}", figures[name](mesh))
    for name in chosen:
        if name in own:
            publish(f"mesh-{name}", own[name]())


def ingest(mesh: mesh_process.Mesh) -> list[Row]:
    """SciFact through the front door: time until the job succeeded, and the memory it took."""
    documents = corpus("scifact")
    with mesh.client() as client, Memory(mesh) as memory:
        client.post("/v1/collections", json={"name": "ingest"})
        begun = time.monotonic()
        reply = client.post("/v1/collections/ingest/documents", json={"documents": documents})
        job = mesh_process.finished(client, reply.json()["job_id"], within_s=1200)
        seconds = time.monotonic() - begun
        assert job["status"] == "succeeded", job
        chunks = client.get("/v1/collections/ingest").json()["chunks"]
    return [
        Row(f"ingest {len(documents)} SciFact abstracts", "s", seconds, "<= 240"),
        Row("chunks indexed a second", "1/s", chunks / seconds),
        Row("memory of all processes, most", "GiB", memory.most / 2**30, "<= 3"),
    ]


def scifact(mesh: mesh_process.Mesh) -> list[Row]:
    """Retrieval on SciFact, documents ranked by their best passage."""
    found = evaluate(mesh, "scifact")["search"]
    return [
        Row("SciFact nDCG@10", "", found["ndcg_at_10"], ">= 0.73"),
        Row("SciFact Recall@3", "", found["recall_at_3"], ">= 0.73"),
        Row("SciFact Recall@10", "", found["recall_at_10"]),
        Row("SciFact MRR@10", "", found["mrr_at_10"]),
    ]


def squad(mesh: mesh_process.Mesh) -> list[Row]:
    """Retrieval and answers on the first 1,000 questions of the SQuAD part."""
    found = evaluate(mesh, "squad", "--queries", "1000", "--answers")
    answers = found["answers"]
    return [
        Row("SQuAD Recall@3", "", found["search"]["recall_at_3"], ">= 0.95"),
        Row("SQuAD nDCG@10", "", found["search"]["ndcg_at_10"]),
        Row("an answer string is in the answer", "", answers["contains_answer"], ">= 0.92"),
        Row("answers with citations", "", answers["with_citations"]),
        Row("answers that look longer than three sentences", "", answers["over_three_sentences"]),
        Row("/v1/query, p50", "ms", answers["latency_p50_ms"]),
    ]


def answers(mesh: mesh_process.Mesh) -> list[Row]:
    """Answers and abstentions of `/v1/query`, the generator at its defaults.

    Questions are those of bench/generator_quality.py.
    """
    squad = mesh_passages.questions("squad")[:1000]
    other = [*mesh_passages.questions("scifact"), *mesh_passages.questions("cranfield")][1::2]
    with mesh.client() as client:
        mesh_passages.fill(client, "answers")
        replies = [ask(client, row["text"]) for row in squad]
        others = [ask(client, row["text"]) for row in other]
    right = [
        metrics.contains_any(reply["answer"], row["metadata"]["answers"])
        for reply, row in zip(replies, squad, strict=True)
    ]
    labels = [1] * len(replies) + [0] * len(others)
    area = roc_auc_score(labels, [reply["confidence"] for reply in (*replies, *others)])
    again = sum(reply["attempts"] > 1 for reply in (*replies, *others))
    quotes = max(len(reply["citations"]) for reply in replies)
    return [
        Row("an answer string is in the answer", "share", statistics.fmean(right), ">= 0.92"),
        Row("sentences in an answer, most", "", quotes, "<= 3"),
        Row("abstains on another subject", "share", abstained(others), ">= 0.97"),
        Row("abstains wrongly", "share", abstained(replies), "<= 0.05"),
        Row("area under the curve of confidence, other subjects", "", area),
        Row("questions asked again because a stage fell back", "", again),
    ]


def ask(client: httpx.Client, question: str) -> dict[str, Any]:
    """The reply of `/v1/query`; asked again where a busy machine let a stage fall back."""
    body = {"query": question, "collections": ["answers"]}
    for attempt in range(5):
        reply: dict[str, Any] = client.post("/v1/query", json=body).raise_for_status().json()
        if not reply["degraded"]:
            return reply | {"attempts": attempt + 1}
    raise AssertionError(reply["degraded"])


def abstained(replies: list[dict[str, Any]]) -> float:
    """Share of `replies` that decline."""
    return statistics.fmean(reply["answer"] == ABSTENTION for reply in replies)


def search(mesh: mesh_process.Mesh) -> list[Row]:
    """`/v1/search` by one client over 20,000 chunks, questions it has not seen before."""
    questions = [json.loads(line)["text"] for line in (DATA / "squad" / "queries.jsonl").open()][
        -2 * QUERIES - 20 :
    ]
    with mesh.client() as client:
        filled = fill(client, "search")
        plain, reranked = [], []
        for number, question in enumerate(questions):
            body = {"query": question, "collections": ["search"], "rerank": number % 2 == 1}
            begun = time.perf_counter()
            reply = client.post("/v1/search", json=body)
            elapsed = (time.perf_counter() - begun) * 1e3
            assert reply.json()["degraded"] == [], reply.text
            if number >= 20:
                (reranked if body["rerank"] else plain).append(elapsed)
    return [
        Row("chunks in the collection", "", filled),
        *_percentiles("/v1/search without reranking", plain, "<= 20"),
        *_percentiles("/v1/search with reranking", reranked, "<= 150"),
    ]


def _percentiles(what: str, took_ms: list[float], target: str) -> Iterator[Row]:
    p50, p95 = statistics.median(took_ms), percentile(took_ms, 95)
    yield Row(f"{what}, p50", "ms", p50, target, samples=took_ms, statistic="p50")
    yield Row(f"{what}, p95", "ms", p95, samples=took_ms, statistic="p95")


def fill(client: httpx.Client, collection: str) -> int:
    """Documents of all sets, again under new ids until there are enough chunks; then quiet."""
    client.post("/v1/collections", json={"name": collection})
    for documents in copies():
        reply = client.post(
            f"/v1/collections/{collection}/documents", json={"documents": documents}
        )
        mesh_process.finished(client, reply.json()["job_id"], within_s=1200)
        if client.get(f"/v1/collections/{collection}").json()["chunks"] >= CHUNKS:
            break

    def indexed() -> bool:
        return bool(client.get(f"/v1/collections/{collection}").json()["unindexed_chunks"] < 2000)

    mesh_process.until(indexed, within_s=300, what="the index is optimised")
    return int(client.get(f"/v1/collections/{collection}").json()["chunks"])


def copies() -> Iterator[list[dict[str, Any]]]:
    """Jobs of documents, without end."""
    number = 0
    while True:
        for name in ("squad", "scifact", "cranfield"):
            documents = corpus(name)
            for begin in range(0, len(documents), 1000):
                yield [
                    document | {"id": f"{name}-{number}-{document['id']}"}
                    for document in documents[begin : begin + 1000]
                ]
        number += 1


def evaluate(mesh: mesh_process.Mesh, name: str, *options: str) -> dict[str, Any]:
    """Run `raglan eval`, keep the run in the history and return its report."""
    command = [sys.executable, "-m", "raglan_cli", "eval", str(DATA / name), *options]
    done = subprocess.run(
        [*command, "--url", mesh.url, "--json"], stdout=subprocess.PIPE, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    report.keep_evaluation(name, found)
    return found


def corpus(name: str) -> list[dict[str, Any]]:
    """The documents of a set, as the API takes them."""
    rows = (json.loads(line) for line in (DATA / name / "corpus.jsonl").open())
    return [
        {"id": row["_id"], "title": row["title"], "text": row["text"]}
        for row in rows
        if row["text"].strip()
    ]


def percentile(values: list[float], percent: int) -> float:
    """The value that `percent` of `values` do not exceed."""
    return statistics.quantiles(values, n=100)[percent - 1]


class Memory:
    """Samples the resident memory of a mesh's processes, shared pages counted in each, in bytes."""

    def __init__(self, mesh: mesh_process.Mesh) -> None:
        self.most = 0
        self._root = psutil.Process(mesh.process.pid)
        self._done = threading.Event()
        self._sampler = threading.Thread(target=self._sample)

    def __enter__(self) -> Memory:
        self._sampler.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._sampler.join()

    def _sample(self) -> None:
        while not self._done.wait(0.5):
            processes = [self._root, *self._root.children(recursive=True)]
            total = 0
            for process in processes:
                try:
                    total += process.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            self.most = max(self.most, total)


if __name__ == "__main__":
    main()
