"""Cost of the Search and Upsert rpcs of the edge store: `python bench/retriever.py [--chunks N]`.

Starts a retriever process of its own on an empty folder and fills it over gRPC with random vectors
of 384 dimensions and texts of 150 words, drawn by Zipf's law. Searches one by one, before and after
the vector index is built.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np
import psutil
from raglan import tensors
from raglan.v1 import common_pb2, retriever_pb2, retriever_pb2_grpc
from report import Row, publish

DIMENSION = 384
MODEL = common_pb2.ModelIdentity(id="random", revision="1", dimension=DIMENSION)
BATCH = 250
QUERIES = 200
MODES = {"hybrid": 1, "dense": 2, "lexical": 3}


WORDS = tuple(f"word{n}" for n in range(20_000))


class Corpus:
    """Random vectors, and words drawn by Zipf's law.

    Args:
        words: drawn from; those with a digit are identifiers, each looked for by itself.
    """

    def __init__(self, words: Sequence[str] = WORDS) -> None:
        self._random = np.random.default_rng(0)
        self._words = np.array(words)
        shares = 1 / np.arange(1, len(self._words) + 1)
        self._shares = shares / shares.sum()

    def text(self, words: int) -> str:
        return " ".join(self._random.choice(self._words, words, p=self._shares))

    def vectors(self, rows: int) -> common_pb2.Tensor:
        made = self._random.standard_normal((rows, DIMENSION)).astype(np.float32)
        return tensors.pack(made / np.linalg.norm(made, axis=1, keepdims=True))


@contextmanager
def retriever(folder: str) -> Iterator[tuple[Any, psutil.Process]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "RAGLAN_RETRIEVER_PORT": str(port),
        "RAGLAN_RETRIEVER_DATA_DIR": folder,
    }
    process = subprocess.Popen([sys.executable, "-m", "raglan_retriever"], env=environment)
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = retriever_pb2_grpc.RetrieverServiceStub(channel)
            stub.GetInfo(common_pb2.GetInfoRequest(), timeout=30, wait_for_ready=True)
            yield stub, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def fill(stub: Any, corpus: Corpus, chunks: int, *, name: str = "bench") -> float:
    """Upsert `chunks` chunks; the seconds that the calls took."""
    create = retriever_pb2.CreateCollectionRequest(name=name, embedder=MODEL)
    stub.CreateCollection(create, timeout=30)
    seconds = 0.0
    for start in range(0, chunks, BATCH):
        some = [
            retriever_pb2.Chunk(
                chunk_id=f"c{n}",
                document_id=f"d{n // 5}",
                ordinal=n % 5,
                text=corpus.text(150),
                metadata_json=f'{{"lang": "en", "year": {1990 + n % 30}}}',
            )
            for n in range(start, min(start + BATCH, chunks))
        ]
        request = retriever_pb2.UpsertRequest(
            collection=name, embedder=MODEL, chunks=some, vectors=corpus.vectors(len(some))
        )
        begun = time.perf_counter()
        stub.Upsert(request, timeout=60)
        seconds += time.perf_counter() - begun
    return seconds


def search(stub: Any, corpus: Corpus, mode: str, limit: int, **more: Any) -> np.ndarray:
    """Milliseconds of each call, as the client sees them."""
    took = []
    for _ in range(QUERIES):
        request = retriever_pb2.SearchRequest(
            collections=["bench"],
            text=corpus.text(8),
            vector=corpus.vectors(1),
            embedder=MODEL,
            mode=MODES[mode],
            limit=limit,
            **more,
        )
        begun = time.perf_counter()
        found = stub.Search(request, timeout=10)
        took.append((time.perf_counter() - begun) * 1e3)
        assert found.passages
    return np.array(took)


def rows_of(name: str, took: np.ndarray, target: str | None = None) -> list[Row]:
    return [
        Row(
            f"{name}, p{percent}",
            "ms",
            float(np.percentile(took, percent)),
            target if percent == 50 else None,
            samples=took.tolist(),
            statistic=f"p{percent}",
        )
        for percent in (50, 95)
    ]


def measure(stub: Any, process: psutil.Process, chunks: int) -> Iterator[Row]:
    corpus = Corpus()
    seconds = fill(stub, corpus, chunks)
    yield Row("chunks upserted a second over gRPC", "1/s", chunks / seconds)
    search(stub, corpus, "hybrid", 10)
    yield from rows_of("hybrid, limit 10, no index yet", search(stub, corpus, "hybrid", 10))
    begun = time.perf_counter()
    get = retriever_pb2.GetCollectionRequest(name="bench")
    while stub.GetCollection(get, timeout=10).unindexed_chunks > chunks // 10:
        if time.perf_counter() - begun > 120:
            break
        time.sleep(0.2)
    yield Row("index built after the last upsert", "s", time.perf_counter() - begun)
    search(stub, corpus, "hybrid", 10)
    for limit in (10, 50):
        took = search(stub, corpus, "hybrid", limit)
        yield from rows_of(f"hybrid, limit {limit}", took, "<= 8")
    for mode in ("dense", "lexical"):
        yield from rows_of(f"{mode}, limit 10", search(stub, corpus, mode, 10))
    year = retriever_pb2.Condition(field="year", eq=retriever_pb2.Value(integer=2000))
    filtered = search(stub, corpus, "hybrid", 10, filter=retriever_pb2.Filter(condition=year))
    yield from rows_of("hybrid, limit 10, filter that passes 1 in 30", filtered)
    yield Row("memory of the process", "MiB", process.memory_info().rss / 2**20)
    described = stub.GetCollection(get, timeout=10)
    yield Row("on disk", "MiB", described.disk_bytes / 2**20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chunks", type=int, default=20_000)
    chunks = parser.parse_args().chunks
    with tempfile.TemporaryDirectory() as folder, retriever(folder) as (stub, process):
        publish("retriever", list(measure(stub, process, chunks)))


if __name__ == "__main__":
    main()
