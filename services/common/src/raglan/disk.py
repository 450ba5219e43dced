"""Free space of a data folder, asked before every write.

A write to a mapped file on a full disk ends the process (SIGBUS), so running into the end is no way
to find it.
"""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from raglan.errors import StorageFull, Unavailable

FULL_DISK: Final = (errno.ENOSPC, errno.EDQUOT)
"""Numbers of system errors."""

_MB: Final = 1_000_000


def require_writable(folder: Path, setting: str) -> None:
    """Make `folder`, and raise Unavailable with its setting unless files can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        if error.errno not in FULL_DISK:  # a full disk can still be read from
            raise Unavailable(
                f"The folder {folder} cannot be written to: {error.strerror}. Mount a volume there "
                f"that can, or set {setting} to another folder."
            ) from None


@dataclass(frozen=True, slots=True)
class Disk:
    """The file system of a folder, and the space that is to stay free on it."""

    name: str
    """In a message to callers, as in "The index's disk"."""
    folder: Path
    min_free_mb: int
    setting: str
    """The variable that sets `min_free_mb`."""
    way_out: str
    """What to do when it is full, and what goes on; a sentence."""

    def check(self, doing: str, *, share: float = 1.0, more_bytes: float = 0) -> None:
        """Raise StorageFull unless there is room.

        Args:
            doing: what needs it, as in "write chunks".
            share: of the space that is kept free, what has to be there: deletions may use some.
            more_bytes: what the work itself needs besides.
        """
        needed = self.min_free_mb * share + more_bytes / _MB
        free = shutil.disk_usage(self.folder).free / _MB
        if free < needed:
            raise StorageFull(
                f"{self.name} has {free:.0f} MB free; {needed:.0f} MB are needed to "
                f"{doing} ({self.setting}). {self.way_out}"
            )

    @contextmanager
    def writing(self, doing: str) -> Iterator[None]:
        """Raise StorageFull where the system says in the block that the disk is full."""
        try:
            yield
        except OSError as error:
            if error.errno not in FULL_DISK:
                raise
            raise StorageFull(
                f"{self.name} is full; space is needed to {doing}. {self.way_out}"
            ) from None
