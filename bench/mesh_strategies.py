"""Second tries without a model, and fusion with search texts that a stand-in for a model writes.

The stand-in is an OpenAI-compatible server that has the texts from a table, so the figures say what
fusion makes of perfect and of useless texts, and what a strategy costs besides the model's own
time. They say nothing about the quality of any model.
"""

from __future__ import annotations

import json
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import log2
from pathlib import Path
from typing import Any

import httpx
import mesh_passages
import mesh_process
from raglan_cli import metrics
from report import Row

_SQUAD = 1000
_WITHOUT_GOLD = 300
_BELOW = 0.5
_TRIES = ("deeper", "lexical")
_POOR = "minutes of a meeting about the colour of the garden fence"
Table = dict[str, list[str]]


def strategies() -> list[Row]:
    """Second tries on a mesh with the extractive generator, then strategies on one with a model."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "mesh"
        with mesh_process.running(data) as mesh, mesh.client() as client:
            mesh_passages.fill(client, "squad")
            mesh_passages.fill_docs(client, "docs_qa")
            rows = list(_second_tries(client))
        with (
            _stand_in() as (texts, variables),
            mesh_process.running(data, **variables) as mesh,
            mesh.client() as client,
        ):
            rows += _fusion(client, texts)
            rows += _cost(client, texts)
    return rows


def _second_tries(client: httpx.Client) -> Iterator[Row]:
    """Answers that are right and wrong, with the first try alone and with each second one."""
    squad = mesh_passages.questions("squad")
    golden = mesh_passages.gold()
    docs = _lines(mesh_passages.DATA / "docs_qa" / "questions.jsonl")
    other = [*mesh_passages.questions("scifact"), *mesh_passages.questions("cranfield")][1::2]
    sets: dict[str, list[tuple[dict[str, Any], list[str]]]] = {
        "SQuAD": [(_body("squad", r["text"]), r["metadata"]["answers"]) for r in squad[:_SQUAD]],
        "docs_qa": [
            (_body("docs_qa", r["question"]), r["gold"])
            for r in docs
            if r["kind"] != "unanswerable"
        ],
        "SQuAD without the document": [
            (_body("squad", r["text"], mesh_passages.without(golden[r["_id"]])), [])
            for r in squad[:_WITHOUT_GOLD]
        ],
        "another subject": [(_body("squad", r["text"]), []) for r in other],
        "docs_qa, unanswerable": [
            (_body("docs_qa", r["question"]), []) for r in docs if r["kind"] == "unanswerable"
        ],
    }
    for name, asked in sets.items():
        first = [_ask(client, body) for body, _ in asked]
        golds = [gold for _, gold in asked]
        base = _good(first, golds)
        what = "right" if any(golds) else "abstains"
        yield Row(f"{name}: {what}, one try", "share", base)
        for below in (0.0, _BELOW):
            poor = [at for at, r in enumerate(first) if r["abstained"] or r["confidence"] < below]
            yield Row(f"{name}: second tries below {below:g}", "share", len(poor) / len(asked))
            for second in _TRIES:
                replies = list(first)
                for at in poor:
                    body = asked[at][0] | {"second_try": second, "second_try_below": below}
                    replies[at] = _ask(client, body)
                yield Row(
                    f"{name}: {what}, {second} below {below:g}",
                    "share",
                    _good(replies, golds),
                    peer=base,
                    peer_name="one try",
                )


def _good(replies: Sequence[dict[str, Any]], golds: Sequence[list[str]]) -> float:
    """Share of replies that hold an answer string, or abstain where there is none."""
    return statistics.fmean(
        metrics.contains_any(reply["answer"], gold) if gold else reply["abstained"]
        for reply, gold in zip(replies, golds, strict=True)
    )


def _fusion(client: httpx.Client, texts: Table) -> Iterator[Row]:
    """NDCG@10 and recall@10 of SciFact by the texts that the stand-in writes."""
    documents = _lines(mesh_passages.DATA / "scifact" / "corpus.jsonl")
    _fill(client, "scifact", documents)
    titles = {row["_id"]: row["title"] for row in documents}
    relevant: dict[str, set[str]] = {}
    for line in (mesh_passages.DATA / "scifact/qrels/test.tsv").read_text().splitlines()[1:]:
        query, document, _ = line.split("\t")
        relevant.setdefault(query, set()).add(document)
    asked = [row for row in mesh_passages.questions("scifact") if row["_id"] in relevant]
    random_ = random.Random(15)
    perfect = {row["text"]: titles[min(relevant[row["_id"]])] for row in asked}
    other = {row["text"]: titles[random_.choice(sorted(titles))] for row in asked}
    forms: dict[str, tuple[str, Callable[[str], list[str]]]] = {
        "rewrite, the title of the right document": ("rewrite", lambda q: [perfect[q]]),
        "rewrite, the title of another document": ("rewrite", lambda q: [other[q]]),
        "rewrite, always the same useless text": ("rewrite", lambda q: [_POOR]),
        "multi_query, one of three perfect": (
            "multi_query",
            lambda q: [other[q], perfect[q], _POOR],
        ),
        "multi_query, none of three useful": (
            "multi_query",
            lambda q: [other[q], _POOR, f"{_POOR} {other[q]}"],
        ),
        "hyde, the title of the right document": ("hyde", lambda q: [perfect[q]]),
        "hyde, the title of another document": ("hyde", lambda q: [other[q]]),
    }
    for rerank in (True, False):
        how = "reranked" if rerank else "fused order"
        base = _quality(client, asked, relevant, {"rerank": rerank})
        yield Row(f"SciFact nDCG@10, {how}, the question alone", "", base[0])
        yield Row(f"SciFact Recall@10, {how}, the question alone", "", base[1])
        for name, (strategy, write) in forms.items():
            texts.clear()
            texts.update({row["text"]: write(row["text"]) for row in asked})
            found = _quality(client, asked, relevant, {"rerank": rerank, "strategy": strategy})
            for metric, ours, plain in zip(("nDCG@10", "Recall@10"), found, base, strict=True):
                what = f"SciFact {metric}, {how}, {name}"
                yield Row(what, "", ours, peer=plain, peer_name="the question alone")


def _quality(
    client: httpx.Client,
    asked: Sequence[dict[str, Any]],
    relevant: dict[str, set[str]],
    options: dict[str, Any],
) -> tuple[float, float]:
    gains, recalls = [], []
    for row in asked:
        body = {"query": row["text"], "collections": ["scifact"], "top_k": 20, **options}
        passages = _post(client, "/v1/search", body)["passages"]
        found = list(dict.fromkeys(each["document_id"] for each in passages))[:10]
        wanted = relevant[row["_id"]]
        gain = sum(1 / log2(rank + 2) for rank, each in enumerate(found) if each in wanted)
        ideal = sum(1 / log2(rank + 2) for rank in range(min(10, len(wanted))))
        gains.append(gain / ideal)
        recalls.append(len(wanted & set(found)) / len(wanted))
    return statistics.fmean(gains), statistics.fmean(recalls)


def _cost(client: httpx.Client, texts: Table) -> Iterator[Row]:
    """Time of a search by strategy, with a model that answers at once."""
    asked = mesh_passages.questions("scifact")[:100]
    for strategy, count in (("none", 1), ("rewrite", 1), ("multi_query", 3), ("hyde", 1)):
        texts.clear()
        texts.update({row["text"]: [f"{_POOR} {n}" for n in range(count)] for row in asked})
        took = []
        for row in asked:
            body = {"query": row["text"], "collections": ["scifact"], "strategy": strategy}
            begun = time.perf_counter()
            _post(client, "/v1/search", body)
            took.append((time.perf_counter() - begun) * 1e3)
        p50 = statistics.median(took)
        what = f"/v1/search, {strategy}, {count} texts, without the model's time, p50"
        yield Row(what, "ms", p50, samples=took, statistic="p50")


@contextmanager
def _stand_in() -> Iterator[tuple[Table, dict[str, str]]]:
    """Serve search texts from a table by question; the settings of a generator that asks it."""
    texts: Table = {}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            question = json.loads(body["messages"][-1]["content"])["question"]
            said = {"content": "\n".join(texts[question])}
            frames = (
                {"choices": [{"index": 0, "delta": said}]},
                {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
            )
            data = b"".join(b"data: %s\n\n" % json.dumps(frame).encode() for frame in frames)
            data += b"data: [DONE]\n\n"
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Not into the output."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield (
            texts,
            {
                "RAGLAN_GENERATOR_ENGINE": "openai",
                "RAGLAN_GENERATOR_MODEL": "table",
                "RAGLAN_GENERATOR_BASE_URL": f"http://127.0.0.1:{server.server_port}/v1",
            },
        )
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _body(collection: str, query: str, filter_: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"query": query, "collections": [collection], "filter": filter_}


def _ask(client: httpx.Client, body: dict[str, Any]) -> dict[str, Any]:
    return _post(client, "/v1/query", body)


def _post(client: httpx.Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """The reply; asked again where a busy machine let a stage fall back."""
    for _ in range(8):
        reply = client.post(path, json=body)
        reply.raise_for_status()
        found: dict[str, Any] = reply.json()
        if not found["degraded"]:
            return found
    raise AssertionError(found["degraded"])


def _fill(client: httpx.Client, collection: str, rows: Sequence[dict[str, Any]]) -> None:
    client.post("/v1/collections", json={"name": collection}).raise_for_status()
    documents = [{"id": r["_id"], "title": r["title"], "text": r["text"]} for r in rows]
    for begin in range(0, len(documents), 1000):
        body = {"documents": documents[begin : begin + 1000]}
        reply = client.post(f"/v1/collections/{collection}/documents", json=body)
        job = mesh_process.finished(client, reply.json()["job_id"], within_s=1200)
        assert job["status"] == "succeeded", job


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
