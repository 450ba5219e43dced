"""One search over several collections: its time beside that of its slowest collection.

A retriever of its own holds 16 collections of the same size on disk; each search names 1, 4 or 16
of them. The retriever is one process: its floor is the work of all collections on its cores.
"""

from __future__ import annotations

import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from typing import Any, Final

import retriever
from raglan.v1 import retriever_pb2
from report import Row

CHUNKS: Final = 1_000
COUNTS: Final = (1, 4, 16)
QUERIES: Final = 100
WARM_UP: Final = 20
BUDGET_MS: Final = 2_000
WORDS: Final = tuple("".join(letters) for letters in itertools.product("bdgklmnprst", repeat=4))
"""Without digits: most questions have no identifier."""


def collections() -> list[Row]:
    """Latency by the number of collections."""
    corpus = retriever.Corpus(WORDS)
    with tempfile.TemporaryDirectory() as folder, retriever.retriever(folder) as (stub, process):
        names = [f"c{number}" for number in range(max(COUNTS))]
        for name in names:
            retriever.fill(stub, corpus, CHUNKS, name=name)
        rows = [Row("chunks in a collection", "", CHUNKS), Row("cores", "", os.cpu_count() or 0)]
        for count in COUNTS:
            before = sum(process.cpu_times()[:2])
            took, slowest, together = _search(stub, corpus, names[:count])
            spent = sum(process.cpu_times()[:2]) - before
            rows += _rows(count, took, slowest, together)
            spent_ms = spent / (QUERIES + WARM_UP) * 1e3
            rows.append(Row(f"{_name(count)}, processor time a search", "ms", spent_ms))
    return rows


def _search(
    stub: Any, corpus: retriever.Corpus, names: list[str]
) -> tuple[list[float], list[float], list[float]]:
    """Milliseconds of each search, of its slowest collection, and of its collections added up."""
    took, slowest, together = [], [], []
    for number in range(WARM_UP + QUERIES):
        request = retriever_pb2.SearchRequest(
            collections=names,
            text=corpus.text(8),
            vector=corpus.vectors(1),
            embedder=retriever.MODEL,
            limit=20,
            collection_budget_ms=BUDGET_MS,
        )
        begun = time.perf_counter()
        reply = stub.Search(request, timeout=10)
        elapsed = (time.perf_counter() - begun) * 1e3
        assert reply.passages
        assert not any(each.error for each in reply.searched), reply.searched
        if number < WARM_UP:
            continue
        each_ms = [each.timing.compute_ns / 1e6 for each in reply.searched]
        took.append(elapsed)
        slowest.append(max(each_ms))
        together.append(sum(each_ms))
    return took, slowest, together


def _rows(
    count: int, took: list[float], slowest: list[float], together: list[float]
) -> Iterator[Row]:
    name = _name(count)
    middle = statistics.median(took)
    yield Row(f"{name}, p50", "ms", middle, samples=took, statistic="p50")
    yield Row(f"{name}, the slowest of them, p50", "ms", statistics.median(slowest))
    yield Row(f"{name}, all of them added up, p50", "ms", statistics.median(together))


def _name(count: int) -> str:
    return f"{count} collections" if count > 1 else "1 collection"
