"""Uploaded files on the gateway's disk: they wait there for a vector store to take them.

A tenant's files are in a folder of its own. A file is a folder with its bytes and its record, which
is made under another name and renamed once it is complete. Gateways of one folder share the files.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

from raglan.errors import NotFound, StorageFull
from raglan.identifiers import shortened

from raglan_gateway import caller

FILE_ID: Final = re.compile(r"file-[0-9a-f]{24}")
_UNFINISHED_S: Final = 3_600.0
"""Age at which an upload that never ended is removed."""
_COPIED_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class StoredFile:
    """Record of a file."""

    id: str
    filename: str
    media_type: str
    purpose: str
    size_bytes: int
    created_at: int
    """Seconds since 1970, like `expires_at`."""
    expires_at: int | None = None
    vector_stores: list[str] = field(default_factory=list)
    """Vector stores that took it."""
    uploader: str = ""
    """Id of the caller who uploaded it."""

    @property
    def is_expired(self) -> bool:
        """Return whether its time is over."""
        return self.expires_at is not None and self.expires_at <= time.time()

    @property
    def is_visible(self) -> bool:
        """Return whether the current caller may see it.

        A file is of no collection, and may hold what belongs into one that a key does not allow: a
        key with collections sees its own uploads.
        """
        who = caller.current()
        return who.collections is None or self.uploader == who.id


class FileStore:
    """Files by tenant. Every method blocks on the disk: call it in a thread, with its context.

    Args:
        folder: made when the first file comes.
        max_bytes: of all files of one tenant.
        max_files: of one tenant.
    """

    def __init__(self, folder: Path, *, max_bytes: int, max_files: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._max_files = max_files

    def add(
        self,
        tenant: str,
        source: BinaryIO,
        *,
        filename: str,
        media_type: str,
        purpose: str,
        lasts_s: int | None = None,
    ) -> StoredFile:
        """Keep the bytes of `source`, durably.

        Raises:
            StorageFull: the tenant's files would be too large or too many, or the disk is full.
        """
        id_ = f"file-{secrets.token_hex(12)}"
        folder = self._of(tenant)
        unfinished = folder / f".{id_}"
        try:
            unfinished.mkdir(parents=True, mode=0o700)
            left = self._room(tenant)
            with (unfinished / "data").open("wb") as target:
                size = 0
                while piece := source.read(_COPIED_BYTES):
                    size += len(piece)
                    if size > left:
                        raise StorageFull(
                            f"The file needs more than the {left} bytes that are left of "
                            f"{self._max_bytes}; delete files (RAGLAN_GATEWAY_MAX_FILES_MB)."
                        )
                    target.write(piece)
                target.flush()
                os.fsync(target.fileno())
            now = int(time.time())
            expires_at = now + lasts_s if lasts_s else None
            stored = StoredFile(
                id_,
                filename,
                media_type,
                purpose,
                size,
                now,
                expires_at,
                uploader=caller.current().id,
            )
            _write(unfinished / "file.json", stored)
            unfinished.rename(folder / id_)
        except OSError as error:
            raise StorageFull(
                f"The file cannot be kept: {error.strerror} (RAGLAN_GATEWAY_DATA_DIR)."
            ) from None
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        return stored

    def get(self, tenant: str, id_: str) -> StoredFile:
        """Return the record of a file.

        Raises:
            NotFound: there is none.
        """
        stored = _read(self._path(tenant, id_) / "file.json")
        if stored is None or stored.is_expired or not stored.is_visible:
            raise _unknown(id_)
        return stored

    def open(self, tenant: str, id_: str) -> BinaryIO:
        """Open the bytes of a file; close it.

        Raises:
            NotFound: there is none.
        """
        self.get(tenant, id_)
        try:
            return (self._path(tenant, id_) / "data").open("rb")
        except FileNotFoundError:
            raise _unknown(id_) from None

    def _all(self, tenant: str) -> list[StoredFile]:
        """Return a tenant's files; those whose time is over are removed."""
        found = []
        for path in self._entries(tenant):
            stored = _read(path / "file.json")
            if stored is None or stored.is_expired:
                shutil.rmtree(path, ignore_errors=True)
            else:
                found.append(stored)
        return found

    def list(self, tenant: str) -> list[StoredFile]:
        """Return the files that the caller may see, the newest first."""
        found = [each for each in self._all(tenant) if each.is_visible]
        return sorted(found, key=lambda each: (each.created_at, each.id), reverse=True)

    def attached(self, tenant: str, id_: str, vector_store: str) -> None:
        """Record that a vector store took a file."""
        stored = self.get(tenant, id_)
        if vector_store not in stored.vector_stores:
            stored.vector_stores.append(vector_store)
            _write(self._path(tenant, id_) / "file.json", stored)

    def delete(self, tenant: str, id_: str) -> None:
        """Delete a file."""
        self.get(tenant, id_)
        path = self._path(tenant, id_)
        try:
            path.rename(path.with_name(f".{id_}"))  # at once, for everybody
        except FileNotFoundError:
            raise _unknown(id_) from None
        shutil.rmtree(path.with_name(f".{id_}"), ignore_errors=True)

    def _room(self, tenant: str) -> int:
        """Return the bytes that a tenant may still add."""
        files = self._all(tenant)
        if len(files) >= self._max_files:
            raise StorageFull(
                f"There are {len(files)} files, of {self._max_files} at most; delete some "
                "(RAGLAN_GATEWAY_MAX_FILES)."
            )
        return max(0, self._max_bytes - sum(each.size_bytes for each in files))

    def _entries(self, tenant: str) -> Iterator[Path]:
        try:
            entries = list(self._of(tenant).iterdir())
        except FileNotFoundError:
            return
        for path in entries:
            if FILE_ID.fullmatch(path.name):
                yield path
            elif path.stat().st_mtime < time.time() - _UNFINISHED_S:
                shutil.rmtree(path, ignore_errors=True)

    def _path(self, tenant: str, id_: str) -> Path:
        if not FILE_ID.fullmatch(id_):
            raise _unknown(id_)
        return self._of(tenant) / id_

    def _of(self, tenant: str) -> Path:
        # A digest: whatever a tenant is called, it is the name of a folder.
        return self._folder / hashlib.sha256(tenant.encode()).hexdigest()[:32]


def _unknown(id_: str) -> NotFound:
    return NotFound(f"There is no file {shortened(id_)}.")


def _read(path: Path) -> StoredFile | None:
    try:
        return StoredFile(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _write(path: Path, stored: StoredFile) -> None:
    unfinished = path.with_name(f".{secrets.token_hex(4)}")
    unfinished.write_text(json.dumps(asdict(stored)), encoding="utf-8")
    unfinished.replace(path)
