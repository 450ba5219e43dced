"""The generator as it is, which on SIGUSR1 writes how many tasks its event loop has to a file."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

from raglan_generator.__main__ import main


def _write_tasks(*_: object) -> None:
    Path(os.environ["BENCH_TASKS_FILE"]).write_text(str(len(asyncio.all_tasks())))


if __name__ == "__main__":
    # Handlers run in the main thread, in which the loop is running.
    signal.signal(signal.SIGUSR1, _write_tasks)
    main()
