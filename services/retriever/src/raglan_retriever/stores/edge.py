"""Qdrant Edge: the index inside this process, on disk, with its write-ahead log."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
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
from raglan_retriever.stores.folders import Folders, Stored, copy_sparse
from raglan_retriever.stores.optimizing import optimize
from raglan_retriever.stores.shard import Shard
from raglan_retriever.stores.store import Hit, Point, Size, Stats
from raglan_retriever.stores.threads import BoundedPool
from raglan_retriever.stores.upkeep import Upkeep

P = ParamSpec("P")
T = TypeVar("T")

_MAX_WAITING_WRITES: Final = 32
"""Each may hold a message of 16 MiB."""

_PAUSE_SHARE: Final = 20.0
"""A shard is not rewritten again for so many times as long as it took: at most 5 % of the time."""

_ERASABLE: Final = "erasable"
"""A file beside the shard's own: it holds text of points that were deleted or replaced."""

_AT_ONCE: Final = 500
"""Points brought over between two calls of writers."""


@dataclass(slots=True)
class _Open:
    """A collection in use. Changed in the writing thread only."""

    stored: Stored
    shard: Shard
    outdated: int
    """Chunks written or removed since the vector index was built."""

    version: int = 0
    """Changes with every write."""

    documents: tuple[int, int] = (-1, 0)
    """How many documents there were, after the version: counting holds the interpreter's lock."""

    changed: set[str] | None = None
    """Points written or removed since a copy was taken to build the index of; else None."""

    points: int = 0
    """Number of points when a copy was last taken."""

    erasable: bool = False
    """The shard still holds the text of points that were deleted or replaced."""

    rewritten_until_s: float = 0.0
    """When the last rewriting ended, on the monotonic clock, plus the pause it has earned."""

    def note(self, ids: Sequence[str]) -> None:
        self.version += 1
        self.outdated += len(ids)
        if self.changed is not None:
            self.changed.update(ids)


class EdgeStore:
    """Reads run in `search_threads` threads; every change in the one writing thread, in order.

    When writers pause, upkeep flushes what they wrote and, where `optimize_after_chunks` changed,
    builds the vector index: a process works on a copy of the shard, what changed meanwhile is
    brought over, and the copy takes the shard's place.
    """

    name: Final[str] = "edge"

    def __init__(
        self,
        data_dir: Path,
        *,
        search_threads: int,
        max_waiting: int,
        optimize_after_chunks: int,
        quiet_s: float = 1.0,
    ) -> None:
        self._folders = Folders(data_dir)
        self._lock = threading.Lock()
        """Held to look a shard up and enter it, and to replace or remove it."""
        self._open: dict[str, _Open] = {}
        self._reads = BoundedPool("reading", threads=search_threads, max_waiting=max_waiting)
        self._writes = BoundedPool("writing", threads=1, max_waiting=_MAX_WAITING_WRITES)
        self._optimize_after = optimize_after_chunks
        self._upkeep = Upkeep(self._tidy, quiet_s=quiet_s)

    async def open(self) -> None:
        await self._writes.run(self._open_all)
        self._upkeep.start()
        for name, opened in self._open.items():
            if opened.erasable:
                self._upkeep.wrote(name)

    async def close(self) -> None:
        await self._upkeep.stop()
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
        await self._upkeep.leave(name)
        await self._writes.run(self._drop, name)

    async def upsert(self, name: str, points: Sequence[Point]) -> None:
        await self._writes.run(self._upsert, name, points)
        self._upkeep.wrote(name)

    async def delete(self, name: str, where: Clause) -> int:
        deleted = await self._writes.run(self._delete, name, where)
        self._upkeep.wrote(name)
        return deleted

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

    async def size(self, name: str) -> Size:
        return await self._reads.run(self._size, name)

    async def stats(self, name: str) -> Stats:
        return await self._reads.run(self._stats, name)

    def backlog_s(self) -> float:
        return self._reads.backlog_s

    async def _tidy(self, name: str) -> None:
        """Flush the collection and, when enough has changed, build its vector index."""
        opened = await self._writes.run(self._flush, name)
        wait_s = opened.rewritten_until_s - time.monotonic()
        if opened.erasable and wait_s <= 0:
            began = time.monotonic()
            await self._rebuild(name, rewrite=True)
            ended = time.monotonic()
            opened.rewritten_until_s = ended + _PAUSE_SHARE * (ended - began)
        elif opened.outdated >= self._optimize_after:
            await self._rebuild(name, rewrite=False)
        if opened.erasable:
            asyncio.get_running_loop().call_later(max(1.0, wait_s), self._upkeep.wrote, name)

    async def _rebuild(self, name: str, *, rewrite: bool) -> None:
        """Replace the shard by one with its vector index built, or one without deleted text."""
        opened, path = await self._writes.run(self._copy, name)
        if rewrite:
            opened.erasable = False
        try:
            model = opened.stored.collection.model
            await optimize(
                path,
                rewrite_dimension=model.dimension if rewrite else 0,
                index=opened.points >= self._optimize_after or not rewrite,
            )
            fresh = await self._reads.run(Shard, path)
            while not await self._writes.run(self._take_over, opened, fresh):
                pass
        except BaseException:
            opened.erasable = opened.erasable or rewrite
            await self._writes.run(self._forget_copy, opened, path)
            raise

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

    def _size(self, name: str) -> Size:
        with self._entered(name) as shard:
            return Size(shard.count(None), shard.unindexed(), self._folders.disk_bytes(name))

    def _stats(self, name: str) -> Stats:
        opened = self._get(name)
        with self._entered(name) as shard:
            return Stats(
                chunks=shard.count(None),
                documents=self._documents(opened, shard),
                disk_bytes=self._folders.disk_bytes(name),
                unindexed_chunks=shard.unindexed(),
            )

    @staticmethod
    def _documents(opened: _Open, shard: Shard) -> int:
        version, documents = opened.documents
        if version != opened.version:
            version = opened.version
            documents = shard.documents()
            opened.documents = (version, documents)
        return documents

    # What follows runs in the writing thread, one at a time.

    def _open_all(self) -> None:
        self._folders.open()
        for stored in self._folders.stored():
            self._open[stored.collection.name] = self._opened(stored)

    def _close_all(self) -> None:
        while self._open:
            _, opened = self._open.popitem()
            opened.shard.flush()
            opened.shard.close()
        self._folders.close()

    def _create(self, collection: Collection) -> None:
        if collection.name in self._open:
            raise Conflict(f"Collection {collection.name!r} exists already.")
        dimension = collection.model.dimension
        stored = self._folders.create(collection, lambda path: Shard.create(path, dimension))
        self._open[collection.name] = self._opened(stored)

    def _opened(self, stored: Stored) -> _Open:
        shard = Shard(self._folders.shard(stored.collection.name, stored.shard))
        erasable = (shard.path / _ERASABLE).exists()
        return _Open(stored, shard, outdated=shard.unindexed(), erasable=erasable)

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
        opened = self._get(name)
        ids = [point.id for point in points]
        if not opened.erasable and opened.shard.held(ids):
            self._mark_erasable(opened)
        try:
            opened.shard.upsert(points)
        finally:
            opened.note(ids)

    def _delete(self, name: str, where: Clause) -> int:
        opened = self._get(name)
        ids = opened.shard.ids(where)
        if ids:
            self._mark_erasable(opened)
        try:
            opened.shard.delete(ids)
        finally:
            opened.note(ids)
        return len(ids)

    def _mark_erasable(self, opened: _Open) -> None:
        """Remember, over restarts too, that text has to be erased. A shard written anew forgets."""
        opened.erasable = True
        (opened.shard.path / _ERASABLE).touch()

    def _flush(self, name: str) -> _Open:
        opened = self._get(name)
        opened.shard.flush()
        return opened

    def _copy(self, name: str) -> tuple[_Open, Path]:
        """Copy the flushed shard and note from now on what changes."""
        opened = self._get(name)
        opened.shard.flush()
        path = self._folders.shard(name, self._folders.new_shard_name())
        shutil.copytree(opened.shard.path, path, copy_function=copy_sparse)
        opened.outdated, opened.changed = 0, set()
        opened.points = opened.shard.count(None)
        return opened, path

    def _take_over(self, opened: _Open, fresh: Shard) -> bool:
        """Bring over some of what changed; once nothing is left, replace the shard: True."""
        changed = opened.changed or set()
        fresh.copy(opened.shard, [changed.pop() for _ in range(min(len(changed), _AT_ONCE))])
        if changed:
            return False
        fresh.flush()
        stored = replace(opened.stored, shard=fresh.path.name)
        self._folders.write(stored)
        with self._lock:
            old, opened.shard = opened.shard, fresh
        opened.stored = stored
        old.close()
        shutil.rmtree(old.path, ignore_errors=True)
        opened.changed = None
        return True

    def _forget_copy(self, opened: _Open, path: Path) -> None:
        if opened.shard.path != path:
            opened.changed = None
            shutil.rmtree(path, ignore_errors=True)
