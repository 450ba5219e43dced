"""vLLM loads this into each of its processes: none of them outlives the one that started it.

The service that is killed cannot stop its engine, which would keep the GPU's memory for good.
"""

from __future__ import annotations

import multiprocessing
import os
import threading


def end_with_parent() -> None:
    """Exit at once when the process that spawned this one is gone."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()
