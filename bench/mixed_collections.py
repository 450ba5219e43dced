"""Quality of one search over several collections: `make bench-collections`.

docs_qa, SciFact and Cranfield together, in one collection, each set in its own, and cut at random
into 4 and 16: documents ranked by the fused order. Chunking, encoder, index and fusion are those of
the services. The vectors are kept in the temporary folder (four minutes on two cores).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import retrieved
from raglan_cli import beir
from raglan_cli.metrics import mean, ndcg, recall
from raglan_retriever.chunks import Chunk
from raglan_retriever.collection import Model
from raglan_retriever.index import Index
from raglan_retriever.query import Limits, Query
from raglan_retriever.stores.edge import EdgeStore
from report import Row, publish

DOCS: Final = "docs_qa"
SETS: Final = (DOCS, "scifact", "cranfield")
MODEL: Final = Model("bench", "1", 384)
FOUND: Final = 60
_BATCH: Final = 500


@dataclass(frozen=True)
class Mixed:
    """One set; its documents' ids begin with its name."""

    name: str
    chunks: list[Chunk]
    vectors: np.ndarray
    questions: list[tuple[str, dict[str, int]]]
    queries: np.ndarray


def main() -> None:
    """Measure every way of cutting."""
    asyncio.run(_main())


async def _main() -> None:
    sets = [_load(name) for name in SETS]
    layouts: dict[str, Callable[[str, Chunk], str]] = {
        "one collection": lambda name, chunk: "all",
        "a collection for each set": lambda name, chunk: name,
        "4 collections at random": lambda name, chunk: f"p{_part(chunk.document_id, 4)}",
        "16 collections at random": lambda name, chunk: f"p{_part(chunk.document_id, 16)}",
    }
    rows: list[Row] = []
    for layout, place in layouts.items():
        with tempfile.TemporaryDirectory() as folder:
            store = EdgeStore(
                Path(folder), search_threads=2, max_waiting=200, optimize_after_chunks=10**9
            )
            await store.open()
            rows += [row async for row in _measured(layout, store, sets, place)]
            await store.close()
    publish("mixed-collections", rows)


async def _measured(
    layout: str, store: EdgeStore, sets: Sequence[Mixed], place: Callable[[str, Chunk], str]
) -> AsyncIterator[Row]:
    index = Index(store, limits=Limits(), language="en")
    names = await _fill(index, sets, place)
    for each in sets:
        ranked = [
            await _ranked(index, names, text, vector)
            for (text, _), vector in zip(each.questions, each.queries, strict=True)
        ]
        grades = [of for _, of in each.questions]
        pairs = list(zip(ranked, grades, strict=True))
        yield Row(f"{layout}: {each.name} nDCG@10", "", mean(ndcg(*pair, 10) for pair in pairs))
        yield Row(f"{layout}: {each.name} Recall@10", "", mean(recall(*pair, 10) for pair in pairs))


async def _fill(
    index: Index, sets: Sequence[Mixed], place: Callable[[str, Chunk], str]
) -> tuple[str, ...]:
    parts: dict[str, list[tuple[Chunk, np.ndarray]]] = {}
    for each in sets:
        for chunk, row in zip(each.chunks, each.vectors, strict=True):
            parts.setdefault(place(each.name, chunk), []).append((chunk, row))
    for name, held in parts.items():
        await index.create(name, MODEL, retrieved.MAX_CHARS, 0)
        for start in range(0, len(held), _BATCH):
            some = held[start : start + _BATCH]
            rows = np.stack([row for _, row in some])
            await index.upsert(name, MODEL, [chunk for chunk, _ in some], rows)
    return tuple(parts)


async def _ranked(index: Index, names: tuple[str, ...], text: str, row: np.ndarray) -> list[str]:
    """Documents by their best chunk."""
    found = (await index.search(Query(names, "hybrid", FOUND, text, row, MODEL))).found
    return list(dict.fromkeys(hit.chunk.document_id for hit in found))


def _load(name: str) -> Mixed:
    chunks = [
        replace(
            each,
            chunk_id=f"{name}/{each.chunk_id}",
            document_id=f"{name}/{each.document_id}",
        )
        for each in (_documentation() if name == DOCS else retrieved.chunks_of(name))
    ]
    questions = [
        (text, {f"{name}/{document}": grade for document, grade in grades.items()})
        for text, grades in _questions(name)
    ]
    vectors = _vectors(f"{name}-chunks", [each.lexical_text for each in chunks])
    queries = _vectors(f"{name}-queries", [text for text, _ in questions])
    return Mixed(name, chunks, vectors, questions, queries)


def _documentation() -> Iterator[Chunk]:
    folder = retrieved.DATA / DOCS / "docs"
    for path in sorted(folder.rglob("*.md")):
        name = path.relative_to(folder).as_posix()
        yield from retrieved.cut(name, None, path.read_bytes(), "text/markdown")


def _questions(name: str) -> Iterable[tuple[str, dict[str, int]]]:
    if name != DOCS:
        return [
            (each.text, dict(each.grades)) for each in beir.load(retrieved.DATA / name).questions
        ]
    lines = (retrieved.DATA / DOCS / "questions.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [(row["question"], {row["document"]: 1}) for row in rows if row["document"]]


def _vectors(name: str, texts: Sequence[str]) -> np.ndarray:
    """Unit vectors, a row a text."""
    digest = hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]
    kept = retrieved.CACHE / f"mixed-{name}-{digest}.npy"
    if not kept.exists():
        retrieved.CACHE.mkdir(exist_ok=True)
        found = retrieved.encoder().token_vectors(texts)
        means = np.stack([each.astype(np.float32).mean(axis=0) for each in found])
        np.save(kept, retrieved.unit(means))
    return np.load(kept)


def _part(document_id: str, parts: int) -> int:
    return int(hashlib.sha256(document_id.encode()).hexdigest(), 16) % parts


if __name__ == "__main__":
    main()
