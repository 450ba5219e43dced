"""Builds the vector index of a shard, or writes the shard anew, in a process of its own.

A shard keeps the text of points that were deleted or replaced in its log and its storage; only a
shard that is written anew from the points that are left is rid of it.

`optimize()` holds the interpreter's lock from its first second to its last (7 s for 20,000 chunks),
so within the service it would stop every call. Here it works on a copy that the service then takes
over.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Final

import qdrant_edge as qe
from raglan.errors import Internal

from raglan_retriever.stores.shard import Shard
from raglan_retriever.stores.store import LEXICAL

_NICENESS: Final = 10
_PR_SET_PDEATHSIG: Final = 1


async def optimize(
    path: Path, *, rewrite_dimension: int = 0, index: bool = True, keeps_versions: bool = False
) -> None:
    """Work on the shard at `path`, which no one has open. Ends with its caller.

    Args:
        path: folder of the shard.
        rewrite_dimension: of its dense vectors; above 0, the shard is replaced by one that holds
            nothing of deleted or replaced points.
        index: build its vector index.
        keeps_versions: whether a shard that replaces it needs the indexes of versions.

    Raises:
        Internal: the process failed; its last line is in the message.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        __name__,
        str(path),
        str(rewrite_dimension),
        str(int(index)),
        str(int(keeps_versions)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        _, complaints = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    if process.returncode != 0:
        lines = complaints.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise Internal(f"optimizing ended with status {process.returncode}: {lines[-1]}")


def _main(path: Path, rewrite_dimension: int, index: bool, keeps_versions: bool) -> None:
    if sys.platform == "linux":
        # A service that is killed takes this process along; the next start clears its folder.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.nice(_NICENESS)
    if rewrite_dimension:
        _rewrite(path, rewrite_dimension, keeps_versions)
    if index:
        _index(path)


def _rewrite(path: Path, dimension: int, keeps_versions: bool) -> None:
    fresh = path.with_name(f"{path.name}.rewritten")
    source = Shard(path)
    Shard.create(fresh, dimension, keeps_versions=keeps_versions)
    target = Shard(fresh)
    for ids in source.pages():
        target.copy(source, ids)
    target.flush()
    for shard in (source, target):
        shard.close()
    shutil.rmtree(path)
    fresh.rename(path)


def _index(path: Path) -> None:
    shard = qe.EdgeShard.load(
        str(path),
        qe.EdgeConfig(
            sparse_vectors={LEXICAL: qe.EdgeSparseVectorParams(modifier=qe.Modifier.Idf)},
            # In KB. The service decides when; here, every segment is worth an index.
            optimizers=qe.EdgeOptimizersConfig(indexing_threshold=1),
        ),
    )
    shard.optimize()
    shard.flush()
    shard.close()


if __name__ == "__main__":
    _main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "1", sys.argv[4] == "1")
