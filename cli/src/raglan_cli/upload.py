"""Sending files to a collection, in bounded requests; each file fails alone."""

from __future__ import annotations

import io
import json
import mimetypes
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, Final

import httpx

from raglan_cli.client import Gateway, Refused, documents_path
from raglan_cli.files import SourceFile, identity_of, open_file
from raglan_cli.walk import cannot_read

MAX_REQUEST_BYTES: Final = 32 * 1024 * 1024
MAX_REQUEST_FILES: Final = 500

_ABOUT_A_FILE: Final = frozenset(
    {httpx.codes.UNPROCESSABLE_ENTITY, httpx.codes.REQUEST_ENTITY_TOO_LARGE}
)
"""Statuses that a single file of a request may be the cause of."""

_CHANGED: Final = "It changed while it was sent; ingest it again."


_REPLACED: Final = "Another file took its place after it was chosen; ingest it again."


class Unsendable(Exception):
    """One file of a request cannot be read as it was announced."""

    def __init__(self, source: SourceFile, reason: str) -> None:
        super().__init__(reason)
        self.source = source
        self.reason = reason


@dataclass(frozen=True, slots=True)
class AcceptedJob:
    """A job that the mesh works on, whatever becomes of the command."""

    id: str
    files: int


class Upload:
    """Sends files in bounded requests; a request refused for one file is repeated without it."""

    def __init__(
        self,
        gateway: Gateway,
        collection: str,
        on_read: Callable[[int], object],
        metadata: Mapping[str, Any],
        access: Sequence[str] | None = None,
    ) -> None:
        self.accepted: list[AcceptedJob] = []
        self.refused: list[tuple[str, str]] = []
        """(name, reason)."""
        self._gateway = gateway
        self._path = documents_path(collection)
        self._on_read = on_read
        self._form = {"metadata": json.dumps(metadata)} if metadata else {}
        if access:
            self._form["access"] = json.dumps(access)

    @property
    def job_ids(self) -> list[str]:
        """Of the accepted jobs."""
        return [job.id for job in self.accepted]

    def send_all(self, sources: Sequence[SourceFile]) -> None:
        """Send `sources` in their order."""
        for batch in batches(sources):
            self._send(batch)

    def _send(self, batch: Sequence[SourceFile]) -> None:
        waiting = list(batch)
        changed: list[SourceFile] = []
        while waiting:
            try:
                self.accepted.append(AcceptedJob(self._post(waiting), len(waiting)))
                break
            except Unsendable as problem:
                waiting.remove(problem.source)
                if problem.reason == _CHANGED and len(batch) > 1:
                    changed.append(problem.source)
                else:
                    self.refused.append((problem.source.name, problem.reason))
            except Refused as refused:
                if refused.http not in _ABOUT_A_FILE:
                    raise
                self._send_halves(waiting, refused.message)
                break
        # Alone there is less time for it to change again, as a log does.
        for source in changed:
            self._send([source])

    def _send_halves(self, batch: Sequence[SourceFile], reason: str) -> None:
        """Find the file at fault by halving, so that the others still arrive."""
        if len(batch) == 1:
            self.refused.append((batch[0].name, reason))
            return
        middle = len(batch) // 2
        self._send(batch[:middle])
        self._send(batch[middle:])

    def _post(self, batch: Sequence[SourceFile]) -> str:
        parts = [("files", (s.name, LazyFile(s, self._on_read), _type(s))) for s in batch]
        # Sending the same bytes again changes nothing, so the request to an overloaded gateway is
        # retried.
        reply = self._gateway.call_patiently("POST", self._path, files=parts, data=self._form)
        return str(reply["job_id"])


def batches(
    files: Sequence[SourceFile],
    *,
    max_bytes: int = MAX_REQUEST_BYTES,
    max_files: int = MAX_REQUEST_FILES,
) -> Iterator[list[SourceFile]]:
    """`files` in their order, in requests of bounded size; a file over the limit goes alone."""
    batch: list[SourceFile] = []
    size = 0
    for file in files:
        if batch and (size + file.size > max_bytes or len(batch) == max_files):
            yield batch
            batch, size = [], 0
        batch.append(file)
        size += file.size
    if batch:
        yield batch


class LazyFile(io.RawIOBase):
    """A file that httpx can stream: open only while it is read, `on_read` called for every byte.

    The request announces its length before it is sent, so a file that is not as long as it was then
    raises `Unsendable` instead of breaking the request for the others.
    """

    def __init__(self, file: SourceFile, on_read: Callable[[int], object]) -> None:
        super().__init__()
        self._file = file
        self._on_read = on_read
        self._open: IO[bytes] | None = None
        self._at_end = False
        self._read = 0
        self._size: int | None = None

    def tell(self) -> int:
        """Position 0, from where httpx reads."""
        return self._read

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """To the start again, or (without opening it) to the end, whose position is the size."""
        if whence == os.SEEK_END:
            self._size = self._size_now()
            return self._size
        self._release()
        self._at_end, self._read = False, 0
        return offset

    def read(self, size: int = -1) -> bytes:
        """The next bytes; the file is closed after the last.

        Raises:
            Unsendable: it cannot be read, or is not as long as `seek` reported.
        """
        if self._at_end:
            return b""
        try:
            if self._open is None:
                self._open = open_file(self._file.path)
                self._check_identity(os.fstat(self._open.fileno()))
            data = self._open.read(size)
        except OSError as error:
            raise Unsendable(self._file, cannot_read(error)) from None
        self._read += len(data)
        if self._size is not None and (
            self._read > self._size or (not data and self._read < self._size)
        ):
            raise Unsendable(self._file, _CHANGED)
        self._on_read(len(data))
        if not data:
            self._at_end = True
            self._release()
        return data

    def close(self) -> None:
        """Also in the middle of reading."""
        self._release()
        super().close()

    def _size_now(self) -> int:
        try:
            status = self._file.path.stat()
        except OSError as error:
            raise Unsendable(self._file, cannot_read(error)) from None
        self._check_identity(status)
        return status.st_size

    def _check_identity(self, status: os.stat_result) -> None:
        """A link to another file may stand in the file's place by now."""
        if identity_of(status) != self._file.identity:
            raise Unsendable(self._file, _REPLACED)

    def _release(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None


def _type(source: SourceFile) -> str:
    """The media type that the suffix stands for; the ingester decides by name and content."""
    return mimetypes.guess_type(source.name)[0] or "application/octet-stream"
