"""The readers by kind: the only place that names all of them."""

from __future__ import annotations

from raglan_ingester.sources.config import AnySource, FolderSettings
from raglan_ingester.sources.reader import Reader
from raglan_ingester.sources.readers.folder import FolderReader


class Readers:
    """Opens readers.

    Args:
        max_bytes: of one document.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes

    def open(self, source: AnySource) -> Reader:
        """Open the reader of a source for one sync."""
        match source:
            case FolderSettings():
                return FolderReader(source, source.path, self._max_bytes)
