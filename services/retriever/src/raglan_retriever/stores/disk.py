"""Free space, asked before every write: a write to a mapped file on a full disk is a SIGBUS."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from raglan.errors import StorageFull

_MB: Final = 1_000_000


class Disk:
    """The file system of a folder."""

    def __init__(self, folder: Path, *, min_free_mb: int) -> None:
        self._folder = folder
        self._min_free_mb = min_free_mb

    def check(self, doing: str, *, share: float = 1.0, more_bytes: int = 0) -> None:
        """Raise StorageFull unless there is room.

        Args:
            doing: what needs it, as in "to write chunks".
            share: of the space that is kept free, what has to be there: deletions may use some.
            more_bytes: what the work itself needs besides.
        """
        needed = self._min_free_mb * share + more_bytes / _MB
        free = shutil.disk_usage(self._folder).free / _MB
        if free < needed:
            raise StorageFull(
                f"The index's disk has {free:.0f} MB free; {needed:.0f} MB are needed to {doing} "
                "(RAGLAN_RETRIEVER_MIN_FREE_MB). Free some space or delete a collection; what is "
                "stored can still be searched."
            )
