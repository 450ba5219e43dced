"""A pool of parser processes, from the side that must survive them."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from raglan_ingester.chunking import Sizes
from raglan_ingester.parse_worker import OUT_OF_MEMORY
from raglan_ingester.parsers.parsed import Unparsable

_DOCUMENTS_A_WORKER: Final = 2000
"""After so many a worker is replaced: libraries leak."""
_ENVIRONMENT: Final = {
    "LANG": "C.UTF-8",
    "PATH": "/usr/bin:/bin",
    # Several workers share the cores; a thread pool in each gains nothing.
    "TOKENIZERS_PARALLELISM": "false",
}


@dataclass(frozen=True, slots=True)
class ParseRequest:
    """A document to parse and cut."""

    path: Path
    filename: str
    media_type: str
    sizes: Sizes
    title: str = ""
    """As submitted; empty takes what the document says of itself."""
    tokenizer: Path | None = None
    """Of the embedding model (tokenizer.json); None measures chunks in characters."""


@dataclass(frozen=True, slots=True)
class CutChunk:
    """A chunk of a document: `text[start:end]` of its text."""

    start: int
    end: int
    heading_path: tuple[str, ...] = ()
    page: int = 0
    """The page on which it begins, from 1; 0 where the format has no pages."""
    structure: bytes = b""
    """Of the chunk; see `raglan.blocks.to_bytes`."""


@dataclass(frozen=True, slots=True)
class CutDocument:
    """A document's text and structure, and the chunks it is cut into."""

    title: str
    text: str
    chunks: list[CutChunk]
    language: str = ""
    """ISO 639-1; empty where it is unknown."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """Metadata in the document itself."""
    warnings: list[str] = field(default_factory=list)
    """Sentences for the document's owner."""
    structure: bytes = b""
    """Of the whole text; see `raglan.blocks.to_bytes`."""


class Parser(Protocol):
    async def parse(self, request: ParseRequest) -> CutDocument:
        """Raises Unparsable, with a sentence for the document's owner."""
        ...

    async def close(self) -> None: ...


class ParserPool:
    """Parses in `workers` processes without network, each limited in memory and CPU time."""

    def __init__(self, *, workers: int, memory_bytes: int, cpu_s: int, wall_s: float) -> None:
        self._memory_bytes = memory_bytes
        self._cpu_s = cpu_s
        self._wall_s = wall_s
        self._free: asyncio.Queue[_Worker | None] = asyncio.Queue(workers)
        self._all: set[_Worker] = set()
        for _ in range(workers):
            self._free.put_nowait(None)

    async def parse(self, request: ParseRequest) -> CutDocument:
        worker = await self._free.get()
        reusable: _Worker | None = None
        try:
            worker = worker or await self._start()
            reply = await self._ask(worker, request)
            if worker.documents < _DOCUMENTS_A_WORKER:
                reusable = worker
        finally:
            # The next document may start a worker while this one is being buried.
            self._free.put_nowait(reusable)
            if worker is not None and reusable is None:
                await self._stop(worker)
        if isinstance(reply, Unparsable):
            raise reply
        return reply

    async def close(self) -> None:
        for worker in list(self._all):
            await self._stop(worker)

    async def _ask(self, worker: _Worker, request: ParseRequest) -> CutDocument | Unparsable:
        """What the worker says of the document; raises Unparsable when that was its end."""
        try:
            async with asyncio.timeout(self._wall_s):
                return await worker.ask(request)
        except TimeoutError:
            raise Unparsable(
                f"The document took more than {self._wall_s:g} s to parse "
                "(RAGLAN_INGESTER_PARSE_WALL_S)."
            ) from None
        except (asyncio.IncompleteReadError, ConnectionError):
            raise Unparsable(self._why(await worker.exit_status())) from None

    def _why(self, status: int) -> str:
        # Native libraries abort where an allocation fails.
        if status in (OUT_OF_MEMORY, -signal.SIGABRT):
            return (
                f"The document needed more than {self._memory_bytes / 2**20:,.0f} MiB of memory "
                "to parse (RAGLAN_INGESTER_PARSE_MEMORY_BYTES)."
            )
        if status == -signal.SIGXCPU:
            return (
                f"The document took more than {self._cpu_s} s of processor time to parse "
                "(RAGLAN_INGESTER_PARSE_CPU_S)."
            )
        return f"The document made its parser crash (signal {-status}); it is broken."

    async def _start(self) -> _Worker:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-I", "-B", "-m", "raglan_ingester.parse_worker"),
            *(str(self._memory_bytes), str(self._cpu_s)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=_ENVIRONMENT,
            # Ctrl-C in a terminal is for us to act on.
            start_new_session=True,
        )
        worker = _Worker(process)
        self._all.add(worker)
        return worker

    async def _stop(self, worker: _Worker) -> None:
        self._all.discard(worker)
        await worker.kill()


class _Worker:
    """One parser process and the two ends of its pipes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.documents = 0

    async def ask(self, request: ParseRequest) -> CutDocument | Unparsable:
        self.documents += 1
        body = json.dumps(
            {
                "path": str(request.path),
                "filename": request.filename,
                "media_type": request.media_type,
                "title": request.title,
                "max_chars": request.sizes.max_chars,
                "overlap_chars": request.sizes.overlap_chars,
                "max_tokens": request.sizes.max_tokens,
                "max_chunks": request.sizes.max_chunks,
                "tokenizer": str(request.tokenizer or ""),
            }
        ).encode()
        requests, replies = self._process.stdin, self._process.stdout
        assert requests is not None
        assert replies is not None
        requests.write(len(body).to_bytes(4, "big") + body)
        await requests.drain()
        length = int.from_bytes(await replies.readexactly(4), "big")
        reply = await replies.readexactly(length)
        return await asyncio.to_thread(_reply_of, reply)

    async def exit_status(self) -> int:
        """How the process ended; negative is the signal that ended it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(5):
                return await self._process.wait()
        return 0

    async def kill(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()


def _reply_of(body: bytes) -> CutDocument | Unparsable:
    reply = json.loads(body)
    if "error" in reply:
        return Unparsable(str(reply["error"]))
    return CutDocument(
        title=reply["title"],
        text=reply["text"],
        chunks=[
            CutChunk(start, end, tuple(path), page, base64.b64decode(structure))
            for start, end, path, page, structure in reply["chunks"]
        ],
        language=reply["language"],
        metadata=reply["metadata"],
        warnings=reply["warnings"],
        structure=base64.b64decode(reply["structure"]),
    )
