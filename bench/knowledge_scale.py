"""One collection that grows: `make bench-knowledge ONLY=scale SIZES="10000 100000"`.

Vectors follow the distribution of the embedded model: those of real passages, each moved by a part
of the difference of two others. Their texts are the passages with some words replaced. They are
written straight to the retriever of a mesh; questions go through its REST interface.
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import grpc
import httpx
import mesh
import mesh_process
import numpy as np
import psutil
from numpy.typing import NDArray
from raglan import tensors
from raglan.v1 import (
    common_pb2,
    embedder_pb2,
    embedder_pb2_grpc,
    retriever_pb2,
    retriever_pb2_grpc,
)
from report import Row, publish
from texts import Texts

Vectors = NDArray[np.float32]

_NAME: Final = "scale"
_PASSAGES: Final = 6_000
_WORDS: Final = 60
"""Of a chunk."""
_REPLACED_WORDS: Final = 6
_NOISE: Final = 0.5
"""Length of what is added to a vector, of the difference of two others."""
_QUESTIONS: Final = 300
_WARM: Final = 100
_BATCH: Final = 1_000
_EMBED_BATCH: Final = 32
_CHUNKS_A_DOCUMENT: Final = 5
_TOP: Final = 10
_EVERY_S: Final = 1.0
"""Between two looks at the state of the index."""
_IN_A_ROW: Final = 20
"""Questions between two looks."""
_FEW: Final = 20
"""Questions from which no percentile is taken."""
_HIGHER: Final = 0.98
_BUILD_S: Final = 7_200.0
_QUIET_S: Final = 10.0
"""The index is taken for built once nothing was built for so long."""


def scale() -> list[Row]:
    """Grow the collection to each size and measure it there."""
    rows = [Row("words a chunk", "", _WORDS)]
    sizes = sorted(map(int, os.environ.get("SIZES", "10000 100000").split()))
    with (
        tempfile.TemporaryDirectory() as folder,
        mesh_process.running(Path(folder) / "mesh") as running,
        running.client() as client,
    ):
        collection = _Collection(running, client)
        for size in sizes:
            rows += collection.measured(size)
            # A million takes long: what is known so far, should it be interrupted.
            publish("knowledge-scale", rows)
    return rows


class _Source:
    """Passages, and variations of them without end."""

    def __init__(self, embed: Any) -> None:
        texts = Texts()
        self._random = np.random.default_rng(0)
        self._words = random.Random(0)
        self.questions = texts.questions(_QUESTIONS)
        bodies = [text.split() for text in texts.passages(_PASSAGES)]
        self._passages = [words[:_WORDS] for words in bodies if len(words) >= _WORDS]
        self._known = [word for words in self._passages for word in words]
        self.asked: Vectors = embed(self.questions, embedder_pb2.INPUT_KIND_QUERY)
        joined = [" ".join(words) for words in self._passages]
        self._vectors: Vectors = embed(joined, embedder_pb2.INPUT_KIND_PASSAGE)

    def draw(self, count: int) -> tuple[list[str], Vectors]:
        """Return texts and their vectors, float32 of shape (count, dimension), normalised."""
        at, one, other = self._random.integers(0, len(self._passages), (3, count))
        noise = (self._vectors[one] - self._vectors[other]) / np.sqrt(2)
        made = self._vectors[at] + _NOISE * noise
        made /= np.linalg.norm(made, axis=1, keepdims=True)
        return [self._varied(self._passages[each]) for each in at], made.astype(np.float32)

    def _varied(self, words: Sequence[str]) -> str:
        changed = list(words)
        for place in self._words.sample(range(len(changed)), _REPLACED_WORDS):
            changed[place] = self._words.choice(self._known)
        return " ".join(changed)


class _Exact:
    """The nearest chunks of all that were drawn, found by comparing every one."""

    def __init__(self, asked: Vectors) -> None:
        self._asked = asked
        self._scores = np.full((len(asked), _TOP), -np.inf, np.float32)
        self.chunks = np.zeros((len(asked), _TOP), np.int64)

    def add(self, first: int, vectors: Vectors) -> None:
        """Look at the chunks numbered from `first` on."""
        scores = np.hstack([self._scores, self._asked @ vectors.T])
        numbers = np.arange(first, first + len(vectors))
        chunks = np.hstack([self.chunks, np.broadcast_to(numbers, (len(scores), len(numbers)))])
        best = np.argpartition(-scores, _TOP, axis=1)[:, :_TOP]
        self._scores = np.take_along_axis(scores, best, axis=1)
        self.chunks = np.take_along_axis(chunks, best, axis=1)


class _Collection:
    """The collection of one mesh."""

    def __init__(self, running: mesh_process.Mesh, client: httpx.Client) -> None:
        self._client = client
        made = client.post("/v1/collections", json={"name": _NAME}).raise_for_status().json()
        self._model = common_pb2.ModelIdentity(**made["embedder"])
        self._process = psutil.Process(running.pid("retriever"))
        address = {each["service"]: each["address"] for each in running.services()}
        large = [("grpc.max_send_message_length", -1)]
        channel = grpc.insecure_channel(address["retriever"], options=large)
        self._retriever = retriever_pb2_grpc.RetrieverServiceStub(channel)
        self._embedder = embedder_pb2_grpc.EmbedderServiceStub(
            grpc.insecure_channel(address["embedder"], options=large)
        )
        self._source = _Source(self._embed)
        self._exact = _Exact(self._source.asked)
        self._count = 0

    def _embed(self, texts: Sequence[str], kind: embedder_pb2.InputKind) -> Vectors:
        found = []
        for start in range(0, len(texts), _EMBED_BATCH):
            request = embedder_pb2.EmbedRequest(
                texts=texts[start : start + _EMBED_BATCH], kind=kind, lane=common_pb2.LANE_BULK
            )
            reply = self._embedder.Embed(request, timeout=60)
            found.append(np.asarray(tensors.unpack(reply.vectors), np.float32))
        return np.vstack(found)

    def measured(self, size: int) -> Iterator[Row]:
        """Grow to `size` chunks and measure them."""
        what = f"{size:,} chunks"
        more = size - self._count
        seconds = self._fill(size)
        yield _told(Row(f"{what}: the last {more:,} written", "1/s", more / seconds))
        begun = time.monotonic()
        while_building, failed, built_s = self._questions_until_built()
        if while_building:
            yield _told(Row(f"{what}: index built after the last write", "s", built_s - begun))
        index = self._described()["index"]
        note = f"{index['state']}, {index['quantization']}, m {index['m']}, ef {index['ef']}"
        self._took(self._source.questions[:_WARM])
        took, idle_failed = self._took(self._source.questions)
        p95 = mesh.percentile(took, 95)
        for percent, target in ((50, None), (95, "<= 60")):
            value = mesh.percentile(took, percent)
            name = f"{what}: /v1/search without reranking, p{percent}"
            kept: dict[str, Any] = {"samples": took, "statistic": f"p{percent}", "note": note}
            yield _told(Row(name, "ms", value, target, **kept))
        yield _told(Row(f"{what}: recall@10 of the dense leg", "share", self._recall(), ">= 0.95"))
        yield from self._harder(what, p95)
        if len(while_building) > _FEW:
            late = mesh.percentile(while_building, 95)
            yield _told(Row(f"{what}: the same while the index is built, p95", "ms", late))
            yield _told(Row(f"{what}: that over idle", "", late / p95, "<= 3"))
        yield _told(Row(f"{what}: questions failed or degraded", "", failed + idle_failed, "<= 0"))
        memory = self._process.memory_full_info()
        yield _told(Row(f"{what}: resident memory", "GB", memory.rss / 1e9, "<= 2.5"))
        yield _told(Row(f"{what}: of it not of files", "GB", (memory.rss - memory.shared) / 1e9))
        yield _told(Row(f"{what}: on disk", "GB", self._described()["disk_bytes"] / 1e9))

    def _harder(self, what: str, p95: float) -> Iterator[Row]:
        """Search the same index for a higher recall, and then as before."""
        path = f"/v1/collections/{_NAME}"
        if not (ef := self._described()["index"]["ef"]):
            return
        self._client.patch(path, json={"recall_target": _HIGHER}).raise_for_status()
        mesh_process.until(
            lambda: self._described()["index"]["ef"] > ef, within_s=60, what="more candidates"
        )
        more, _ = self._took(self._source.questions[:_WARM])
        name = f"{what}, recall aimed at {_HIGHER}"
        yield _told(Row(f"{name}: recall@10 of the dense leg", "share", self._recall()))
        late = mesh.percentile(more, 95)
        yield _told(Row(f"{name}: /v1/search, p95", "ms", late, note=f"{p95:.1f} ms before"))
        self._client.patch(path, json={"recall_target": None}).raise_for_status()

    def _fill(self, size: int) -> float:
        """Write chunks until there are `size`; returns the seconds of the calls."""
        seconds, pending, begun = 0.0, None, time.monotonic()
        while self._count < size:
            texts, vectors = self._source.draw(min(_BATCH, size - self._count))
            self._exact.add(self._count, vectors)
            if pending is not None:
                pending.result()
                seconds += time.monotonic() - begun
            begun = time.monotonic()
            pending = self._retriever.Upsert.future(self._request(texts, vectors), timeout=120)
            self._count += len(texts)
            if self._count % 100_000 == 0:
                print(f"  {self._count:,} chunks", flush=True)
        if pending is not None:
            pending.result()
            seconds += time.monotonic() - begun
        return seconds

    def _request(self, texts: Sequence[str], vectors: Vectors) -> retriever_pb2.UpsertRequest:
        chunks = [
            retriever_pb2.Chunk(
                chunk_id=f"c{number}",
                document_id=f"d{number // _CHUNKS_A_DOCUMENT}",
                ordinal=number % _CHUNKS_A_DOCUMENT,
                text=text,
                end=len(text),
                language="en",  # as the ingester says it
                metadata_json=f'{{"year": {1990 + number % 30}}}',
            )
            for number, text in enumerate(texts, self._count)
        ]
        return retriever_pb2.UpsertRequest(
            collection=_NAME, embedder=self._model, chunks=chunks, vectors=tensors.pack(vectors)
        )

    def _questions_until_built(self) -> tuple[list[float], int, float]:
        """Ask until no index is built any more.

        Returns:
            Milliseconds of the questions that were asked while it was built, those that failed, and
            when it was ready.
        """
        took, failed = list[float](), 0
        begun = ready = time.monotonic()
        while (now := time.monotonic()) - ready < _QUIET_S:
            if self._described()["index"]["state"] == "building":
                ready = now
                some, more = self._took(random.sample(self._source.questions, _IN_A_ROW))
                took, failed = took + some, failed + more
            else:
                time.sleep(_EVERY_S)
            if now - begun > _BUILD_S:
                raise AssertionError(f"no index within {_BUILD_S} s")
        return took, failed, ready

    def _took(self, questions: Sequence[str]) -> tuple[list[float], int]:
        """Return the milliseconds of each question, and how many were not answered in full."""
        took, failed = [], 0
        for question in questions:
            body = {"query": question, "collections": [_NAME], "rerank": False, "top_k": _TOP}
            begun = time.perf_counter()
            reply = self._client.post("/v1/search", json=body)
            took.append((time.perf_counter() - begun) * 1e3)
            failed += reply.status_code != 200 or bool(reply.json()["degraded"])
        return took, failed

    def _recall(self) -> float:
        """Share of the ten nearest chunks that a dense search for ten finds."""
        found = 0
        for vector, nearest in zip(self._source.asked, self._exact.chunks, strict=True):
            request = retriever_pb2.SearchRequest(
                collections=[_NAME],
                vector=tensors.pack(vector[None]),
                embedder=self._model,
                mode=retriever_pb2.SEARCH_MODE_DENSE,
                limit=_TOP,
            )
            passages = self._retriever.Search(request, timeout=60).passages
            found += len({each.chunk_id for each in passages} & {f"c{n}" for n in nearest})
        return found / self._exact.chunks.size

    def _described(self) -> dict[str, Any]:
        def answered() -> dict[str, Any] | None:
            # Documents are counted anew after a write; of a million chunks that takes a while.
            reply = self._client.get(f"/v1/collections/{_NAME}")
            return reply.json() if reply.status_code == 200 else None

        described: dict[str, Any] = mesh_process.until(answered, within_s=120, what="described")
        return described


def _told(row: Row) -> Row:
    print(f"  {row.what}: {row.ours:,.4g} {row.unit}", flush=True)
    return row
