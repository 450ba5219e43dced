"""The folder of a backup: parts with records, and a manifest that says that all of it is there.

DIR/part-00001      records, each after its length in four bytes, big-endian
DIR/progress.json   while the backup is made: what is whole so far, and where it goes on
DIR/manifest.json   written last, with the size and the SHA-256 of every part
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Final

from raglan.v1 import backup_pb2

from raglan_cli.failure import Failure

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
_PROGRESS: Final = "progress.json"
_LOCK: Final = ".lock"
_PART_BYTES: Final = 64 * 1024 * 1024
"""A part that has reached it is closed at the end of its unit."""
_MAX_RECORD_BYTES: Final = 64 * 1024 * 1024
_READ_BYTES: Final = 1024 * 1024
_CHECKSUM: Final = "sha256"


@dataclass(frozen=True, slots=True)
class Part:
    """A file of a backup."""

    name: str
    bytes: int
    sha256: str


@dataclass(slots=True)
class Contents:
    """Contents of a backup, whole or so far; the fields of both JSON files."""

    id: str
    began: str
    format: int = FORMAT
    ended: str = ""
    raglan: str = ""
    """Version of the ingester that made it."""
    cursor: str = ""
    """Where it goes on."""
    units: int = 0
    documents: int = 0
    chunks: int = 0
    jobs: int = 0
    incomplete: int = 0
    collections: list[str] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    """Collections whose index could not be copied, each with the reason."""
    parts: list[Part] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        """Size of all parts."""
        return sum(part.bytes for part in self.parts)


class BackupWriter:
    """Writes units to a folder; one that a crash cut short is taken up at the last whole unit."""

    def __init__(self, folder: Path) -> None:
        """Raises Failure when the folder holds something else, OSError when it cannot be used."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        _progress_in(folder)
        # A file, because network file systems lock no folders.
        self._lock = (folder / _LOCK).open("a")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.contents = _progress_in(folder)
            self.is_resumed = self.contents.units > 0
            self._file, self._hash = self._reopened()
        except BlockingIOError:
            self._lock.close()
            raise Failure(f"Another `raglan backup` writes to {folder}.") from None
        except BaseException:
            self._lock.close()
            raise
        self._unit_hash = self._hash.copy()

    def close(self) -> None:
        """Let another process have the folder."""
        self._file.close()
        (self._folder / _LOCK).unlink(missing_ok=True)
        self._lock.close()

    def begin_unit(self) -> None:
        """Forget what was written of a unit that did not end."""
        self._file.seek(self._part.bytes)
        self._file.truncate()
        self._unit_hash = self._hash.copy()

    def write(self, record: backup_pb2.BackupRecord) -> None:
        """Append a record of the unit."""
        data = record.SerializeToString()
        framed = len(data).to_bytes(4, "big") + data
        self._unit_hash.update(framed)
        self._file.write(framed)
        if record.HasField("header"):
            self.contents.raglan = record.header.version
            self.contents.collections = sorted(each.name for each in record.header.collections)
            self.contents.unreadable = dict(record.header.unreadable)

    def end_unit(self, end: backup_pb2.BackupEnd) -> None:
        """Make the unit durable: from now on a crash does not lose it."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._hash = self._unit_hash
        held = self.contents
        held.parts[-1] = Part(self._part.name, self._file.tell(), self._hash.hexdigest())
        held.cursor = end.cursor
        held.units += 1
        held.documents += end.documents
        held.chunks += end.chunks
        held.jobs += end.jobs
        held.incomplete += end.incomplete
        if self._part.bytes >= _PART_BYTES and end.cursor:
            self._file.close()
            held.parts.append(_empty_part(len(held.parts) + 1))
            self._file, self._hash = self._reopened()
        self._unit_hash = self._hash.copy()
        _write_json(self._folder, _PROGRESS, held)

    @property
    def is_whole(self) -> bool:
        """True once the last unit is written."""
        return self.contents.units > 0 and not self.contents.cursor

    def finish(self) -> Contents:
        """Write the manifest."""
        self.contents.ended = _now()
        _write_json(self._folder, MANIFEST, self.contents)
        (self._folder / _PROGRESS).unlink()
        return self.contents

    @property
    def _part(self) -> Part:
        return self.contents.parts[-1]

    def _reopened(self) -> tuple[BinaryIO, Any]:
        """The open part, and the hash of what is whole of it."""
        part = self._part
        path = self._folder / part.name
        path.touch()
        file = path.open("r+b")
        hash_ = hashlib.sha256()
        left = part.bytes
        while left and (data := file.read(min(left, _READ_BYTES))):
            hash_.update(data)
            left -= len(data)
        if left or hash_.hexdigest() != part.sha256:
            file.close()
            raise Failure(
                f"{path} is not as the backup left it, so that it cannot go on; delete "
                f"{self._folder} and begin anew."
            )
        return file, hash_


class UnitReader:
    """Reads the units of a whole backup, one after the other."""

    def __init__(self, folder: Path, contents: Contents) -> None:
        self._folder = folder
        self._parts = contents.parts
        self._at = (0, 0)
        """Part, and offset within it, of the unit that `records` yields."""
        self._next: tuple[int, int] | None = None
        """Where the following unit begins, once `records` has come to the end of this one."""

    def records(self) -> Iterator[backup_pb2.BackupRecord]:
        """Yield the records of the unit, as often as it is called.

        Raises:
            Failure: what is there is not a backup's.
        """
        number, offset = self._at
        path = self._folder / self._parts[number].name
        with path.open("rb") as file:
            file.seek(offset)
            while True:
                record = _read(file, path)
                yield record
                if record.HasField("end"):
                    break
            is_last = file.tell() == self._parts[number].bytes
            self._next = (number + 1, 0) if is_last else (number, file.tell())

    def advance(self) -> None:
        """Go on to the next unit."""
        while self._next is None:
            for _ in self.records():
                pass
        self._at, self._next = self._next, None


def verify(folder: Path) -> Contents:
    """Read the manifest and check every part against it.

    Raises:
        Failure: there is no whole backup, it is damaged, or of a newer version.
    """
    contents = _manifest_in(folder)
    for part in contents.parts:
        path = folder / part.name
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
                size = file.tell()
        except OSError as error:
            raise Failure(f"{path} cannot be read: {error.strerror}.") from None
        if (size, found) != (part.bytes, part.sha256):
            raise Failure(
                f"{path} does not match its checksum in {MANIFEST}; the backup is damaged, and "
                "nothing was changed."
            )
    return contents


def _manifest_in(folder: Path) -> Contents:
    path = folder / MANIFEST
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        if (folder / _PROGRESS).exists():
            raise Failure(
                f"The backup in {folder} was cut short; finish it with: raglan backup {folder}"
            ) from None
        raise Failure(f"{folder} holds no backup: there is no {MANIFEST}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"{path} cannot be read: {error}.") from None
    return _contents(path, text)


def _progress_in(folder: Path) -> Contents:
    """What a backup in this folder has got so far. Raises Failure when there is something else."""
    if (folder / MANIFEST).exists():
        ended = _manifest_in(folder).ended
        raise Failure(f"{folder} holds a whole backup of {ended}; choose another folder.")
    path = folder / _PROGRESS
    if path.exists():
        return _contents(path, path.read_text(encoding="utf-8"))
    # What a crash before the end of the first unit left is begun anew.
    ours = {_empty_part(1).name, f".{_PROGRESS}", _LOCK, "lost+found"}
    others = {entry.name for entry in folder.iterdir()} - ours
    if others:
        raise Failure(f"{folder} holds other files ({min(others)}); choose an empty folder.")
    return Contents(secrets.token_hex(16), _now(), parts=[_empty_part(1)])


def _contents(path: Path, text: str) -> Contents:
    try:
        held = json.loads(text)
        checksum = held.pop(_CHECKSUM)
        if (found := int(held["format"])) > FORMAT:
            raise Failure(
                f"{path} was made by a newer version of Raglan (format {found}; this one reads "
                f"up to {FORMAT}): use that version."
            )
        if checksum != _checksum(held):
            raise ValueError
        return Contents(**held | {"parts": [Part(**part) for part in held["parts"]]})
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Failure(f"{path} is damaged, or not one of a backup.") from None


def _write_json(folder: Path, name: str, contents: Contents) -> None:
    """Replace a file in one step, durably."""
    held = asdict(contents)
    half = folder / f".{name}"
    with half.open("w", encoding="utf-8") as file:
        json.dump(held | {_CHECKSUM: _checksum(held)}, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    half.replace(folder / name)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _checksum(held: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(held, sort_keys=True).encode()).hexdigest()


def _read(file: BinaryIO, path: Path) -> backup_pb2.BackupRecord:
    size = int.from_bytes(file.read(4), "big")
    data = file.read(size) if 0 < size <= _MAX_RECORD_BYTES else b""
    if not data or len(data) != size:
        raise Failure(f"{path} ends in the middle of a record; the backup is damaged.")
    return backup_pb2.BackupRecord.FromString(data)


def _empty_part(number: int) -> Part:
    return Part(f"part-{number:05}", 0, hashlib.sha256().hexdigest())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
