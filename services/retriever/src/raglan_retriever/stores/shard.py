"""One open Qdrant Edge shard: created, read by many, closed when the last reader has left.

Measured on qdrant-edge-py 0.9.0: `query` releases the interpreter's lock; `update`, `flush`,
`scroll`, `load` and `optimize` hold it. So updates come in slices, and whatever takes long runs in
a process of its own (`raglan_retriever.stores.optimizing`).
"""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import qdrant_edge as qe
from raglan.errors import Conflict, Unavailable
from raglan.filtering import clauses as filters
from raglan.filtering.clauses import All, Clause

from raglan_retriever.chunks import (
    DOCUMENT_ID,
    LABELLED,
    NUMBERS,
    STORED,
    TERMS,
    Chunk,
    of_documents,
)
from raglan_retriever.stores import shard_vectors
from raglan_retriever.stores.folders import sync_files
from raglan_retriever.stores.plans import Plan
from raglan_retriever.stores.shard_vectors import Vectors
from raglan_retriever.stores.store import Hit, LateInteraction, Point, Relabel, Search
from raglan_retriever.validity import FROM, TO

SLICE: Final = 50
"""Points an update, so that the interpreter's lock is held for about 2 ms at a time."""

TOKENS_SLICE: Final = 1
"""Points an update where each has 200 token vectors of 384 dimensions: also 2 ms."""

_PAGE: Final = 500

_TRANSIENT: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EINTR)
"""Errors of the system that say nothing about the files."""

_MAX_REASON_CHARS: Final = 400


class Shard:
    """Thread-safe: any number of readers, one writer."""

    def __init__(self, path: Path, plan: Plan | None = None) -> None:
        """Open the shard at `path`, whose vector index has the parameters of `plan`.

        Raises:
            Conflict: it is broken.
            Unavailable: another process has it open, or the process has no more descriptors.
        """
        self.path = path
        self.plan = plan
        self._readers = 0
        self._changed = threading.Condition()
        try:
            with library_errors("its index cannot be opened"):
                self._shard = qe.EdgeShard.load(str(path), _config(path))
        except Conflict as error:
            if "WouldBlock" in error.message:
                raise Unavailable(
                    f"Another process has the index at {path} open; stop it, or give this one "
                    "another folder (RAGLAN_RETRIEVER_DATA_DIR)."
                ) from None
            if any(f"os error {number})" in error.message for number in _TRANSIENT):
                raise Unavailable(f"The index cannot be opened now: {error.message}") from None
            raise
        self._vectors = shard_vectors.read(path)
        self._slice = TOKENS_SLICE if self._vectors.further.token_vectors else SLICE

    @staticmethod
    def create(path: Path, vectors: Vectors, *, keeps_versions: bool = False) -> None:
        """Make an empty shard at `path`, with its payload indexes."""
        path.mkdir(parents=True)
        config = qe.EdgeConfig(
            vectors=vectors.dense_params(),
            sparse_vectors=vectors.sparse_params(),
            max_search_threads=_threads(),
        )
        shard = qe.EdgeShard.create(str(path), config)
        for name in (DOCUMENT_ID, TERMS):
            shard.update(qe.UpdateOperation.create_field_index(name, qe.PayloadSchemaType.Keyword))
        for key in (FROM, TO) if keeps_versions else ():
            field = f'{NUMBERS}."{key}"'
            shard.update(qe.UpdateOperation.create_field_index(field, qe.PayloadSchemaType.Float))
        shard.flush()
        shard.close()

    def enter(self) -> None:
        """Count one more reader."""
        with self._changed:
            self._readers += 1

    def leave(self) -> None:
        """Count one reader less."""
        with self._changed:
            self._readers -= 1
            self._changed.notify_all()

    @property
    def is_idle(self) -> bool:
        """Return whether it has no reader."""
        return self._readers == 0

    def close(self) -> None:
        """Close once no reader is left. The caller prevents new ones."""
        with self._changed:
            self._changed.wait_for(lambda: self._readers == 0)
        self._shard.close()

    def upsert(self, points: Sequence[Point]) -> None:
        """Store points, replacing those of the same id."""
        for some in _slices(points, self._slice):
            self._shard.update(qe.UpdateOperation.upsert_points([_point(p) for p in some]))

    def delete(self, ids: Sequence[str]) -> None:
        """Remove points."""
        for some in _slices(ids):
            self._shard.update(qe.UpdateOperation.delete_points(list(some)))

    def label(self, where: Clause, relabel: Relabel) -> Iterator[list[str]]:
        """Replace fields of the payload of every point that passes; yields ids before each change.

        Points that get the same fields, as those of one document do, are changed together.
        """
        found: dict[str, list[str]] = {}
        for record in self._scroll(where, list(LABELLED)):
            fields = {name: record.payload.get(name) for name in LABELLED}
            found.setdefault(json.dumps(fields), []).append(str(record.id))
        for key, ids in found.items():
            if not (fresh := relabel(json.loads(key))):
                continue
            for some in _slices(ids):
                yield list(some)
                self._shard.update(qe.UpdateOperation.set_payload(list(some), fresh))

    def copy(self, source: Shard, ids: Sequence[str]) -> None:
        """Make the points of these ids here what they are in `source`, or nothing."""
        for some in _slices(ids, self._slice):
            records = source._shard.retrieve(list(some), with_payload=True, with_vector=True)
            there = [qe.Point(r.id, r.vector or {}, r.payload) for r in records]
            self._shard.update(qe.UpdateOperation.upsert_points(there))
            self.delete(list(set(some) - {str(record.id) for record in records}))

    def flush(self) -> None:
        """Write everything to its place, so that the next start has no log to replay.

        The library waits for the disk with the interpreter's lock held; so, most of it is written
        before it is called, without the lock.
        """
        sync_files(self.path)
        self._shard.flush()

    def search(self, search: Search, where: Clause | None) -> list[Hit]:
        """Return the best points, best first; see `Store.search`."""
        passes = None if where is None else _filter(where)
        request = shard_vectors.request(search, passes, _search_params(self.plan))
        tokens = len(search.vector.tokens) if isinstance(search.vector, LateInteraction) else 1
        return [
            Hit(
                str(each.id),
                each.score / tokens,
                Chunk.from_payload(each.payload or {}) if search.with_chunks else None,
            )
            for each in self._shard.query(request)
        ]

    def fetch(self, ids: Sequence[str]) -> dict[str, Chunk]:
        """Return the chunks of those ids that exist."""
        records = self._shard.retrieve(list(ids), with_payload=list(STORED), with_vector=False)
        return {str(r.id): Chunk.from_payload(r.payload or {}) for r in records}

    def points(self, ids: Sequence[str]) -> list[Point]:
        """Return the points of those ids that exist, in the order of `ids`."""
        found: dict[str, Point] = {}
        for some in _slices(ids):
            records = self._shard.retrieve(list(some), with_payload=True, with_vector=True)
            found |= {str(record.id): _stored_point(record) for record in records}
        return [found[id_] for id_ in ids if id_ in found]

    def select(self, where: Clause) -> list[Chunk]:
        """Return every chunk that passes."""
        return [Chunk.from_payload(r.payload) for r in self._scroll(where, list(STORED))]

    def ids(self, where: Clause) -> list[str]:
        """Return the ids of all points that pass."""
        return [str(record.id) for record in self._scroll(where, False)]

    def held(self, ids: Sequence[str]) -> bool:
        """Return whether the shard holds any of these points."""
        return bool(self._shard.retrieve(list(ids), with_payload=False, with_vector=False))

    def pages(self) -> Iterator[list[str]]:
        """Yield the ids of all points, page by page."""
        page: list[str] = []
        for record in self._scroll(None, False):
            page.append(str(record.id))
            if len(page) == _PAGE:
                yield page
                page = []
        if page:
            yield page

    def _scroll(self, where: Clause | None, with_payload: bool | list[str]) -> Iterator[Any]:
        """Yield every record that passes, page by page."""
        offset = None
        while True:
            request = qe.ScrollRequest(
                offset=offset,
                limit=_PAGE,
                filter=None if where is None else _filter(where),
                with_payload=with_payload,
                with_vector=False,
            )
            records, offset = self._shard.scroll(request)
            yield from records
            if offset is None:
                return

    def count(self, where: Clause | None) -> int:
        """Return the exact number of chunks that pass."""
        clause = None if where is None else _filter(where)
        return int(self._shard.count(qe.CountRequest(exact=True, filter=clause)))

    def count_by_document(self, document_ids: Sequence[str], where: Clause | None) -> list[int]:
        """Return the exact number of chunks of each document that pass.

        A facet would count them at once, with the interpreter's lock held all the time.
        """
        clauses = [of_documents([id_]) for id_ in document_ids]
        return [self.count(each if where is None else All((each, where))) for each in clauses]

    def count_documents(self) -> int:
        """Return the number of documents."""
        request = qe.FacetRequest(DOCUMENT_ID, limit=max(1, self.count(None)), exact=False)
        return len(self._shard.facet(request))

    def unindexed(self) -> int:
        """Return the number of points outside the dense vector index.

        The shard counts indexed vectors of all names together; sparse ones always are.
        """
        info = self._shard.info()
        sparse = sum(map(self._count_with, self._vectors.sparse_params()))
        indexed = max(0, info.indexed_vectors_count - sparse) // len(self._vectors.dense_params())
        return int(max(0, info.points_count - indexed))

    def _count_with(self, vector: str) -> int:
        has_vector = qe.Filter(must=[qe.HasVectorCondition(vector)])
        return int(self._shard.count(qe.CountRequest(exact=True, filter=has_vector)))


def _search_params(plan: Plan | None) -> qe.SearchParams | None:
    if plan is None:
        return None
    quantization = None
    if plan.quantization != "none":
        quantization = qe.QuantizationSearchParams(rescore=True, oversampling=plan.oversampling)
    return qe.SearchParams(hnsw_ef=plan.ef, quantization=quantization)


def _threads() -> int:
    """Number of threads that read a shard's segments: the cores of the process; Edge takes 8."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 8


def _config(path: Path) -> qe.EdgeConfig | None:
    """Return the configuration to open the shard at `path`; None where its own settings are right.

    A configuration is written to the disk, which may be full.
    """
    try:
        if shard_vectors.settings(path).get("max_search_threads") == _threads():
            return None
        params = shard_vectors.read(path).sparse_params()
    except (OSError, ValueError, AttributeError, KeyError):
        return None  # broken, as opening it will tell
    return qe.EdgeConfig(sparse_vectors=params, max_search_threads=_threads())


@contextmanager
def library_errors(what: str) -> Iterator[None]:
    """Translate the library's failures, panics of its Rust code included, to Conflict."""
    try:
        yield
    except BaseException as error:
        if type(error) is not Exception and type(error).__name__ != "PanicException":
            raise
        raise Conflict(f"{what}: {' '.join(str(error).split())[:_MAX_REASON_CHARS]}") from None


def _slices(items: Sequence[Any], size: int = SLICE) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _point(point: Point) -> qe.Point:
    return qe.Point(point.id, shard_vectors.of_point(point), point.payload)


def _stored_point(record: Any) -> Point:
    return shard_vectors.to_point(str(record.id), record.payload or {}, record.vector)


def _filter(clause: Clause) -> qe.Filter:
    match clause:
        case filters.All(clauses):
            return qe.Filter(must=[_filter(inner) for inner in clauses])
        case filters.Any(clauses):
            return qe.Filter(should=[_filter(inner) for inner in clauses])
        case filters.Not(inner):
            return qe.Filter(must_not=[_filter(inner)])
        case filters.Ids(any_of):
            return qe.Filter(must=[qe.HasIdCondition(set(any_of))])
        case filters.Terms(any_of):
            match_any = qe.MatchAny(list(any_of))
            return qe.Filter(must=[qe.FieldCondition(TERMS, match=match_any)])
        case filters.Numbers(key, gt, gte, lt, lte):
            within = qe.RangeFloat(gt=gt, gte=gte, lt=lt, lte=lte)
            return qe.Filter(must=[qe.FieldCondition(f'{NUMBERS}."{key}"', range=within)])
