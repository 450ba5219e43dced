"""The documents' bytes, one file a content hash: the same bytes are stored once.

Several processes may share the folder. What one is receiving, and the blobs that it has taken in
but not yet named in the database, are in a folder of its own below `incoming`.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import secrets
import shutil
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from raglan.disk import Disk

_LOCK_PAUSE_S: Final = 0.01
_PIN: Final = "pin-"
_DOING: Final = "store an upload"


class BlobStore:
    """Files `ab/cdef...` under `root`, named by SHA-256, whole or not there at all.

    A blob is pinned from its commit until a row in the database names it, so that `purge` never
    takes one that was submitted again a moment ago. A lock on a file makes "pin and adopt" and
    "look for pins and rows, then remove" exclude each other, between processes too.
    """

    def __init__(self, root: Path, *, min_free_mb: int = 0) -> None:
        self._root = root
        self._disk = Disk(
            "The disk of the ingester's data folder (RAGLAN_INGESTER_DATA_DIR)",
            root,
            min_free_mb,
            "RAGLAN_INGESTER_MIN_FREE_MB",
            "Nothing of the upload was kept: free some space and send it again.",
        )
        self._own = root / "incoming" / "local"
        self._pins: Counter[str] = Counter()
        self._counting = threading.Lock()

    def open(self, worker: str) -> None:
        """Make the folders; remove what a process of this name left half received."""
        self._own = self._root / "incoming" / worker.replace("/", "_")
        shutil.rmtree(self._own, ignore_errors=True)
        self._own.mkdir(parents=True)

    def path(self, sha256: str) -> Path:
        """Return the path of a blob."""
        return self._root / sha256[:2] / sha256[2:]

    def writer(self) -> BlobWriter:
        """Create a writer of one blob."""
        return BlobWriter(self, self._own / secrets.token_hex(16), self._disk)

    async def unpin(self, hashes: Iterable[str]) -> None:
        """The rows that name these blobs are committed, or will never come."""
        await asyncio.to_thread(self._unpin, list(hashes))

    async def purge(
        self, hashes: Iterable[str], unnamed: Callable[[list[str]], Awaitable[list[str]]]
    ) -> int:
        """Remove those of `hashes` that are not pinned and that `unnamed` finds in no row.

        Returns:
            How many were removed.
        """
        wanted = sorted(set(hashes))
        if not wanted:
            return 0
        async with self._locked():
            # Pins first: one that is gone by now has its row committed.
            free = await asyncio.to_thread(self._unpinned, wanted)
            gone = await unnamed(free) if free else []
            return await asyncio.to_thread(self._remove, gone)

    def stored(self) -> Iterator[str]:
        """The hashes of all blobs there are."""
        for folder in sorted(self._root.glob("[0-9a-f][0-9a-f]")):
            yield from (folder.name + file.name for file in folder.iterdir())

    def forget_others(self, living: Collection[str]) -> None:
        """Remove what processes that no longer live were receiving, and their pins."""
        kept = {worker.replace("/", "_") for worker in living} | {self._own.name}
        for folder in (self._root / "incoming").iterdir():
            if folder.name not in kept:
                if folder.is_dir():
                    shutil.rmtree(folder, ignore_errors=True)
                else:
                    folder.unlink(missing_ok=True)

    def adopt(self, received: Path, sha256: str) -> None:
        """Pin the blob and move the received file into its place."""
        target = self.path(sha256)
        with self._counting, self._locked_in_thread():
            self._pins[sha256] += 1
            (self._own / f"{_PIN}{sha256}").touch()
            if target.exists():
                received.unlink()
            else:
                target.parent.mkdir(exist_ok=True)
                received.rename(target)

    def _unpin(self, hashes: list[str]) -> None:
        with self._counting:
            self._pins.subtract(hashes)
            self._pins = +self._pins
            for sha256 in set(hashes) - set(self._pins):
                (self._own / f"{_PIN}{sha256}").unlink(missing_ok=True)

    def _unpinned(self, hashes: list[str]) -> list[str]:
        folders = list((self._root / "incoming").iterdir())
        return [
            sha256
            for sha256 in hashes
            if not any((folder / f"{_PIN}{sha256}").exists() for folder in folders)
        ]

    def _remove(self, hashes: list[str]) -> int:
        for sha256 in hashes:
            self.path(sha256).unlink(missing_ok=True)
        return len(hashes)

    @contextmanager
    def _locked_in_thread(self) -> Iterator[None]:
        with self._root.with_suffix(".lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @asynccontextmanager
    async def _locked(self) -> AsyncIterator[None]:
        # Not in a thread: a caller that is cancelled there would leave the lock held.
        with self._root.with_suffix(".lock").open("a") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    await asyncio.sleep(_LOCK_PAUSE_S)
            yield


class Adopter(Protocol):
    """Where a file goes once it is whole."""

    def adopt(self, received: Path, sha256: str) -> None:
        """Move the file to its place."""
        ...


class BlobWriter:
    """Receives one document, off the loop: `write` pieces, then `commit` or `discard`.

    Both raise StorageFull where the disk has no space.
    """

    def __init__(self, store: Adopter, path: Path, disk: Disk) -> None:
        self._store = store
        self._disk = disk
        self._path = path
        self._file: BinaryIO | None = None
        self._hash = hashlib.sha256()
        self.size_bytes = 0

    async def write(self, piece: bytes) -> None:
        """Append bytes to the blob."""
        self.size_bytes += len(piece)
        await asyncio.to_thread(self._write, piece)

    async def commit(self) -> str:
        """Make the blob durable and pin it; returns its SHA-256 in hex."""
        return await asyncio.to_thread(self._commit)

    async def flushed(self) -> Path:
        """Return the path of what was written so far, for other processes to read."""
        return await asyncio.to_thread(self._flushed)

    async def discard(self) -> None:
        """Remove what was written, unless it was committed."""
        await asyncio.to_thread(self._discard)

    def _write(self, piece: bytes) -> None:
        self._disk.check(_DOING)
        with self._disk.writing(_DOING):
            if self._file is None:
                self._file = self._path.open("wb")
            self._hash.update(piece)
            self._file.write(piece)

    def _flushed(self) -> Path:
        self._write(b"")
        assert self._file is not None
        with self._disk.writing(_DOING):
            self._file.flush()
        return self._path

    def _commit(self) -> str:
        self._write(b"")
        assert self._file is not None
        sha256 = self._hash.hexdigest()
        with self._disk.writing(_DOING):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._store.adopt(self._path, sha256)
        return sha256

    def _discard(self) -> None:
        if self._file is not None:
            with suppress(OSError):  # what is buffered does not fit on a full disk
                self._file.close()
            self._path.unlink(missing_ok=True)
