"""Qdrant Edge: the index inside this process, on disk, with its write-ahead log."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Concatenate, Final, ParamSpec, TypeVar

from raglan.errors import Conflict, NotFound

from raglan_retriever.chunks import Chunk
from raglan_retriever.collection import Collection
from raglan_retriever.filters import Clause
from raglan_retriever.lexical import Sparse
from raglan_retriever.stores.folders import Folders, Stored
from raglan_retriever.stores.shard import Shard
from raglan_retriever.stores.store import Hit, Point, Stats
from raglan_retriever.stores.threads import BoundedPool

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(slots=True)
class _Open:
    stored: Stored
    shard: Shard


class EdgeStore:
    """Reads run in `search_threads` threads; every change in the one writing thread, in order."""

    name: Final[str] = "edge"

    def __init__(self, data_dir: Path, *, search_threads: int, max_waiting: int) -> None:
        self._folders = Folders(data_dir)
        self._lock = threading.Lock()
        """Held to look a shard up and enter it, and to replace or remove it."""
        self._open: dict[str, _Open] = {}
        self._reads = BoundedPool("reading", threads=search_threads, max_waiting=max_waiting)
        self._writes = BoundedPool("writing", threads=1, max_waiting=max_waiting)

    async def open(self) -> None:
        await self._writes.run(self._open_all)

    async def close(self) -> None:
        await self._writes.run(self._close_all)
        self._reads.close()
        self._writes.close()

    async def collections(self) -> list[Collection]:
        return [opened.stored.collection for _, opened in sorted(self._open.items())]

    async def create(self, collection: Collection) -> None:
        await self._writes.run(self._create, collection)

    async def collection(self, name: str) -> Collection:
        return self._get(name).stored.collection

    async def describe(self, collection: Collection) -> None:
        await self._writes.run(self._describe, collection)

    async def drop(self, name: str) -> None:
        await self._writes.run(self._drop, name)

    async def upsert(self, name: str, points: Sequence[Point]) -> None:
        await self._writes.run(self._upsert, name, points)

    async def delete(self, name: str, where: Clause) -> int:
        return await self._writes.run(self._delete, name, where)

    async def search(
        self, name: str, query: list[float] | Sparse, limit: int, where: Clause | None
    ) -> list[Hit]:
        return await self._read(name, Shard.search, query, limit, where)

    async def fetch(self, name: str, ids: Sequence[str]) -> dict[str, Chunk]:
        return await self._read(name, Shard.fetch, ids)

    async def select(self, name: str, where: Clause) -> list[Chunk]:
        return await self._read(name, Shard.select, where)

    async def count(self, name: str, where: Clause | None) -> int:
        return await self._read(name, Shard.count, where)

    async def stats(self, name: str) -> Stats:
        return await self._reads.run(self._stats, name)

    async def _read(
        self, name: str, work: Callable[Concatenate[Shard, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        def enter_and_work() -> T:
            with self._entered(name) as shard:
                return work(shard, *args, **kwargs)

        return await self._reads.run(enter_and_work)

    @contextmanager
    def _entered(self, name: str) -> Iterator[Shard]:
        """The collection's shard, which stays open for the block."""
        with self._lock:
            shard = self._get(name).shard
            shard.enter()
        try:
            yield shard
        finally:
            shard.leave()

    def _get(self, name: str) -> _Open:
        try:
            return self._open[name]
        except KeyError:
            raise NotFound(f"There is no collection {name!r}.") from None

    def _stats(self, name: str) -> Stats:
        with self._entered(name) as shard:
            return Stats(
                chunks=shard.count(None),
                documents=shard.documents(),
                disk_bytes=self._folders.disk_bytes(name),
                unindexed_chunks=shard.unindexed(),
            )

    # What follows runs in the writing thread, one at a time.

    def _open_all(self) -> None:
        self._folders.open()
        for stored in self._folders.stored():
            self._open[stored.collection.name] = self._opened(stored)

    def _close_all(self) -> None:
        while self._open:
            _, opened = self._open.popitem()
            opened.shard.close()
        self._folders.close()

    def _create(self, collection: Collection) -> None:
        if collection.name in self._open:
            raise Conflict(f"Collection {collection.name!r} exists already.")
        dimension = collection.model.dimension
        stored = self._folders.create(collection, lambda path: Shard.create(path, dimension))
        self._open[collection.name] = self._opened(stored)

    def _opened(self, stored: Stored) -> _Open:
        return _Open(stored, Shard(self._folders.shard(stored.collection.name, stored.shard)))

    def _describe(self, collection: Collection) -> None:
        opened = self._get(collection.name)
        stored = replace(opened.stored, collection=collection)
        self._folders.write(stored)
        opened.stored = stored

    def _drop(self, name: str) -> None:
        with self._lock:
            shard = self._get(name).shard
            del self._open[name]
        shard.close()
        self._folders.remove(name)

    def _upsert(self, name: str, points: Sequence[Point]) -> None:
        self._get(name).shard.upsert(points)

    def _delete(self, name: str, where: Clause) -> int:
        shard = self._get(name).shard
        ids = shard.ids(where)
        shard.delete(ids)
        return len(ids)
