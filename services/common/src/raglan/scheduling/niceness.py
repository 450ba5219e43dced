"""Scheduling priority of threads: the event loop, then queries, then bulk work.

A batch that runs cannot be stopped, but the kernel can put it aside for a thread that matters more.
The loop comes before all computing: a server whose loop waits for a core refuses too late what it
cannot do in time. On Linux nice values belong to threads, and pass to those a thread starts;
elsewhere they would slow the whole process, so there nothing happens.

Only threads of a runtime that never run Python are niced. One that does would hold the
interpreter's lock while the kernel prefers every other process to it, and the event loop would wait
for it: 3 to 8 s beside six busy processes on two cores.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

T = TypeVar("T")

QUERIES: Final = 4
"""Of threads that compute queries, over the process's own: two fifths of the loop's weight."""

BULK: Final = 14
"""Of those that do bulk work: a tenth of the queries' weight."""


def step_back(nice: int) -> None:
    """Let the kernel prefer other threads to this one, and to those it starts from now on."""
    if nice and sys.platform == "linux":
        thread = threading.get_native_id()
        # Relative to the process: a thread cannot raise its priority again.
        now = os.getpriority(os.PRIO_PROCESS, thread)
        os.setpriority(os.PRIO_PROCESS, thread, min(19, now + nice))


def niced(nice: int, work: Callable[[], T]) -> T:
    """The result of `work`, whose new threads are niced: some runtimes compute on their own."""
    with ThreadPoolExecutor(1, "niced", initializer=step_back, initargs=(nice,)) as executor:
        return executor.submit(work).result()
