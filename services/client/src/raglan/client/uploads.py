"""Files of an upload: read piece by piece, outside of the event loop, with progress."""

from __future__ import annotations

import asyncio
import json
import mimetypes
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self, cast

import httpx

File = str | Path | tuple[str, bytes | IO[bytes]]
"""A path, or a name with its content: bytes, or a file that is open for reading and can seek."""

OnProgress = Callable[[int, int], object]
"""Called with the bytes that were sent so far, and those of the whole request."""

_PIECE_BYTES: Final = 256 * 1024


class Upload:
    """The body of one multipart request. Closes the files that it opens."""

    def __init__(
        self,
        url: httpx.URL,
        files: Sequence[File],
        metadata: Mapping[str, Any] | None,
        access: Sequence[str] | None,
        on_progress: OnProgress | None,
    ) -> None:
        if not files:
            raise ValueError("files is empty; give one file at least.")
        self._opened = ExitStack()
        try:
            parts = [("files", self._part(file)) for file in files]
            data = {"metadata": json.dumps(dict(metadata))} if metadata else {}
            if access is not None:
                data["access"] = json.dumps(list(access))
            request = httpx.Request("POST", url, files=parts, data=data)
        except BaseException:
            self._opened.close()
            raise
        self.headers = {
            name: request.headers[name]
            for name in ("Content-Type", "Content-Length", "Transfer-Encoding")
            if name in request.headers
        }
        self._total = int(request.headers.get("Content-Length", 0))
        self._stream = cast(httpx.SyncByteStream, request.stream)
        self._on_progress = on_progress or (lambda sent, total: None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._opened.close()

    def _part(self, file: File) -> tuple[str, bytes | IO[bytes], str]:
        if isinstance(file, tuple):
            name, content = file
        else:
            path = Path(file)
            name, content = path.name, self._opened.enter_context(path.open("rb"))
        return name, content, mimetypes.guess_type(name)[0] or "application/octet-stream"

    def pieces(self) -> Iterator[bytes]:
        """The body, from its beginning."""
        sent = 0
        for piece in self._read():
            yield piece
            sent += len(piece)
            self._on_progress(sent, self._total)

    async def apieces(self) -> AsyncIterator[bytes]:
        """The body, from its beginning; files are read in a thread."""
        sent, pieces = 0, self._read()
        while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
            yield piece
            sent += len(piece)
            self._on_progress(sent, self._total)

    def _read(self) -> Iterator[bytes]:
        held = bytearray()
        for piece in self._stream:
            held += piece
            if len(held) >= _PIECE_BYTES:
                yield bytes(held)
                held.clear()
        yield bytes(held)
