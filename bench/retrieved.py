"""Input of reranking: hybrid retrieval over the evaluation sets, run in this process.

Chunking, context lines, encoder, index and fusion are those of the services, with their defaults.
Every text goes through the model once; of its token vectors only the MaxSim with the queries that
found it is kept, so that any setting can be replayed without the model. The result (2 MB) is kept
in the temporary folder: delete it to encode again (three minutes on two cores).
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

import numpy as np
from raglan.encoders import model as models
from raglan.encoders import sessions
from raglan.encoders.sessions import TokenIds
from raglan.encoders.tokenizer import Tokenizers
from raglan.language import detect
from raglan_cli import beir
from raglan_ingester import parsers
from raglan_ingester.chunking import Sizes, chunk
from raglan_ingester.parsers.parsed import Source
from raglan_ingester.settings import IngesterSettings
from raglan_ingester.token_index import TokenIndex, load_tokenizer
from raglan_reranker.settings import RerankerSettings
from raglan_retriever.chunks import Chunk
from raglan_retriever.collection import Model
from raglan_retriever.index import Index
from raglan_retriever.query import Limits, Query
from raglan_retriever.stores.edge import EdgeStore

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("EVAL_DATA_DIR") or ROOT.parent / "shared" / "data")
CACHE = Path(tempfile.gettempdir()) / "raglan-bench"
QUESTIONS = {"scifact": slice(None), "squad": slice(1000, 1500), "cranfield": slice(None)}
"""Of SQuAD, those after the 1,000 whose figures docs/benchmarks.md gives."""

FOUND = 100
"""Passages asked of retrieval, so that documents can be ranked by their best."""

OFFERED = 20
"""Of those, passages offered to the reranker; the gateway's default."""

MAX_CHARS = IngesterSettings.model_fields["chunk_max_chars"].default
BATCH_TOKENS = 1024
_SPECIAL_TOKENS = 2


@dataclass(frozen=True)
class Case:
    """One question and its passages, best first."""

    text: str
    grades: dict[str, int]
    query_tokens: int
    documents: list[str]
    fused: list[float]
    texts: list[str]
    """Of the first `OFFERED`, like the two below."""

    tokens: list[int]
    raw: list[float]
    """MaxSim."""

    raw_int8: list[float]
    """MaxSim with the passage's token vectors rounded to 8 bits."""


def load(name: str) -> list[Case]:
    """The questions of set `name`."""
    kept = CACHE / f"retrieved-{name}-{encoder().dtype}.json"
    if not kept.exists():
        if not (DATA / name).is_dir():
            sys.exit(f"There is no {DATA / name}: set EVAL_DATA_DIR to a folder of BEIR sets.")
        CACHE.mkdir(exist_ok=True)
        cases = asyncio.run(_retrieve(name))
        kept.write_text(json.dumps([dataclasses.asdict(case) for case in cases]))
    return [Case(**row) for row in json.loads(kept.read_text())]


class Encoder:
    """The bundled model on all cores, as the services load it."""

    def __init__(self) -> None:
        settings = RerankerSettings()
        self.model = models.read(settings.model)
        self._tokenizers = Tokenizers(self.model.path, self.model.max_tokens)
        loaded = sessions.load(
            "openvino",
            self.model,
            device="cpu",
            precision="auto",
            streams=0,
            cache_dir=settings.cache_dir,
            bulk=False,
        )
        self.dtype = loaded.dtype
        self._streams = loaded.streams

    def token_vectors(self, texts: Sequence[str]) -> list[np.ndarray]:
        """float16 (tokens, dim) of each text, rows as the model gives them."""
        ids = self._tokenizers.ids(texts)
        found: list[np.ndarray] = [np.empty(0)] * len(texts)
        waiting: SimpleQueue[list[int] | None] = SimpleQueue()
        for batch in _batches(ids):
            waiting.put(batch)

        def work(run: sessions.Run) -> None:
            waiting.put(None)
            while (batch := waiting.get()) is not None:
                vectors = run(*sessions.pad([ids[i] for i in batch]))
                for i, row in zip(batch, vectors, strict=True):
                    found[i] = row[: len(ids[i])].astype(np.float16)

        with ThreadPoolExecutor(len(self._streams)) as pool:
            list(pool.map(work, self._streams))
        return found


@functools.cache
def encoder() -> Encoder:
    return Encoder()


def _batches(ids: Sequence[TokenIds]) -> list[list[int]]:
    batches: list[list[int]] = []
    for i in sorted(range(len(ids)), key=lambda i: -len(ids[i])):
        if batches and (len(batches[-1]) + 1) * len(ids[batches[-1][0]]) <= BATCH_TOKENS:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches


async def _retrieve(name: str) -> list[Case]:
    begun = time.monotonic()
    loaded = encoder()
    chunks = chunks_of(name)
    passages = await asyncio.to_thread(loaded.token_vectors, [each.lexical_text for each in chunks])
    questions = beir.load(DATA / name).questions[QUESTIONS[name]]
    queries = await asyncio.to_thread(loaded.token_vectors, [each.text for each in questions])
    print(f"{name}: {len(chunks)} chunks encoded in {time.monotonic() - begun:.0f} s")
    model = Model(loaded.model.id, loaded.model.revision, loaded.model.dimension)
    position = {each.chunk_id: i for i, each in enumerate(chunks)}
    cases = []
    with tempfile.TemporaryDirectory() as folder:
        store = EdgeStore(
            Path(folder), search_threads=2, max_waiting=9, optimize_after_chunks=10**9
        )
        await store.open()
        index = Index(store, limits=Limits(), language="en")
        await index.create(name, model, MAX_CHARS, 0)
        for start in range(0, len(chunks), 500):
            some = slice(start, start + 500)
            pooled = np.stack([unit(v.astype(np.float32).mean(axis=0)) for v in passages[some]])
            await index.upsert(name, model, chunks[some], pooled)
        for question, vectors in zip(questions, queries, strict=True):
            pooled = unit(vectors.astype(np.float32).mean(axis=0))
            asked = Query((name,), "hybrid", FOUND, question.text, pooled, model)
            found = (await index.search(asked)).found
            offered = [passages[position[each.chunk.chunk_id]] for each in found[:OFFERED]]
            cases.append(
                Case(
                    text=question.text,
                    grades=dict(question.grades),
                    query_tokens=len(vectors),
                    documents=[each.chunk.document_id for each in found],
                    fused=[float(each.fused or 0.0) for each in found],
                    texts=[each.chunk.lexical_text for each in found[:OFFERED]],
                    tokens=[len(each) for each in offered],
                    raw=[max_sim(vectors, each) for each in offered],
                    raw_int8=[max_sim(vectors, rounded(each)) for each in offered],
                )
            )
        await store.close()
    print(f"{name}: {len(cases)} questions retrieved after {time.monotonic() - begun:.0f} s")
    return cases


def chunks_of(name: str) -> list[Chunk]:
    """The chunks of a set."""
    made = []
    with (DATA / name / "corpus.jsonl").open(encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            if row["text"].strip():
                made += cut(row["_id"], row["title"], row["text"].encode())
    return made


def cut(id_: str, title: str | None, text: bytes, media_type: str = "text/plain") -> list[Chunk]:
    """The chunks of a document as the ingester cuts them; without a title, it has its own."""
    parsed = parsers.parse(Source(text, "" if title is not None else id_, media_type))
    if title is not None:
        parsed = dataclasses.replace(parsed, title=title)
    language = detect(parsed.text)
    model = encoder().model
    tokens = TokenIndex(load_tokenizer(model.path / "tokenizer.json"), parsed.text)
    sizes = Sizes(MAX_CHARS, 0, model.max_tokens - _SPECIAL_TOKENS)
    return [
        Chunk(
            chunk_id=f"{id_}-{number}",
            document_id=id_,
            ordinal=number,
            title=parsed.title,
            text=parsed.text[span.start : span.end],
            start=span.start,
            end=span.end,
            heading_path=span.heading_path,
            metadata_json="{}",
            language=language,
        )
        for number, span in enumerate(chunk(parsed, sizes, tokens, language))
    ]


def unit(vectors: np.ndarray) -> np.ndarray:
    """`vectors`, each row of length 1."""
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def rounded(vectors: np.ndarray) -> np.ndarray:
    """`vectors`, rows of length 1 rounded to 8 bits."""
    rows = unit(vectors.astype(np.float32))
    scale = np.abs(rows).max(axis=1, keepdims=True) / 127
    return np.round(rows / scale) * scale


def max_sim(query: np.ndarray, passage: np.ndarray) -> float:
    """MaxSim of token vectors, divided by the query's tokens."""
    first, second = (unit(each.astype(np.float32)) for each in (query, passage))
    return float((first @ second.T).max(axis=1).mean())
