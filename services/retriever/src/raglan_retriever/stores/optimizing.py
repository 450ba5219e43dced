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
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import qdrant_edge as qe
from raglan.errors import Internal

from raglan_retriever.stores import shard_vectors
from raglan_retriever.stores.folders import sync_files
from raglan_retriever.stores.plans import Plan, Quantization
from raglan_retriever.stores.shard import Shard

_NICENESS: Final = 19
"""Queries come first: on two busy cores, a search waits for a build at most a time slice."""
_PR_SET_PDEATHSIG: Final = 1


async def optimize(
    path: Path, *, rewrite: bool, plan: Plan | None, keeps_versions: bool = False
) -> None:
    """Work on the shard at `path`, which no one has open. Ends with its caller.

    Args:
        path: folder of the shard.
        rewrite: replace the shard by one that holds nothing of deleted or replaced points.
        plan: of the vector index to build; None builds none.
        keeps_versions: whether a shard that replaces it needs the indexes of versions.

    Raises:
        Internal: the process failed; its last line is in the message.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        __name__,
        str(path),
        json.dumps(
            {"rewrite": rewrite, "plan": plan and plan.to_json(), "versions": keeps_versions}
        ),
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


def _main(path: Path, *, rewrite: bool, plan: Plan | None, keeps_versions: bool) -> None:
    if sys.platform == "linux":
        # A service that is killed takes this process along; the next start clears its folder.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.nice(_NICENESS)
    if rewrite:
        _rewrite(path, keeps_versions)
    if plan is not None:
        _index(path, plan)
    # Here, so that the service, whose other writers wait for it, finds nothing left to do.
    sync_files(path)


def _rewrite(path: Path, keeps_versions: bool) -> None:
    fresh = path.with_name(f"{path.name}.rewritten")
    source = Shard(path)
    Shard.create(fresh, shard_vectors.read(path), keeps_versions=keeps_versions)
    target = Shard(fresh)
    for ids in source.pages():
        target.copy(source, ids)
    target.flush()
    for shard in (source, target):
        shard.close()
    shutil.rmtree(path)
    fresh.rename(path)


def _index(path: Path, plan: Plan) -> None:
    """Build the vector index; segments whose index has other parameters are built anew."""
    vectors = shard_vectors.read(path)
    # Of the dense vectors alone: token vectors have no graph, and are always compared as they are.
    quantized = _QUANTIZATIONS[plan.quantization](
        qe.Memory.Cold if plan.index_on_disk else qe.Memory.Pinned
    )
    memory = _memory(on_disk=plan.vectors_on_disk)
    shard = qe.EdgeShard.load(
        str(path),
        qe.EdgeConfig(
            vectors=vectors.dense_params(memory=memory, quantization=quantized),
            sparse_vectors=vectors.sparse_params(),
            payload_memory=_memory(on_disk=plan.payload_on_disk),
            hnsw_config=qe.HnswIndexConfig(
                m=plan.m,
                ef_construct=plan.ef_construct,
                full_scan_threshold=_FULL_SCAN_KB,
                memory=_memory(on_disk=plan.index_on_disk),
            ),
            # In KB. The service decides when; here, every segment is worth an index.
            optimizers=qe.EdgeOptimizersConfig(indexing_threshold=1),
        ),
    )
    shard.optimize()
    shard.flush()
    shard.close()


def _memory(*, on_disk: bool) -> qe.Memory:
    return qe.Memory.Cold if on_disk else qe.Memory.Cached


_FULL_SCAN_KB: Final = 10_000
"""A filter that leaves fewer vectors has them compared one by one; the library's own value."""

_QUANTIZATIONS: Final[Mapping[Quantization, Callable[[qe.Memory], Any]]] = {
    "none": lambda memory: None,
    "int8": lambda memory: qe.ScalarQuantizationConfig(
        type=qe.ScalarType.Int8, quantile=0.99, memory=memory
    ),
    "turbo4": lambda memory: qe.TurboQuantQuantizationConfig(
        bits=qe.TurboQuantBitSize.Bits4, memory=memory
    ),
}


if __name__ == "__main__":
    _asked = json.loads(sys.argv[2])
    _main(
        Path(sys.argv[1]),
        rewrite=_asked["rewrite"],
        plan=None if _asked["plan"] is None else Plan.from_json(_asked["plan"]),
        keeps_versions=_asked["versions"],
    )
