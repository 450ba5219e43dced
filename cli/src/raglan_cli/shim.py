"""Run a program that does not outlive the process that started it: `python shim.py PARENT ARGV...`.

A supervisor that is killed with -9 cannot stop its children. The kernel can: this asks it to
kill this process when its parent dies, and then becomes the program. `preexec_fn` would do the
same between fork and exec, where Python code may deadlock.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import Final

PR_SET_PDEATHSIG: Final = 1
"""From linux/prctl.h. The setting survives exec."""


def main(argv: list[str]) -> None:
    """Never returns."""
    parent, program = int(argv[0]), argv[1:]
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        raise SystemExit(1)
    os.execv(program[0], program)  # noqa: S606 - the program is the supervisor's own


if __name__ == "__main__":
    main(sys.argv[1:])
