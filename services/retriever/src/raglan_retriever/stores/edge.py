"""Qdrant Edge: the index inside this process, on disk, with its write-ahead log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Concatenate, Final, ParamSpec, TypeVar

from raglan.background import keep_running
from raglan.disk import Disk
from raglan.errors import Conflict, Overloaded
from raglan.filtering.clauses import Clause

from raglan_retriever.chunks import Chunk
from raglan_retriever.collection import Collection
from raglan_retriever.stores.folders import Folders
from raglan_retriever.stores.plans import Planner
from raglan_retriever.stores.rebuilding import Rebuilder
from raglan_retriever.stores.shard import Shard
from raglan_retriever.stores.shard_vectors import Vectors
from raglan_retriever.stores.shards import OPENING_SHARE, CollectionState, Shards
from raglan_retriever.stores.store import (
    Hit,
    Point,
    Relabel,
    Removed,
    Search,
    Size,
    Stats,
    Versioned,
)
from raglan_retriever.stores.threads import BoundedPool
from raglan_retriever.stores.upkeep import Upkeep

P = ParamSpec("P")
T = TypeVar("T")

_MAX_WAITING_WRITES: Final = 32
"""Each may hold a message of 16 MiB."""

_SPARE_THREADS: Final = 1
"""Further threads, so that a collection whose calls hang, or are long, leaves one to the others."""

_PLANNER: Final = Planner(recall=0.95, memory_bytes=2**30)


class EdgeStore:
    """Reads run in `search_threads` threads a collection; its changes one at a time, in order.

    When writers pause, upkeep flushes what they wrote and has the `Rebuilder` look at the vector
    index, one collection at a time.
    """

    name: Final[str] = "edge"
    is_remote: Final = False

    def __init__(
        self,
        data_dir: Path,
        *,
        search_threads: int,
        max_waiting: int,
        optimize_after_chunks: int,
        planner: Planner = _PLANNER,
        min_free_mb: int = 0,
        max_collections: int = 1000,
        max_open: int = 16,
        close_after_s: float = 900.0,
        quiet_s: float = 1.0,
    ) -> None:
        self._folders = Folders(data_dir)
        self._disk = Disk(
            "The index's disk",
            data_dir,
            min_free_mb,
            "RAGLAN_RETRIEVER_MIN_FREE_MB",
            "Free some space or delete a collection; what is stored can still be searched.",
        )
        self._shards = Shards(self._folders, self._disk, max_open=max_open)
        self._max_collections = max_collections
        self._close_after_s = close_after_s
        self._closing: asyncio.Task[None] | None = None
        self._reads = BoundedPool(
            "reading", threads=search_threads, max_waiting=max_waiting, spare=_SPARE_THREADS
        )
        self._writes = BoundedPool(
            "writing", threads=1, max_waiting=_MAX_WAITING_WRITES, spare=_SPARE_THREADS
        )
        self._flushes = Upkeep(self._flush_written, quiet_s=quiet_s)
        # Apart, so that flushes do not wait for another collection's index.
        self._rebuilder = Rebuilder(
            self._folders,
            self._disk,
            self._shards,
            self._reads,
            self._writes,
            planner=planner,
            index_from_chunks=optimize_after_chunks,
        )
        self._rebuilds = Upkeep(self._rebuild_outdated, quiet_s=0)

    async def open(self) -> None:
        await self._writes.run(self._open_all)
        self._flushes.start()
        self._rebuilds.start()
        self._closing = asyncio.create_task(
            keep_running("closing unused collections", self._close_unused)
        )
        for name in self._shards.names():
            held = self._shards.get(name)
            if held.erasable:
                self._flushes.schedule(name)
            elif held.stored.plan is not None:
                self._rebuilds.schedule(name)  # the settings may have changed

    async def close(self) -> None:
        await self._flushes.stop()
        await self._rebuilds.stop()
        if self._closing is not None:
            self._closing.cancel()
            await asyncio.wait((self._closing,))
        await self._writes.run(self._close_all)
        self._reads.close()
        self._writes.close()

    async def collections(self) -> list[Collection]:
        return [self._shards.get(name).stored.collection for name in self._shards.names()]

    def set_aside(self) -> dict[str, str]:
        return self._shards.set_aside()

    async def create(self, collection: Collection) -> None:
        await self._writes.run_for(collection.name, self._create, collection)

    async def collection(self, name: str) -> Collection:
        return self._shards.get(name).stored.collection

    async def versioned(self, names: Sequence[str]) -> list[Versioned]:
        held = [self._shards.get(name) for name in names]
        return [Versioned(each.stored.collection, each.revision) for each in held]

    async def describe(self, collection: Collection) -> None:
        recall = self._shards.get(collection.name).stored.collection.recall
        await self._writes.run_for(collection.name, self._describe, collection)
        if collection.recall != recall:
            self._rebuilds.schedule(collection.name)

    async def drop(self, name: str) -> int:
        await self._flushes.cancel(name)
        await self._rebuilds.cancel(name)
        return await self._writes.run_for(name, self._drop, name)

    async def upsert(self, name: str, points: Sequence[Point]) -> int:
        revision = await self._writes.run_for(name, self._upsert, name, points)
        self._flushes.schedule(name)
        return revision

    async def delete(self, name: str, where: Clause) -> Removed:
        removed = await self._writes.run_for(name, self._delete, name, where)
        self._flushes.schedule(name)
        return removed

    async def label(self, name: str, where: Clause, relabel: Relabel) -> Removed:
        changed = await self._writes.run_for(name, self._label, name, where, relabel)
        self._flushes.schedule(name)
        return changed

    def last_read(self, name: str) -> Versioned | None:
        return None  # descriptions are in memory

    async def search(
        self, name: str, searches: Sequence[Search], where: Clause | None
    ) -> list[list[Hit]]:
        return await asyncio.gather(
            *(self._read(name, Shard.search, each, where) for each in searches)
        )

    async def fetch(self, name: str, ids: Sequence[str]) -> dict[str, Chunk]:
        return await self._read(name, Shard.fetch, ids)

    async def points(self, name: str, ids: Sequence[str]) -> list[Point]:
        return await self._read(name, Shard.points, ids)

    async def select(self, name: str, where: Clause) -> list[Chunk]:
        return await self._read(name, Shard.select, where)

    async def count(self, name: str, where: Clause | None) -> int:
        return await self._read(name, Shard.count, where)

    async def count_by_document(
        self, name: str, document_ids: Sequence[str], where: Clause | None
    ) -> list[int]:
        return await self._read(name, Shard.count_by_document, document_ids, where)

    async def size(self, name: str) -> Size:
        return await self._reads.run_for(name, self._size, name)

    async def stats(self, name: str) -> Stats:
        return await self._reads.run_for(name, self._stats, name)

    def backlog_s(self) -> float:
        return self._reads.backlog_s

    async def _close_unused(self) -> None:
        while True:
            await asyncio.sleep(self._close_after_s / 10)
            with suppress(Overloaded):  # writers come first
                await self._writes.run(self._shards.close_unused, self._close_after_s)

    async def _flush_written(self, name: str) -> None:
        await self._writes.run_for(name, self._flush, name)
        self._rebuilds.schedule(name)

    async def _read(
        self, name: str, work: Callable[Concatenate[Shard, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        def enter_and_work() -> T:
            with self._shards.entered(name) as (_, shard):
                return work(shard, *args, **kwargs)

        return await self._reads.run_for(name, enter_and_work)

    def _size(self, name: str) -> Size:
        held = self._shards.get(name)
        disk_bytes = self._folders.disk_bytes(name)
        if (counts := held.counts) is not None:
            return Size(counts.chunks, counts.unindexed_chunks, disk_bytes)
        with self._shards.entered(name) as (held, shard):
            return Size(shard.count(None), shard.unindexed(), disk_bytes)

    def _stats(self, name: str) -> Stats:
        held = self._shards.get(name)
        disk_bytes = self._folders.disk_bytes(name)
        if (counts := held.counts) is not None:
            chunks, unindexed, documents = counts.chunks, counts.unindexed_chunks, counts.documents
        else:
            with self._shards.entered(name) as (held, shard):
                chunks, unindexed = shard.count(None), shard.unindexed()
                documents = held.count_documents(shard)
        index = self._rebuilder.described(held, max(0, chunks - unindexed))
        return Stats(chunks, unindexed, disk_bytes, documents, index)

    async def _rebuild_outdated(self, name: str) -> None:
        if (again_in_s := await self._rebuilder.tidy(name)) is not None:
            self._rebuilds.schedule(name, after_s=again_in_s)

    # What follows runs in the writing threads, one at a time for a collection.

    def _open_all(self) -> None:
        self._folders.open()
        self._shards.load()
        self._shards.open_at_start()

    def _close_all(self) -> None:
        self._shards.close()
        self._folders.close()

    def _create(self, collection: Collection) -> None:
        name = collection.name
        if self._shards.is_taken(name):
            raise Conflict(f"Collection {name!r} exists already.")
        if (count := len(self._shards.names())) >= self._max_collections:
            raise Conflict(
                f"The index holds {count} collections; the limit is {self._max_collections} "
                "(RAGLAN_RETRIEVER_MAX_COLLECTIONS). Delete one, or keep several kinds of "
                "documents in one collection and tell them apart by their metadata."
            )
        self._disk.check("create a collection")
        vectors = Vectors(collection.model.dimension, collection.further_vectors)
        keeps_versions = collection.versions is not None
        self._shards.add(
            self._folders.create(
                collection,
                lambda path: Shard.create(path, vectors, keeps_versions=keeps_versions),
            )
        )

    def _describe(self, collection: Collection) -> None:
        held = self._shards.get(collection.name)
        self._disk.check("change a collection", share=OPENING_SHARE)
        stored = replace(held.stored, collection=collection)
        self._folders.write(stored)
        held.stored = stored

    def _drop(self, name: str) -> int:
        self._shards.remove(name)
        self._folders.remove(name)
        return self._folders.next_revision()

    @contextmanager
    def _written(self, name: str) -> Iterator[tuple[CollectionState, Shard]]:
        """Open the collection's shard for writing."""
        with self._shards.entered(name) as (held, shard):
            if held.counts is not None:
                held.counts = None
                self._folders.forget_counts(name)
            yield held, shard

    def _upsert(self, name: str, points: Sequence[Point]) -> int:
        self._disk.check("write chunks")
        with self._written(name) as (held, shard):
            ids = [point.id for point in points]
            if not held.erasable and shard.held(ids):
                self._mark_erasable(held)
            try:
                shard.upsert(points)
            finally:
                held.record_change(ids, self._folders.next_revision())
        return held.revision

    def _delete(self, name: str, where: Clause) -> Removed:
        self._disk.check("delete chunks", share=OPENING_SHARE)
        with self._shards.entered(name) as (held, shard):
            ids = shard.ids(where)
        if not ids:
            return Removed(0, held.revision)
        with self._written(name) as (held, shard):
            self._mark_erasable(held)
            try:
                shard.delete(ids)
            finally:
                held.record_change(ids, self._folders.next_revision())
        return Removed(len(ids), held.revision)

    def _label(self, name: str, where: Clause, relabel: Relabel) -> Removed:
        self._disk.check("change metadata", share=OPENING_SHARE)
        changed: list[str] = []
        with self._written(name) as (held, shard):
            try:
                for ids in shard.label(where, relabel):
                    if not held.erasable:
                        self._mark_erasable(held)
                    changed += ids
            finally:
                held.record_change(changed, self._folders.next_revision())
        return Removed(len(changed), held.revision)

    def _mark_erasable(self, held: CollectionState) -> None:
        held.erasable = True
        self._folders.mark_erasable(held.stored)

    def _flush(self, name: str) -> None:
        # A shard that was closed meanwhile was flushed by that.
        if self._shards.get(name).shard is not None:
            with self._shards.entered(name) as (_, shard):
                shard.flush()
