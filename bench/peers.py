"""The mesh beside what a user would write instead, `bench/peers_server.py`: `make bench-peers`.

The same model file, corpus (SciFact) and questions for all, on the same cores. Systems take turns:
one question to each for the latencies, 16 callers on each for the throughput. No question is timed
twice against one cache: the callers' questions have words of their own before them.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import mesh_process
from callers import OK, Target
from load import Closed, Generator, generator
from mesh import DATA, ROOT, corpus
from processes import answers, free_port, process
from raglan.encoders import model as models
from raglan_cli import metrics
from raglan_cli.beir import Question
from raglan_cli.beir import load as read
from report import Row, measure, share_cores

PYTHON = ROOT / ".venv-peers" / "bin" / "python"
VECTORS = ROOT / ".venv-peers" / "scifact.npy"
CORES = 2
CALLERS = 16
PASSAGES = 20
"""The mesh is asked for passages, several of which may belong to one document."""

BEFORE = ("Is it true that", "Is there evidence that", "Do studies show that", "Do we know that")
"""Words before a question, one a round and variant, so that its vector is not cached."""

PEERS_ASKED = 100
"""Questions of a round for a peer, whose rounds would last minutes otherwise."""

_LIMIT_S = 1800.0


@dataclass
class System:
    """A server, the body of its requests, and what was measured."""

    name: str
    port: int
    path: str
    body: Mapping[str, Any]
    took_ms: list[float] = field(default_factory=list)
    ndcg: list[float] = field(default_factory=list)
    answered: int = 0
    seconds: float = 0.0

    def request(self, text: str) -> bytes:
        return json.dumps({"query": text, **self.body}).encode()

    def ask(self, client: httpx.Client, question: Question, *, timed: bool) -> None:
        """Search once; note the quality, and the latency if `timed`."""
        begun = time.perf_counter()
        reply = client.post(
            f"http://127.0.0.1:{self.port}{self.path}",
            content=self.request(question.text),
            headers={"content-type": "application/json"},
        ).raise_for_status()
        if timed:
            self.took_ms.append((time.perf_counter() - begun) * 1e3)
        found = dict.fromkeys(each["document_id"] for each in reply.json()["passages"])
        self.ndcg.append(metrics.ndcg(list(found), question.grades, 10))

    def load(self, making: Generator, texts: Sequence[str]) -> None:
        """Answer `texts` to 16 callers.

        Raises:
            AssertionError: A request failed.
        """
        target = Target("http", self.port, self.path)
        requests = [self.request(text) for text in texts]
        (met,) = making.run(Closed(target, requests, CALLERS), limit_s=_LIMIT_S)
        assert met.count(OK) == len(requests), set(met.status)
        self.answered += len(requests)
        self.seconds += met.seconds

    @property
    def per_s(self) -> float:
        """Answers a second to 16 callers."""
        return self.answered / self.seconds


def peers() -> list[Row]:
    """Latency, throughput and quality of the mesh and of its peers."""
    questions = read(DATA / "scifact").questions
    with systems() as (reranking, fused, memory, qdrant), httpx.Client(timeout=60) as client:
        every = (reranking, fused, memory, qdrant)
        for each in every:
            each.ask(client, questions[0], timed=False)
            each.ndcg.clear()
        for number, question in enumerate(questions):
            # The variant of the mesh that comes second finds the question's vector in the cache.
            mesh = [reranking, fused][:: 1 if number % 2 else -1]
            turn = [mesh[0], memory, qdrant]
            for each in turn[number % 3 :] + turn[: number % 3]:
                each.ask(client, question, timed=True)
            mesh[1].ask(client, question, timed=False)
        with generator() as making:
            for number, before in enumerate(BEFORE):
                texts = [f"{before} {question.text}" for question in questions]
                every[number % 2].load(making, texts)
                every[2 + number % 2].load(making, texts[:PEERS_ASKED])
    return [row for peer in (memory, qdrant) for row in rows(reranking, fused, peer)]


def rows(reranking: System, fused: System, peer: System) -> Iterator[Row]:
    """The mesh at its defaults, and without reranking, beside `peer`."""
    median = statistics.median
    kinds: list[tuple[str, str, str, Callable[[System], float]]] = [
        ("one caller, p50", "ms", "ratio <= 1", lambda each: median(each.took_ms)),
        (f"{CALLERS} callers", "1/s", "ratio >= 1", lambda each: each.per_s),
        ("nDCG@10", "", "ratio >= 1", lambda each: statistics.fmean(each.ndcg)),
    ]
    for what, unit, target, value in kinds:
        for mesh in (reranking, fused):
            yield Row(
                f"{what}, {mesh.name}; {peer.name}",
                unit,
                value(mesh),
                target,
                value(peer),
                peer.name,
            )


@contextmanager
def systems() -> Iterator[tuple[System, System, System, System]]:
    """The mesh with and without reranking, and Haystack on both stores, filled with SciFact."""
    model = models.read(models.DEFAULT_MODEL).path
    port = free_port()
    command = [
        *(str(PYTHON), str(ROOT / "bench" / "peers_server.py"), str(model)),
        *(str(DATA / "scifact" / "corpus.jsonl"), str(VECTORS), str(port)),
    ]
    quiet = {"HF_HUB_OFFLINE": "1", "HAYSTACK_TELEMETRY_ENABLED": "False"}
    with (
        tempfile.TemporaryDirectory() as folder,
        process("Haystack", command, quiet, lambda: answers(port), start_s=_LIMIT_S),
        mesh_process.running(Path(folder) / "mesh") as mesh,
    ):
        with mesh.client() as client:
            client.post("/v1/collections", json={"name": "scifact"})
            documents = {"documents": corpus("scifact")}
            reply = client.post("/v1/collections/scifact/documents", json=documents)
            job = mesh_process.finished(client, reply.json()["job_id"], within_s=1200)
            assert job["status"] == "succeeded", job
        own = int(mesh.url.rsplit(":", 1)[1])
        body = {"collections": ["scifact"], "top_k": PASSAGES}
        yield (
            System("reranked", own, "/v1/search", body),
            System("not reranked", own, "/v1/search", body | {"rerank": False}),
            System("Haystack in memory", port, "/memory/search", {"top_k": 10}),
            System("Haystack on Qdrant local", port, "/qdrant/search", {"top_k": 10}),
        )


def main() -> None:
    """Measure and publish."""
    share_cores(CORES)
    measure("peers", {"peers": peers}, [])


if __name__ == "__main__":
    main()
