"""The documents' bytes, one file a content hash: the same bytes are stored once."""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import BinaryIO


class BlobStore:
    """Files `ab/cdef...` under `root`, named by SHA-256, whole or not there at all.

    A blob is pinned from its commit until a row in the database names it, so that `purge` never
    takes one that was submitted again a moment ago.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._incoming = root / "incoming"
        self._pins: Counter[str] = Counter()
        self._files = threading.Lock()
        self._names = asyncio.Lock()

    def open(self) -> None:
        """Make the folders; remove what a crash left half received."""
        self._incoming.mkdir(parents=True, exist_ok=True)
        for leftover in self._incoming.iterdir():
            leftover.unlink(missing_ok=True)

    def path(self, sha256: str) -> Path:
        return self._root / sha256[:2] / sha256[2:]

    def writer(self) -> BlobWriter:
        return BlobWriter(self, self._incoming / secrets.token_hex(16))

    async def unpin(self, hashes: Iterable[str]) -> None:
        """The rows that name these blobs are committed, or will never come."""
        async with self._names:
            with self._files:
                self._pins.subtract(hashes)
                self._pins = +self._pins

    async def purge(
        self, hashes: Iterable[str], unnamed: Callable[[list[str]], Awaitable[list[str]]]
    ) -> None:
        """Remove those of `hashes` that `unnamed` finds in no row and that are not pinned."""
        async with self._names:
            gone = await unnamed(sorted(set(hashes)))
            await asyncio.to_thread(self._remove, gone)

    def adopt(self, received: Path, sha256: str) -> None:
        """Pin the blob and move the received file into its place."""
        target = self.path(sha256)
        with self._files:
            self._pins[sha256] += 1
            if target.exists():
                received.unlink()
            else:
                target.parent.mkdir(exist_ok=True)
                received.rename(target)

    def _remove(self, hashes: list[str]) -> None:
        with self._files:
            for sha256 in hashes:
                if sha256 not in self._pins:
                    self.path(sha256).unlink(missing_ok=True)


class BlobWriter:
    """Receives one document, off the loop: `write` pieces, then `commit` or `discard`."""

    def __init__(self, store: BlobStore, path: Path) -> None:
        self._store = store
        self._path = path
        self._file: BinaryIO | None = None
        self._hash = hashlib.sha256()
        self.size_bytes = 0

    async def write(self, piece: bytes) -> None:
        self.size_bytes += len(piece)
        await asyncio.to_thread(self._write, piece)

    async def commit(self) -> str:
        """Make the blob durable and pin it; returns its SHA-256 in hex."""
        return await asyncio.to_thread(self._commit)

    async def discard(self) -> None:
        await asyncio.to_thread(self._discard)

    def _write(self, piece: bytes) -> None:
        if self._file is None:
            self._file = self._path.open("wb")
        self._hash.update(piece)
        self._file.write(piece)

    def _commit(self) -> str:
        self._write(b"")
        assert self._file is not None
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        sha256 = self._hash.hexdigest()
        self._store.adopt(self._path, sha256)
        return sha256

    def _discard(self) -> None:
        if self._file is not None:
            self._file.close()
            self._path.unlink(missing_ok=True)
