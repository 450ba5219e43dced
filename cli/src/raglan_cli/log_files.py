"""The logs of a mesh: what services write into, kept to a size.

A service writes into an open file, which cannot be taken from it. So a file that has grown too
large is copied and then emptied: the writer appends (O_APPEND) at its new end.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from raglan_cli.failure import UsageFailure

VARIABLE: Final = "RAGLAN_LOG_MAX_MB"
DEFAULT_MB: Final = 50.0
_OLDER: Final = 2
"""Earlier files of each log: `embedder-1.log.1` is the newest of them."""

_EVERY_S: Final = 1.0


def max_bytes(environ: Mapping[str, str]) -> int:
    """Return the size limit of a log in bytes; 0 is without limit.

    Raises:
        UsageFailure: the variable holds no such number.
    """
    told = environ.get(VARIABLE, "")
    try:
        megabytes = float(told or DEFAULT_MB)
    except ValueError:
        megabytes = -1.0
    if not 0 <= megabytes < 1e6:
        raise UsageFailure(
            f"{VARIABLE} is {told!r}; give the megabytes that a log may have, e.g. 50, or 0 for "
            "no limit."
        )
    return int(megabytes * 1e6)


def begin(log: Path) -> None:
    """Make the folder, and keep what an earlier mesh wrote beside what this one will."""
    log.parent.mkdir(parents=True, exist_ok=True)
    _make_room(log)
    with suppress(FileNotFoundError):
        log.replace(_older(log, 1))


async def keep_small(folder: Path, most: int) -> None:
    """Look at the logs in `folder` again and again, and rotate those of more than `most` bytes."""
    while most:
        await asyncio.to_thread(_rotate_large, folder, most)
        await asyncio.sleep(_EVERY_S)


def _rotate_large(folder: Path, most: int) -> None:
    for log in folder.glob("*.log"):
        with suppress(OSError):
            if log.stat().st_size > most:
                rotate(log)


def rotate(log: Path) -> None:
    """Move what `log` holds into `log`.1 while it is written to.

    Where the copy finds no room, the lines are lost: it is the disk that then needs them least.
    """
    _make_room(log)
    copy = _older(log, 1)
    try:
        with log.open("rb") as source, copy.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
            # Lines written during the copy; the time from here to the truncation is short.
            shutil.copyfileobj(source, target)
    except OSError:
        copy.unlink(missing_ok=True)
    os.truncate(log, 0)


def _make_room(log: Path) -> None:
    for number in range(_OLDER, 1, -1):
        with suppress(FileNotFoundError):
            _older(log, number - 1).replace(_older(log, number))


def _older(log: Path, number: int) -> Path:
    return log.with_name(f"{log.name}.{number}")
