"""Builds the vector index of a shard in a process of its own.

`optimize()` holds the interpreter's lock from its first second to its last (7 s for 20,000 chunks),
so within the service it would stop every call. Here it works on a copy that the service then takes
over.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
from pathlib import Path
from typing import Final

import qdrant_edge as qe
from raglan.errors import Internal

from raglan_retriever.stores.store import LEXICAL

_NICENESS: Final = 10
_PR_SET_PDEATHSIG: Final = 1


async def optimize(path: Path) -> None:
    """Build the index of the shard at `path`, which no one has open. Ends with its caller.

    Raises:
        Internal: the process failed; its last line is in the message.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        __name__,
        str(path),
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


def _main(path: str) -> None:
    if sys.platform == "linux":
        # A service that is killed takes this process along; the next start clears its folder.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.nice(_NICENESS)
    shard = qe.EdgeShard.load(
        path,
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
    _main(sys.argv[1])
