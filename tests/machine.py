"""What the machine does to a measured time, so that a limit means the same on each of them."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

_SCHEDSTAT = Path("/proc/thread-self/schedstat")
_REFERENCE_S = 0.011
"""What `_reference_s` measures on the machine that limits of tests are chosen on."""


def without_core_s() -> float:
    """How long this thread has waited in the run queue so far (proc(5), schedstat); 0 elsewhere."""
    try:
        with _SCHEDSTAT.open() as file:
            return int(file.read().split()[1]) / 1e9
    except OSError:
        return 0.0


def others_without_core_s() -> float:
    """How long the other threads of this process have waited in the run queue so far, in sum."""
    total = 0.0
    for file in Path("/proc/self/task").glob("*/schedstat"):
        with suppress(OSError):  # that thread has ended
            total += int(file.read_text().split()[1]) / 1e9
    return total - without_core_s()


def slowness() -> float:
    """How many times longer than on the reference machine computing takes just now; at least 1."""
    return max(1.0, _reference_s() / _REFERENCE_S)


def _reference_s() -> float:
    begun = time.thread_time()
    total = 0
    for number in range(300_000):
        total += number * number
    return time.thread_time() - begun
