"""The sources that are configured now: the last version of the file that had no error."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import structlog
from raglan.errors import InvalidInput

from raglan_ingester.sources import config
from raglan_ingester.sources.config import AnySource

log: Final = structlog.get_logger()

Stamp = tuple[int, int, int]
"""Time of change in nanoseconds, size and inode: a mounted file is replaced, not written."""


class SourceFile:
    """Reads the file when it changes.

    Args:
        path: of the file; None where no sources are configured.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._stamp: Stamp | None = None
        self.sources: Mapping[str, AnySource] = {}
        self.error = ""
        """Error of the present file, with which `sources` are those of before; else empty."""

    async def refresh(self) -> None:
        """Read the file if it has changed. An error leaves the sources as they were."""
        if self._path is not None:
            await asyncio.to_thread(self._refresh, self._path)

    def _refresh(self, path: Path) -> None:
        try:
            found = path.stat()
            stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
        except OSError:
            stamp = None
        if stamp is not None and stamp == self._stamp:
            return
        try:
            self.sources = config.load(path)
        except InvalidInput as error:
            if error.message != self.error:
                log.warning("the sources file is not used", reason=error.message)
            self.error = error.message
        else:
            self.error = ""
            log.info("sources were read", sources=len(self.sources))
        self._stamp = stamp
