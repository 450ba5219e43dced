"""The edge store's folders: which collections lie there, and changes that a crash cannot halve.

data_dir/.lock                     held by the process that uses the folder
data_dir/.revisions                above every revision that was given so far
data_dir/<name>/collection.json    the description, and which shard folder counts
data_dir/<name>/counts.json        what the shard holds; only while nothing was written after it
data_dir/<name>/.opening           how many openings of the shard have not ended
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
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from io import TextIOWrapper
from itertools import count
from pathlib import Path
from typing import Any, Final

import structlog
from raglan.disk import FULL_DISK
from raglan.errors import Conflict, Unavailable

from raglan_retriever.collection import Collection, NewerFormat
from raglan_retriever.stores.plans import Plan

log: Final = structlog.get_logger()

_DESCRIPTION: Final = "collection.json"
_COUNTS: Final = "counts.json"
_OPENING: Final = ".opening"

_SMALL_BYTES: Final = 8 * 1024 * 1024
"""Larger files are written to as chunks come in, before which free space is checked."""

_REVISIONS: Final = ".revisions"
_REVISIONS_A_START: Final = 2**32

_ERASABLE: Final = "erasable"
"""A file beside the shard's own: it holds text of points that were deleted or replaced."""


@dataclass(frozen=True, slots=True)
class Stored:
    """Content of `collection.json`."""

    collection: Collection
    shard: str
    plan: Plan | None = None
    """That its vector index was built with; None where there is none."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Counts and revision of a closed shard."""

    chunks: int
    documents: int
    unindexed_chunks: int
    revision: int = 0
    """0 where an earlier version of Raglan wrote them."""


class Folders:
    """Owns `root` from `open` to `close`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock: TextIOWrapper | None = None
        self._revisions = count(1)

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
        self._lock = lock
        with suppress(OSError):  # a full disk can still be read from
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
        self._clear()
        self._reserve_revisions()

    def close(self) -> None:
        """Unlock the folder."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def next_revision(self) -> int:
        """Return a revision above every earlier one, of any collection."""
        return next(self._revisions)

    def _reserve_revisions(self) -> None:
        """Begin above earlier revisions, by the file and by the clock: either may be set back."""
        try:
            stored = int((self._root / _REVISIONS).read_text())
        except (OSError, ValueError):
            stored = 0
        first = max(stored, time.time_ns() // 1_000)
        with suppress(OSError):  # a full disk can still be read from
            _write_json(self._root, _REVISIONS, first + _REVISIONS_A_START)
        self._revisions = count(first)

    def stored(self) -> Iterator[tuple[str, Stored | Conflict]]:
        """Yield each collection by name, with the reason where its description cannot be read."""
        for folder in sorted(self._root.iterdir()):
            if folder.name.startswith(".") or not folder.is_dir():
                continue
            path = folder / _DESCRIPTION
            try:
                yield folder.name, _stored(json.loads(path.read_text(encoding="utf-8")))
            except NewerFormat as error:
                yield folder.name, error
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                yield folder.name, Conflict(f"{path} cannot be read ({error})")

    def folder(self, name: str) -> Path:
        """Return the collection's folder."""
        return self._root / name

    def shard(self, name: str, shard: str) -> Path:
        """Return the folder of a shard."""
        return self._root / name / shard

    def is_erasable(self, stored: Stored) -> bool:
        """Return whether the shard may hold text of points that were deleted or replaced."""
        return (self.shard(stored.collection.name, stored.shard) / _ERASABLE).exists()

    def mark_erasable(self, stored: Stored) -> None:
        """Mark the shard, durably, as holding text to erase. A rewritten shard has no mark."""
        (self.shard(stored.collection.name, stored.shard) / _ERASABLE).touch()

    def counts(self, stored: Stored) -> Counts | None:
        """Return the counts that `write_counts` stored, unless the shard was written to since."""
        try:
            held = json.loads((self._root / stored.collection.name / _COUNTS).read_text())
            return Counts(**held["counts"]) if held["shard"] == stored.shard else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write_counts(self, stored: Stored, counts: Counts) -> bool:
        """Store the counts of a flushed shard; return False if they cannot be written."""
        try:
            folder = self._root / stored.collection.name
            _write_json(folder, _COUNTS, {"shard": stored.shard, "counts": asdict(counts)})
        except OSError:
            return False
        return True

    def forget_counts(self, name: str) -> None:
        """Remove the stored counts before the shard is written to."""
        (self._root / name / _COUNTS).unlink(missing_ok=True)
        _sync(self._root / name)

    def closed_at(self, name: str) -> float:
        """Return when its counts were written, in seconds since the epoch; 0 without counts."""
        try:
            return (self._root / name / _COUNTS).stat().st_mtime
        except OSError:
            return 0.0

    def openings(self, name: str) -> Path:
        """Return the path of the file that counts unfinished openings."""
        return self._root / name / _OPENING

    def begin_opening(self, name: str) -> int:
        """Count an opening and return how many began since the last one that ended."""
        path = self.openings(name)
        try:
            begun = int(path.read_text()) + 1
        except (OSError, ValueError):
            begun = 1
        with suppress(OSError):  # a full disk can still be read from
            path.write_text(str(begun))
        return begun

    def end_opening(self, name: str) -> None:
        """Note that the opening has ended, successfully or not."""
        with suppress(OSError):
            self.openings(name).unlink(missing_ok=True)

    def create(self, collection: Collection, make_shard: Callable[[Path], None]) -> Stored:
        """Create the collection's folder in one step."""
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
        """Return a name that no shard has."""
        return f"shard-{secrets.token_hex(4)}"

    def disk_bytes(self, name: str) -> int:
        """Return the allocated bytes of the collection; holes of sparse files do not count."""
        return _allocated(self._root / name)

    def payload_bytes(self, stored: Stored) -> int:
        """Return the allocated bytes of the texts and metadata of a collection's shard."""
        segments = self.shard(stored.collection.name, stored.shard) / "segments"
        return sum(map(_allocated, segments.glob("*/payload_storage")))

    def _clear(self) -> None:
        for folder in self._root.iterdir():
            if folder.name.startswith((".new-", ".old-")):
                log.warning("removing what a crash left", folder=folder.name)
                shutil.rmtree(folder, ignore_errors=True)
        for name, stored in self.stored():
            if isinstance(stored, Conflict):
                continue
            for folder in (self._root / name).iterdir():
                if folder.is_dir() and folder.name != stored.shard:
                    log.warning("removing what a crash left", folder=folder.name)
                    shutil.rmtree(folder, ignore_errors=True)


def _allocated(root: Path) -> int:
    total = 0
    for folder, _, files in os.walk(root):
        for file in files:
            try:
                total += (Path(folder) / file).stat().st_blocks * 512
            except FileNotFoundError:  # segments come and go
                continue
    return total


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


def allocate(folder: Path) -> None:
    """Give the small files of a shard their blocks, all of which opening it writes to.

    They are mapped: where one has a hole, as in a sparse copy, writing on a full disk would end the
    process.

    Raises:
        OSError: the disk is full. What else is wrong with a file, opening the shard tells.
    """
    for path in folder.rglob("*"):
        try:
            status = path.stat()
            if status.st_blocks * 512 < status.st_size <= _SMALL_BYTES:
                with path.open("r+b") as file:
                    os.posix_fallocate(file.fileno(), 0, status.st_size)
        except OSError as error:
            if error.errno in FULL_DISK:
                raise


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


def _stored(held: dict[str, Any]) -> Stored:
    # Descriptions without a plan are older than plans: what was built then has the first one.
    plan = held.get("plan", {})
    return Stored(
        Collection.from_json(held["collection"]),
        held["shard"],
        None if plan is None else Plan.from_json(plan),
    )


def _write(folder: Path, stored: Stored) -> None:
    held = {
        "collection": stored.collection.to_json(),
        "shard": stored.shard,
        "plan": stored.plan and stored.plan.to_json(),
    }
    _write_json(folder, _DESCRIPTION, held)


def _write_json(folder: Path, name: str, held: Any) -> None:
    """Replace a file in one step."""
    half = folder / f".{name}"
    with half.open("w", encoding="utf-8") as file:
        json.dump(held, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    half.replace(folder / name)
    _sync(folder)


def _sync(folder: Path) -> None:
    """Make renames within `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
