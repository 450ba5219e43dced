"""Token vectors in the index beside MaxSim on the fly: quality, size and latency on SciFact.

Chunks, encoder, index, fusion and reranker are those of the services, with their defaults, run in
this process. The vectors are kept in the temporary folder: delete them to encode again.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import reranker_budget
import retrieved
from raglan_cli import beir, metrics
from raglan_embedder.token_pooling import pool_tokens
from raglan_retriever.chunk_vectors import ChunkVectors
from raglan_retriever.chunks import Chunk
from raglan_retriever.collection import FurtherVectors, Model
from raglan_retriever.index import Index
from raglan_retriever.model_legs import QueryVectors
from raglan_retriever.query import Limits, Query
from raglan_retriever.searching import SearchHit
from raglan_retriever.stores.edge import EdgeStore
from report import Row

SET = "scifact"
POOLING = (1, 2, 3)
_AT_ONCE = 250


@dataclass(frozen=True)
class Encoded:
    """Vectors of chunks and questions, as the encoder gives them."""

    chunks: Sequence[Chunk]
    tokens: Sequence[np.ndarray]
    """Of each chunk, float16 of shape (tokens, dimension), rows of length 1."""
    dense: np.ndarray
    questions: Sequence[beir.Question]
    asked: Sequence[np.ndarray]
    """Of each question, float32 of shape (tokens, dimension)."""


def multivectors() -> list[Row]:
    """A collection without token vectors, and one for each pooling."""
    return asyncio.run(_measured(_encoded()))


def _encoded() -> Encoded:
    chunks = retrieved.chunks_of(SET)
    questions = beir.load(retrieved.DATA / SET).questions
    kept = retrieved.CACHE / f"tokens-{SET}-{retrieved.encoder().dtype}.npz"
    if not kept.exists():
        retrieved.CACHE.mkdir(exist_ok=True)
        encoder = retrieved.encoder()
        _keep(kept, chunks, encoder, [question.text for question in questions])
    with np.load(kept) as held:
        tokens = _split(held["tokens"], held["counts"])
        asked = _split(held["asked"].astype(np.float32), held["asked_counts"])
        return Encoded(chunks, tokens, held["dense"], questions, asked)


def _keep(
    file: Path, chunks: Sequence[Chunk], encoder: retrieved.Encoder, questions: Sequence[str]
) -> None:
    dense, tokens = [], []
    for start in range(0, len(chunks), _AT_ONCE):
        texts = [chunk.lexical_text for chunk in chunks[start : start + _AT_ONCE]]
        for rows in encoder.token_vectors(texts):
            exact = rows.astype(np.float32)
            dense.append(retrieved.unit(exact.mean(axis=0)))
            tokens.append(retrieved.unit(exact).astype(np.float16))
    asked = encoder.token_vectors(questions)
    np.savez(
        file,
        tokens=np.concatenate(tokens),
        counts=[len(each) for each in tokens],
        dense=np.stack(dense),
        asked=np.concatenate(asked),
        asked_counts=[len(each) for each in asked],
    )


def _split(rows: np.ndarray, counts: np.ndarray) -> list[np.ndarray]:
    ends = [0, *np.cumsum(counts)]
    return [rows[start:end] for start, end in pairwise(ends)]


async def _measured(held: Encoded) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        store = EdgeStore(
            Path(folder), search_threads=2, max_waiting=9, optimize_after_chunks=10**9
        )
        await store.open()
        index = Index(store, limits=Limits(), language="en")
        plain_bytes = await _filled(index, "plain", held, FurtherVectors())
        found, ms = await _searched(index, "plain", held, further=False)
        rows = [*_rows("default", held, found, ms), *await _on_the_fly(held, found)]
        for pooling in POOLING:
            name = f"pooled-{pooling}"
            size = await _filled(index, name, held, FurtherVectors(True, pooling))
            found, ms = await _searched(index, name, held, further=True)
            what = f"stored, {pooling} token{'s' * (pooling > 1)} a vector"
            rows += _rows(what, held, found, ms)
            more = (size - plain_bytes) / len(held.chunks)
            rows.append(Row(f"{what}: disk a chunk", "B", more))
        await store.close()
    tokens = statistics.mean(map(len, held.tokens))
    return [*rows, Row("chunks", "", len(held.chunks)), Row("tokens a chunk", "", tokens)]


async def _filled(index: Index, name: str, held: Encoded, further: FurtherVectors) -> int:
    """Store all chunks; returns the bytes of the collection on disk."""
    model = _model(held)
    await index.create(name, model, retrieved.MAX_CHARS, 0, further=further)
    for start in range(0, len(held.chunks), _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        vectors = ChunkVectors(
            [pool_tokens(rows.astype(np.float32), further.token_pooling)
             for rows in held.tokens[some]] if further.token_vectors else ()
        )  # fmt: skip
        await index.upsert(name, model, held.chunks[some], held.dense[some], further=vectors)
    _, stats = await index.stats(name)
    return stats.disk_bytes


async def _searched(
    index: Index, name: str, held: Encoded, *, further: bool
) -> tuple[list[list[SearchHit]], list[float]]:
    """Hits of each question, and the milliseconds that each took, once the files are read."""
    model = _model(held)
    for _ in range(2):
        found, took = [], []
        for question, rows in zip(held.questions, held.asked, strict=True):
            query = Query(
                (name,), "hybrid", retrieved.FOUND, question.text,
                retrieved.unit(rows.mean(axis=0)), model,
                further=QueryVectors(retrieved.unit(rows) if further else None),
            )  # fmt: skip
            begun = time.perf_counter()
            found.append((await index.search(query)).found)
            took.append(1e3 * (time.perf_counter() - begun))
    return found, took


def _rows(
    what: str, held: Encoded, found: Sequence[Sequence[SearchHit]], ms: Sequence[float]
) -> list[Row]:
    gains = [
        metrics.ndcg(list(dict.fromkeys(hit.chunk.document_id for hit in hits)), each.grades, 10)
        for each, hits in zip(held.questions, found, strict=True)
    ]
    return [
        Row(f"{what}: nDCG@10", "", statistics.mean(gains)),
        Row(f"{what}: a search, p50", "ms", statistics.median(ms)),
    ]


async def _on_the_fly(held: Encoded, found: Sequence[Sequence[SearchHit]]) -> list[Row]:
    """The reranker's MaxSim over what the default search finds."""
    place = {chunk.chunk_id: at for at, chunk in enumerate(held.chunks)}
    cases = []
    for question, rows, hits in zip(held.questions, held.asked, found, strict=True):
        offered = [held.tokens[place[hit.chunk.chunk_id]] for hit in hits[: retrieved.OFFERED]]
        cases.append(
            retrieved.Case(
                text=question.text,
                grades=dict(question.grades),
                query_tokens=len(rows),
                documents=[hit.chunk.document_id for hit in hits],
                fused=[float(hit.fused or 0.0) for hit in hits],
                texts=[hit.chunk.lexical_text for hit in hits[: retrieved.OFFERED]],
                tokens=[len(each) for each in offered],
                raw=[retrieved.max_sim(rows, each) for each in offered],
                raw_int8=[retrieved.max_sim(rows, retrieved.rounded(each)) for each in offered],
            )
        )
    clock = reranker_budget.Clock()
    rows = []
    for name, setting in (
        ("MaxSim on the fly", reranker_budget.DEFAULT),
        ("MaxSim on the fly, every token of 20 passages", reranker_budget.ALL_20),
    ):
        gains = [reranker_budget.quality(case, setting)[0] for case in cases]
        rows.append(Row(f"{name}: nDCG@10", "", statistics.mean(gains)))
        sample = cases[:: len(cases) // reranker_budget.SAMPLE][: reranker_budget.SAMPLE]
        seconds = await clock.seconds(sample, setting)
        rows.append(Row(f"{name}: CPU time a question beside the search", "ms", 1e3 * seconds))
    await clock.close()
    return rows


def _model(held: Encoded) -> Model:
    known = retrieved.encoder().model
    return Model(known.id, known.revision, held.dense.shape[1])
