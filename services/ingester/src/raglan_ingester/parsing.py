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

import structlog
from raglan.chunking_strategy import STRUCTURE

from raglan_ingester.chunking import Sizes
from raglan_ingester.confinement import LANDLOCK
from raglan_ingester.parse_worker import OUT_OF_MEMORY
from raglan_ingester.parsers.parsed import Unparsable

log: Final = structlog.get_logger()

_DOCUMENTS_A_WORKER: Final = 2000
"""After so many a worker is replaced: libraries leak."""
_START_S: Final = 60.0
_PIECE_BYTES: Final = 1024 * 1024
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
    strategy: str = STRUCTURE
    title: str = ""
    """Submitted title; empty selects the document's own."""
    tokenizer: Path | None = None
    """Of the embedding model (tokenizer.json); None measures chunks in characters."""
    cuts: tuple[int, ...] = ()
    """Offsets with which a chunk must begin, besides those that the document has."""
    units: bool = False
    """True if the units that chunks are made of are returned in place of chunks."""


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
    metadata: dict[str, Any] = field(default_factory=dict)
    """Besides that of the document."""
    section: int | None = None
    """Number of its section within the document; None where it has none."""


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
    """Parses and cuts documents."""

    async def parse(self, request: ParseRequest) -> CutDocument:
        """Raises Unparsable, with a sentence for the document's owner."""
        ...

    async def close(self) -> None:
        """Stop the parser's processes."""
        ...


class ParserPool:
    """Parses in `workers` processes, each confined, and limited in memory and CPU time."""

    def __init__(
        self,
        *,
        workers: int,
        memory_bytes: int,
        cpu_s: int,
        wall_s: float,
        readable: tuple[Path, ...] = (),
    ) -> None:
        """`readable`: folders that the processes may read, where tokenizers lie."""
        self.confinement: list[str] = []
        """By what the processes are confined (`raglan_ingester.confinement`), once one runs."""
        self._readable = readable
        self._memory_bytes = memory_bytes
        self._cpu_s = cpu_s
        self._wall_s = wall_s
        self._free: asyncio.Queue[_Worker | None] = asyncio.Queue(workers)
        self._all: set[_Worker] = set()
        for _ in range(workers):
            self._free.put_nowait(None)

    async def open(self) -> None:
        """Start the first process, to know by what it is confined. Documents tell if it cannot."""
        worker = await self._free.get()
        try:
            worker = worker or await self._start()
            async with asyncio.timeout(_START_S):
                self.confinement = await worker.confinement()
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            log.warning("no parser process", reason=type(error).__name__)
        finally:
            self._free.put_nowait(worker)
        if LANDLOCK not in self.confinement:
            log.warning("parsers can read this user's files", confinement=self.confinement)

    async def parse(self, request: ParseRequest) -> CutDocument:
        """Parse a document in a free process; raises Unparsable."""
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
        """Stop all processes."""
        for worker in list(self._all):
            await self._stop(worker)

    async def _ask(self, worker: _Worker, request: ParseRequest) -> CutDocument | Unparsable:
        """Send the document to the worker and return its reply; Unparsable if the worker died."""
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
            *(str(self._memory_bytes), str(self._cpu_s), *map(str, self._readable)),
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
        self._confinement: list[str] | None = None
        self.documents = 0

    async def ask(self, request: ParseRequest) -> CutDocument | Unparsable:
        self.documents += 1
        await self.confinement()
        # The process may read no file of ours, so it is given the bytes.
        data = await asyncio.to_thread(_read, request.path)
        body = json.dumps(
            {
                "size": len(data),
                "filename": request.filename,
                "media_type": request.media_type,
                "title": request.title,
                "strategy": request.strategy,
                "max_chars": request.sizes.max_chars,
                "overlap_chars": request.sizes.overlap_chars,
                "max_tokens": request.sizes.max_tokens,
                "max_chunks": request.sizes.max_chunks,
                "tokenizer": str(request.tokenizer or ""),
                "cuts": request.cuts,
                "units": request.units,
            }
        ).encode()
        requests = self._process.stdin
        assert requests is not None
        requests.write(len(body).to_bytes(4, "big") + body)
        for start in range(0, len(data), _PIECE_BYTES):
            requests.write(data[start : start + _PIECE_BYTES])
            await requests.drain()
        await requests.drain()
        return await asyncio.to_thread(reply_of, await self._reply())

    async def confinement(self) -> list[str]:
        """By what it is confined, as it says of itself first."""
        if self._confinement is None:
            said = json.loads(await self._reply())
            self._confinement = [str(each) for each in said["confinement"]]
        return self._confinement

    async def _reply(self) -> bytes:
        replies = self._process.stdout
        assert replies is not None
        length = int.from_bytes(await replies.readexactly(4), "big")
        return await replies.readexactly(length)

    async def exit_status(self) -> int:
        """Return the exit status; negative is the signal that ended the process."""
        with suppress(TimeoutError):
            async with asyncio.timeout(5):
                return await self._process.wait()
        return 0

    async def kill(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Unparsable(f"The document cannot be read: {error.strerror}.") from None


def reply_of(body: bytes) -> CutDocument | Unparsable:
    """Read a reply of a parser process."""
    reply = json.loads(body)
    if "error" in reply:
        return Unparsable(str(reply["error"]))
    return CutDocument(
        title=reply["title"],
        text=reply["text"],
        chunks=[
            CutChunk(start, end, tuple(path), page, base64.b64decode(structure), metadata, section)
            for start, end, path, page, structure, metadata, section in reply["chunks"]
        ],
        language=reply["language"],
        metadata=reply["metadata"],
        warnings=reply["warnings"],
        structure=base64.b64decode(reply["structure"]),
    )


def body_of(cut: CutDocument) -> bytes:
    """Return the reply of a parser process that `reply_of` reads as `cut`."""
    chunks = [
        [
            *(chunk.start, chunk.end, chunk.heading_path, chunk.page),
            *(_packed(chunk.structure), chunk.metadata, chunk.section),
        ]
        for chunk in cut.chunks
    ]
    reply = {
        "title": cut.title,
        "text": cut.text,
        "language": cut.language,
        "metadata": cut.metadata,
        "warnings": cut.warnings,
        "structure": _packed(cut.structure),
        "chunks": chunks,
    }
    return json.dumps(reply, ensure_ascii=False).encode()


def _packed(structure: bytes) -> str:
    return base64.b64encode(structure).decode()
