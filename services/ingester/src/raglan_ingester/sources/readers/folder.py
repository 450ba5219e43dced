"""Reader of a folder. No symbolic link below it is followed: neither loops nor ways out exist."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from raglan.identifiers import shortened

from raglan_ingester.sources.config import SourceSettings
from raglan_ingester.sources.reader import (
    Content,
    Entry,
    Listing,
    Skipped,
    SkippedDocumentError,
    SourceUnavailable,
    too_many,
)
from raglan_ingester.sources.selection import Selection

_MAX_DEPTH: Final = 64
_LIST_S: Final = 1800.0
_RACY_NS: Final = 2_000_000_000
"""A file may change again within one tick of the file system's clock, FAT's being the longest."""
_GONE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
"""A folder was deleted or replaced, by a link at worst, since the one above it was listed."""
_FOLDER_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class FolderReader:
    """Lists and reads files below a folder.

    Args:
        settings: of the source.
        path: the folder; it may be a link itself.
        max_bytes: of one file.
        selection: of files; None for those of known formats.
    """

    def __init__(
        self,
        settings: SourceSettings,
        path: Path,
        max_bytes: int,
        selection: Selection | None = None,
    ) -> None:
        self._settings = settings
        self._path = path
        self._max_bytes = max_bytes
        self._selection = selection or Selection(settings)
        self._stop = threading.Event()

    async def list_entries(self, cursor: str, skipped: Skipped) -> Listing | None:
        """List the files, as `Reader.list_entries` does; a folder has no cursor."""
        return await asyncio.to_thread(self._list, skipped)

    async def read(self, entry: Entry, former: str) -> Content | None:
        """Read a file, as `Reader.read` does."""
        data = await asyncio.to_thread(self._read, entry.key)
        if data is None:
            return None
        name = entry.key.rpartition("/")[2]
        return Content(data, filename=name, metadata={"path": entry.key})

    async def close(self) -> None:
        """Make a listing that still runs in its thread end."""
        self._stop.set()

    def _list(self, skipped: Skipped) -> Listing:
        until = time.monotonic() + _LIST_S
        entries: list[Entry] = []
        folders = [""]
        unread: dict[str, str] = {}
        with self._root() as root:
            while folders:
                folder = folders.pop()
                try:
                    with self._below(root, folder) as opened, os.scandir(opened) as found:
                        for each in found:
                            self._check_time(until)
                            self._take(folder, each, entries, folders, skipped)
                except OSError as error:
                    if not folder:
                        raise self._unavailable(error) from None
                    if error.errno not in _GONE:
                        unread[f"{folder}/"] = (
                            f"The folder {shortened(folder)} cannot be read: {error.strerror}."
                        )
        return Listing(entries, unread=unread)

    def _take(
        self,
        folder: str,
        found: os.DirEntry[str],
        entries: list[Entry],
        folders: list[str],
        skipped: Skipped,
    ) -> None:
        path = f"{folder}/{found.name}" if folder else found.name
        if found.is_symlink():
            skipped.add(f"{shortened(path)} is a symbolic link.")
        elif found.is_dir(follow_symlinks=False):
            if path.count("/") >= _MAX_DEPTH:
                skipped.add(f"{shortened(path)} is nested deeper than {_MAX_DEPTH} folders.")
            elif self._selection.takes_folder(f"{path}/"):
                folders.append(path)
        elif found.is_file(follow_symlinks=False) and self._selection.takes(path):
            try:
                about = found.stat(follow_symlinks=False)
            except FileNotFoundError:
                return
            entries.append(Entry(path, version_of(about)))
        if max(len(entries), len(folders)) > self._settings.max_documents:
            raise too_many(self._settings.name, self._settings.max_documents)

    def _read(self, path: str) -> bytes | None:
        folder, _, name = path.rpartition("/")
        try:
            with self._root() as root, self._below(root, folder) as opened:
                file = os.open(name, _FILE_FLAGS, dir_fd=opened)
                with os.fdopen(file, "rb") as stream:
                    about = os.fstat(file)
                    if not stat.S_ISREG(about.st_mode):
                        return None
                    if about.st_size > self._max_bytes:
                        raise SkippedDocumentError(
                            f"{shortened(path)} has {about.st_size:,} bytes; the limit is "
                            f"{self._max_bytes:,} (RAGLAN_INGESTER_MAX_DOCUMENT_BYTES)."
                        )
                    data = stream.read(self._max_bytes)
                    after = os.fstat(file)
                    if (after.st_mtime_ns, after.st_size, len(data)) != (
                        about.st_mtime_ns,
                        about.st_size,
                        about.st_size,
                    ):
                        raise SkippedDocumentError(
                            f"{shortened(path)} changed while it was read; the next sync reads it."
                        )
                    return data
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise SkippedDocumentError(f"{shortened(path)}: {error.strerror}.") from None

    @contextmanager
    def _root(self) -> Iterator[int]:
        try:
            root = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise self._unavailable(error) from None
        try:
            yield root
        finally:
            os.close(root)

    @contextmanager
    def _below(self, root: int, folder: str) -> Iterator[int]:
        """Open a folder step by step, so that no part of its path can be a link."""
        opened = os.dup(root)
        try:
            for part in folder.split("/") if folder else ():
                following = os.open(part, _FOLDER_FLAGS, dir_fd=opened)
                os.close(opened)
                opened = following
            yield opened
        finally:
            os.close(opened)

    def _check_time(self, until: float) -> None:
        if self._stop.is_set() or time.monotonic() > until:
            raise SourceUnavailable(
                f"The folder {self._path} could not be listed within {_LIST_S:g} s."
            )

    def _unavailable(self, error: OSError) -> SourceUnavailable:
        return SourceUnavailable(f"The folder {self._path} cannot be read: {error.strerror}.")


def version_of(about: os.stat_result) -> str:
    """Return what tells a file's versions apart; empty while a change may still go unseen."""
    if time.time_ns() - about.st_mtime_ns < _RACY_NS:
        return ""
    return f"{about.st_mtime_ns}.{about.st_ctime_ns}.{about.st_size}.{about.st_ino}"
