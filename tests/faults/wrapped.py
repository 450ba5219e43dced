"""Runs a module as `python -m` does, but lets SIGUSR1 block it for 2 s.

    python wrapped.py <module>

The handler runs in the main thread, between two steps of the event loop: as a library call would
that nobody expected to block.
"""

from __future__ import annotations

import runpy
import signal
import sys
import time

BLOCK_S = 2.0


def main() -> None:
    """Returns when the module does."""
    signal.signal(signal.SIGUSR1, lambda *_: time.sleep(BLOCK_S))
    module = sys.argv.pop(1)
    # The folder of this script is none of the module's.
    sys.path.pop(0)
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
