"""The units of a backup, one at a time; what is read next is in the cursor alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from importlib.metadata import version
from itertools import groupby
from typing import BinaryIO, Final, NamedTuple, Protocol, Self

import structlog
from raglan.chunk_ids import chunk_id
from raglan.errors import Conflict, InvalidInput, NotFound, Unavailable
from raglan.v1 import backup_pb2, retriever_pb2

from raglan_ingester.backup.rows import RowReader, Version, WholeDocument, fitting, to_record
from raglan_ingester.blobs import BlobStore
from raglan_ingester.documents import NAMES_ITS_BLOB, DocumentStore
from raglan_ingester.model import DocumentState, ItemState
from raglan_ingester.schema import SCHEMA

log: Final = structlog.get_logger()

FORMAT: Final = 1

_DOCUMENTS: Final = 64
_CHUNKS: Final = 512
_BYTES: Final = 8 * 1024 * 1024
"""Of a unit, submitted bytes; a larger document has one of its own."""
_ITEMS: Final = 500
_IDS: Final = 128
_PIECE_BYTES: Final = 1024 * 1024
_AGAIN_S: Final = 0.1

Record = backup_pb2.BackupRecord


class Index(Protocol):
    """The part of the index that a backup reads; every method raises RaglanError."""

    async def collections(self) -> Sequence[retriever_pb2.Collection]:
        """All collections; those that cannot be served have an `error`."""
        ...

    async def description(self, name: str) -> retriever_pb2.CollectionDescription:
        """The description of a collection."""
        ...

    async def chunks(
        self, collection: str, chunk_ids: Sequence[str]
    ) -> retriever_pb2.ExportChunksResponse:
        """Those of the chunks that exist."""
        ...


class Cursor(NamedTuple):
    """Where a unit begins: after the row with this key."""

    deployment: str
    stage: str
    first: str = ""
    second: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises InvalidInput."""
        try:
            return cls(*map(str, json.loads(text)))
        except (ValueError, TypeError):
            raise InvalidInput("The cursor is not one of a backup.") from None

    def __str__(self) -> str:
        return json.dumps(list(self))


class Exporter:
    """Reads units: the header, then jobs, then documents.

    Jobs come first, so that what is submitted later is either wholly there or not at all: a job
    that has not ended in the backup runs again after it is restored, and leaves documents alone
    that it finds ready.
    """

    def __init__(
        self, rows: RowReader, documents: DocumentStore, blobs: BlobStore, index: Index
    ) -> None:
        self._rows = rows
        self._documents = documents
        self._blobs = blobs
        self._index = index

    async def unit(self, cursor: str) -> AsyncGenerator[Record, None]:
        """Yield the records of the unit that begins at `cursor`; empty for the first one.

        Raises:
            Unavailable: a document changed meanwhile; the unit can be read again.
            Conflict: the cursor comes from another deployment.
        """
        deployment = await self._rows.deployment()
        if not cursor:
            yield await self._header(deployment)
            yield _end(Cursor(deployment, "jobs"))
            return
        at = Cursor.parse(cursor)
        if at.deployment != deployment:
            raise Conflict(
                "The backup was begun on another deployment; finish it there, or begin a new one "
                "in another folder."
            )
        read = self._jobs if at.stage == "jobs" else self._document_unit
        async for record in read(at):
            yield record

    async def _header(self, deployment: str) -> Record:
        header = backup_pb2.BackupHeader(
            format=FORMAT,
            version=version("raglan-ingester"),
            schema=SCHEMA.newest(),
            deployment=deployment,
        )
        for collection in await self._index.collections():
            if collection.error:
                header.unreadable[collection.name] = collection.error
                continue
            try:
                header.collections.append(await self._index.description(collection.name))
            except NotFound:
                continue
            except Conflict as error:
                header.unreadable[collection.name] = error.message
        return Record(header=header)

    async def _jobs(self, at: Cursor) -> AsyncIterator[Record]:
        items = await self._rows.items(at.first, int(at.second or -1), _ITEMS)
        hashes = [item.sha256 for item in items if ItemState(item.state) in NAMES_ITS_BLOB]
        needed = set(hashes) - set(await self._documents.unnamed_blobs(hashes))
        count = 0
        for job_id, of_job in groupby(items, key=lambda item: item.job_id):
            if job_id != at.first:
                rows = await self._rows.job(job_id)
                if not rows:  # forgotten meanwhile, with its items
                    continue
                count += 1
                for row in rows:
                    yield to_record(row)
            for item in of_job:
                blob = await self._open(item.sha256) if item.sha256 in needed else None
                if blob is not None:
                    async for piece in _pieces_of_file(blob, item.sha256):
                        yield piece
                yield to_record(item)
        following = Cursor(at.deployment, "documents")
        if len(items) == _ITEMS:
            following = Cursor(at.deployment, "jobs", items[-1].job_id, str(items[-1].ordinal))
        yield _end(following, jobs=count)

    async def _document_unit(self, at: Cursor) -> AsyncIterator[Record]:
        read = await self._rows.versions(at.first, at.second, _DOCUMENTS)
        versions = fitting(read, chunks=_CHUNKS, size_bytes=_BYTES)
        counts = _Counts()
        for collection, some in groupby(versions, key=lambda version: version.collection):
            async for record in self._index_of(collection, list(some), at, counts):
                yield record
        for each in versions:
            async for record in self._document(each, counts):
                yield record
        is_last = len(read) < _DOCUMENTS and len(versions) == len(read)
        last = versions[-1] if versions else None
        following = (
            None
            if is_last or last is None
            else Cursor(at.deployment, "documents", last.collection, last.id)
        )
        yield _end(
            following,
            documents=len(versions),
            chunks=counts.chunks,
            incomplete=len(counts.incomplete),
        )

    async def _index_of(
        self, collection: str, versions: Sequence[Version], at: Cursor, counts: _Counts
    ) -> AsyncIterator[Record]:
        """Yield the chunks of documents, after the collection's description where it begins."""
        ready = [version for version in versions if version.state == DocumentState.READY]
        expected = {
            chunk_id(version.id, fingerprint, ordinal): version
            for version in ready
            for fingerprint, chunks in {
                version.fingerprint: version.chunks,
                **version.earlier,
            }.items()
            for ordinal in range(chunks)
        }
        missing = dict(expected)
        try:
            if collection != at.first:
                yield Record(collection=await self._index.description(collection))
            ids = list(expected)
            while ids:
                reply = await self._index.chunks(collection, ids[:_IDS])
                if reply.found.chunks:
                    yield Record(chunks=reply.found)
                for chunk in reply.found.chunks:
                    missing.pop(chunk.chunk_id, None)
                ids = ids[max(1, reply.answered) :]
        except (NotFound, Conflict) as error:
            log.warning("an index cannot be copied", collection=collection, reason=error.message)
        counts.chunks += len(expected) - len(missing)
        counts.incomplete.update((version.collection, version.id) for version in missing.values())

    async def _document(self, read: Version, counts: _Counts) -> AsyncIterator[Record]:
        """Yield the rest of a document, whose chunks were read before."""
        blob = await self._open(read.sha256)
        try:
            held = await self._rows.document(read.collection, read.id)
            if held is None or held.version != read:
                raise Unavailable(
                    "A document changed while it was copied; ask for the unit again.",
                    retry_after_s=_AGAIN_S,
                )
            if blob is None:
                counts.incomplete.add((read.collection, read.id))
            else:
                async for piece in _pieces_of_file(blob, read.sha256):
                    yield piece
        finally:
            if blob is not None:
                blob.close()
        for record in _rows_of(held):
            yield record

    async def _open(self, sha256: str) -> BinaryIO | None:
        """Open a blob, which then stays readable even if it is removed; None where it is gone."""
        path = self._blobs.path(sha256)
        try:
            return await asyncio.to_thread(lambda: path.open("rb"))
        except FileNotFoundError:
            return None


class _Counts:
    """Counts of a unit."""

    def __init__(self) -> None:
        self.chunks = 0
        self.incomplete: set[tuple[str, str]] = set()


def _rows_of(held: WholeDocument) -> Iterator[Record]:
    yield from _pieces(backup_pb2.PIECE_KIND_TEXT, held.row.text.encode())
    yield to_record(held.row)
    for earlier in held.earlier:
        yield from _pieces(backup_pb2.PIECE_KIND_TEXT, earlier.text.encode())
        yield to_record(earlier)
    if held.structure is not None:
        yield from _pieces(backup_pb2.PIECE_KIND_STRUCTURE, held.structure.structure)
        yield to_record(held.structure)


def _pieces(kind: backup_pb2.PieceKind.ValueType, data: bytes) -> Iterator[Record]:
    for start in range(0, len(data), _PIECE_BYTES):
        part = data[start : start + _PIECE_BYTES]
        is_last = start + _PIECE_BYTES >= len(data)
        yield Record(piece=backup_pb2.BackupPiece(kind=kind, data=part, is_last=is_last))


async def _pieces_of_file(file: BinaryIO, sha256: str) -> AsyncIterator[Record]:
    kind = backup_pb2.PIECE_KIND_BLOB
    with file:
        part = await asyncio.to_thread(file.read, _PIECE_BYTES)
        while part:
            following = await asyncio.to_thread(file.read, _PIECE_BYTES)
            piece = backup_pb2.BackupPiece(kind=kind, data=part, is_last=not following)
            if not following:
                piece.sha256 = sha256
            yield Record(piece=piece)
            part = following
        if not file.tell():
            yield Record(piece=backup_pb2.BackupPiece(kind=kind, is_last=True, sha256=sha256))


def _end(following: Cursor | None, **counts: int) -> Record:
    cursor = "" if following is None else str(following)
    return Record(end=backup_pb2.BackupEnd(cursor=cursor, **counts))
