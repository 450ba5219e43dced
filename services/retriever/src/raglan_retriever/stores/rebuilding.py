"""Builds vector indexes and rewrites shards, aside: searches and writes go on meanwhile.

A process works on a copy of the shard, what changed meanwhile is brought over, and the copy takes
the shard's place in one step. Until then the present index answers, after a crash too.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Final

from raglan.disk import Disk

from raglan_retriever.stores.folders import Folders, copy_sparse
from raglan_retriever.stores.optimizing import optimize
from raglan_retriever.stores.plans import Plan, Planner, Size, State
from raglan_retriever.stores.shard import Shard
from raglan_retriever.stores.shards import CollectionState, Shards
from raglan_retriever.stores.store import VectorIndex
from raglan_retriever.stores.threads import BoundedPool

_PAUSE_SHARE: Final = 20.0
"""A shard is not rewritten again for so many times as long as it took: at most 5 % of the time."""

_AT_ONCE: Final = 500
"""Points brought over between two calls of writers."""

_UNINDEXED_SHARE: Final = 0.1
"""Of a large collection, what may lie outside of its index before it is built again."""


class Rebuilder:
    """Decides whether a collection's shard is to be built anew, and does it."""

    def __init__(
        self,
        folders: Folders,
        disk: Disk,
        shards: Shards,
        reads: BoundedPool,
        writes: BoundedPool,
        *,
        planner: Planner,
        index_from_chunks: int,
    ) -> None:
        """Prepare the work; all collaborators are shared with the store.

        Args:
            folders: of the shards.
            disk: that they lie on.
            shards: which are open.
            reads: threads that read.
            writes: threads that write, one lane a collection.
            planner: chooses the parameters.
            index_from_chunks: so many chunks outside of an index are worth building it.
        """
        self._folders = folders
        self._disk = disk
        self._shards = shards
        self._reads = reads
        self._writes = writes
        self._planner = planner
        self._index_from = index_from_chunks

    async def tidy(self, name: str) -> float | None:
        """Build the collection's vector index or write it anew, if there is reason to.

        Returns:
            Seconds after which there is more to do; None if there is not.

        Raises:
            StorageFull: there is no space for a copy.
            Internal: the process failed.
        """
        held = self._shards.get(name)
        wait_s = held.rewritten_until_s - time.monotonic()
        size = await self._reads.run_for(name, self._size, held)
        plan = self._planner.settle(held.stored.plan, size, recall=held.stored.collection.recall)
        if held.erasable and wait_s <= 0:
            began = time.monotonic()
            await self._rebuild(held, plan if size.chunks >= self._index_from else None, True)
            ended = time.monotonic()
            held.rewritten_until_s = ended + _PAUSE_SHARE * (ended - began)
        elif self._is_outdated(held, size, plan):
            await self._rebuild(held, plan, False)
        elif held.stored.plan is not None and plan != held.stored.plan:
            await self._writes.run_for(name, self._adjust, held, plan)
        return max(1.0, wait_s) if held.erasable else None

    def described(self, held: CollectionState, indexed: int) -> VectorIndex:
        """Return the state of a vector index that holds `indexed` chunks."""
        state: State = "ready" if indexed else "scanned"
        if held.changed is not None:
            state = "building"
        recall = held.stored.collection.recall
        target = self._planner.recall if recall is None else recall
        return VectorIndex(state, indexed, target, held.stored.plan if indexed else None)

    def _is_outdated(self, held: CollectionState, size: Size, plan: Plan) -> bool:
        if held.outdated >= max(self._index_from, _UNINDEXED_SHARE * size.chunks):
            return True
        present = held.stored.plan
        return size.chunks >= self._index_from and (present is None or present.built != plan.built)

    async def _rebuild(self, held: CollectionState, plan: Plan | None, rewrite: bool) -> None:
        """Replace the shard by one with its vector index built, or one without deleted text."""
        path = self._folders.shard(held.name, self._folders.new_shard_name())
        outdated = held.outdated
        fresh = None
        try:
            await self._writes.run_for(held.name, self._copy, held, path, rewrite)
            keeps_versions = held.stored.collection.versions is not None
            await optimize(path, rewrite=rewrite, plan=plan, keeps_versions=keeps_versions)
            fresh = await self._reads.run(Shard, path, plan)
            while not await self._writes.run_for(held.name, self._take_over, held, fresh):
                pass
        except BaseException:
            held.erasable = held.erasable or rewrite
            held.outdated = max(held.outdated, outdated)
            await self._writes.run_always_for(held.name, self._forget_copy, held, path, fresh)
            raise

    def _size(self, held: CollectionState) -> Size:
        if held.counts is not None:
            chunks = held.counts.chunks
        else:
            with self._shards.entered(held.name) as (_, shard):
                chunks = shard.count(None)
        dimension = held.stored.collection.model.dimension
        return Size(chunks, dimension, self._folders.payload_bytes(held.stored))

    # What follows runs in the writing threads, in the lane of the collection.

    def _adjust(self, held: CollectionState, plan: Plan) -> None:
        """Change what searches of the present index ask for."""
        stored = replace(held.stored, plan=plan)
        self._folders.write(stored)
        held.stored = stored
        with self._shards.entered(held.name) as (_, shard):
            shard.plan = plan

    def _copy(self, held: CollectionState, path: Path, rewrite: bool) -> None:
        """Copy the flushed shard to `path` and note from now on what changes."""
        self._disk.check(
            "rebuild an index", more_bytes=self._folders.disk_bytes(held.name) * (1 + rewrite)
        )
        with self._shards.entered(held.name) as (_, shard):
            shard.flush()
            shutil.copytree(shard.path, path, copy_function=copy_sparse)
            held.outdated, held.changed = 0, set()
            if rewrite:
                held.erasable = False

    def _take_over(self, held: CollectionState, fresh: Shard) -> bool:
        """Copy some changed points; once none are left, replace the shard and return True."""
        changed = held.changed or set()
        some = [changed.pop() for _ in range(min(len(changed), _AT_ONCE))]
        with self._shards.entered(held.name) as (_, shard):
            fresh.copy(shard, some)
        if changed:
            return False
        fresh.flush()
        stored = replace(held.stored, shard=fresh.path.name, plan=fresh.plan)
        if held.erasable:  # by a deletion since the copy was taken, whose text is in the copy
            self._folders.mark_erasable(stored)
        self._folders.write(stored)
        old = self._shards.replace(held, fresh)
        held.stored, held.counts = stored, None
        if old is not None:
            old.close()
            shutil.rmtree(old.path, ignore_errors=True)
        held.changed = None
        return True

    def _forget_copy(self, held: CollectionState, path: Path, fresh: Shard | None) -> None:
        if held.stored.shard == path.name:
            return
        held.changed = None
        if fresh is not None:
            fresh.close()
        for left in path.parent.glob(f"{path.name}*"):
            shutil.rmtree(left, ignore_errors=True)
