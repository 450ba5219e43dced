"""Runs a module as `python -m` does, but dies with its parent and lets SIGUSR1 block it for 2 s.

    python wrapped.py <pid of the parent> <module>

The handler runs in the main thread, between two steps of the event loop: as a library call would
that nobody expected to block.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys
import time

BLOCK_S = 2.0
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Never returns before the module does."""
    parent, module = int(sys.argv[1]), sys.argv[2]
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise SystemExit(1)
    signal.signal(signal.SIGUSR1, lambda *_: time.sleep(BLOCK_S))
    sys.argv = [module]
    sys.path.pop(0)
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
