"""The edge store's folders: which collections lie there, and changes that a crash cannot halve.

data_dir/.lock                     held by the process that uses the folder
data_dir/<name>/collection.json    the description, and which shard folder counts
data_dir/<name>/<shard>/           a Qdrant Edge shard
data_dir/.new-<name>, .old-...     what a crash left half made or half removed
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import Any, Final

import structlog
from raglan.errors import Unavailable

from raglan_retriever.collection import Collection

log: Final = structlog.get_logger()

_DESCRIPTION: Final = "collection.json"


@dataclass(frozen=True, slots=True)
class Stored:
    """What `collection.json` holds."""

    collection: Collection
    shard: str


class Folders:
    """Owns `root` from `open` to `close`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock: TextIOWrapper | None = None

    def open(self) -> None:
        """Lock the folder and clear away what a crash left.

        Raises:
            Unavailable: another process holds the folder, or it cannot be written.
        """
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            lock = (self._root / ".lock").open("a+", encoding="ascii")
        except OSError as error:
            raise Unavailable(
                f"The folder {self._root} cannot be used: {error.strerror}. "
                "Set RAGLAN_RETRIEVER_DATA_DIR to one that can."
            ) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            lock.close()
            raise Unavailable(
                f"Another process (pid {holder}) holds the folder {self._root}; stop it, or set "
                "RAGLAN_RETRIEVER_DATA_DIR to another folder."
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        self._lock = lock
        self._clear()

    def close(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def stored(self) -> Iterator[Stored]:
        """Every collection, by name.

        Raises:
            Unavailable: a description cannot be read.
        """
        for folder in sorted(self._root.iterdir()):
            path = folder / _DESCRIPTION
            if folder.name.startswith(".") or not path.is_file():
                continue
            try:
                held = json.loads(path.read_text(encoding="utf-8"))
                yield Stored(Collection.from_json(held["collection"]), held["shard"])
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise Unavailable(
                    f"{path} cannot be read ({error}); restore it, or move the folder away."
                ) from None

    def shard(self, name: str, shard: str) -> Path:
        return self._root / name / shard

    def create(self, collection: Collection, make_shard: Callable[[Path], None]) -> Stored:
        """Make the collection's folder. It appears complete, or not at all."""
        half = self._root / f".new-{collection.name}"
        shutil.rmtree(half, ignore_errors=True)
        stored = Stored(collection, self.new_shard_name())
        make_shard(half / stored.shard)
        _write(half, stored)
        half.rename(self._root / collection.name)
        _sync(self._root)
        return stored

    def write(self, stored: Stored) -> None:
        """Replace the description, in one step."""
        _write(self._root / stored.collection.name, stored)

    def remove(self, name: str) -> None:
        """Remove the collection's folder; after a crash in between, `open` ends the work."""
        gone = self._root / f".old-{name}-{secrets.token_hex(4)}"
        (self._root / name).rename(gone)
        _sync(self._root)
        shutil.rmtree(gone, ignore_errors=True)

    @staticmethod
    def new_shard_name() -> str:
        return f"shard-{secrets.token_hex(4)}"

    def disk_bytes(self, name: str) -> int:
        """Bytes that the collection takes, in blocks: sparse files count for what they hold."""
        total = 0
        for folder, _, files in os.walk(self._root / name):
            for file in files:
                try:
                    total += (Path(folder) / file).stat().st_blocks * 512
                except FileNotFoundError:  # segments come and go
                    continue
        return total

    def _clear(self) -> None:
        for folder in self._root.iterdir():
            if folder.name.startswith((".new-", ".old-")):
                log.warning("removing what a crash left", folder=folder.name)
                shutil.rmtree(folder, ignore_errors=True)
        for stored in self.stored():
            for folder in (self._root / stored.collection.name).iterdir():
                if folder.is_dir() and folder.name != stored.shard:
                    log.warning("removing what a crash left", folder=folder.name)
                    shutil.rmtree(folder, ignore_errors=True)


def copy_sparse(source: str, target: str) -> None:
    """Copy a file, leaving its holes out: a fresh shard is 147 MB of them around 168 KB."""
    with Path(source).open("rb") as read, Path(target).open("wb") as write:
        size = os.fstat(read.fileno()).st_size
        os.truncate(write.fileno(), size)
        end = 0
        while end < size:
            try:
                start = os.lseek(read.fileno(), end, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:  # nothing but a hole up to the end
                    return
                raise
            end = os.lseek(read.fileno(), start, os.SEEK_HOLE)
            os.lseek(write.fileno(), start, os.SEEK_SET)
            os.lseek(read.fileno(), start, os.SEEK_SET)
            while start < end:
                start += os.sendfile(write.fileno(), read.fileno(), None, end - start)


def sync_files(folder: Path) -> None:
    """Wait until what was written to the files of `folder` is on the disk."""
    for parent, _, files in os.walk(folder):
        for file in files:
            try:
                descriptor = os.open(Path(parent) / file, os.O_RDONLY)
            except FileNotFoundError:  # files come and go
                continue
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _write(folder: Path, stored: Stored) -> None:
    held: dict[str, Any] = {"collection": stored.collection.to_json(), "shard": stored.shard}
    half = folder / f".{_DESCRIPTION}"
    with half.open("w", encoding="utf-8") as file:
        json.dump(held, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    half.replace(folder / _DESCRIPTION)
    _sync(folder)


def _sync(folder: Path) -> None:
    """Make renames within `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
