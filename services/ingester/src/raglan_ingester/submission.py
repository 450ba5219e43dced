"""Submission of a job: check the upload, store the bytes, record the job, answer."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from raglan import access_tags, metadata
from raglan.database import now_ms
from raglan.errors import InvalidInput, NotFound, PayloadTooLarge
from raglan.identifiers import check_document_id, shortened

from raglan_ingester.blobs import BlobStore, BlobWriter
from raglan_ingester.collection_locks import CollectionLocks
from raglan_ingester.jobs import JobStore
from raglan_ingester.model import Item, Job
from raglan_ingester.prepared import PreparedStore

_MAX_PIECE_BYTES: Final = 1024 * 1024
_MAX_TITLE_CHARS: Final = 2000
_MAX_FILENAME_CHARS: Final = 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a submission."""

    max_document_bytes: int
    max_job_bytes: int
    max_documents_per_job: int
    max_metadata_bytes: int


@dataclass(frozen=True, slots=True)
class JobStart:
    """First message of an upload."""

    collection: str
    """Its qualified name."""


@dataclass(frozen=True, slots=True)
class DocumentStart:
    """Head of a document in an upload."""

    document_id: str
    filename: str
    media_type: str
    title: str
    metadata_json: str
    access: Sequence[str] | None = None
    """Tags of the document; None keeps those of one that exists."""
    fingerprint: str = ""
    """Of its prepared form; empty where it has none."""


@dataclass(frozen=True, slots=True)
class PreparedPiece:
    """Bytes of a prepared document."""

    data: bytes


Part = JobStart | DocumentStart | bytes | PreparedPiece
"""A job's start, then for each document its start, its bytes in pieces and its prepared form."""


class Intake:
    """Receives jobs."""

    def __init__(
        self,
        blobs: BlobStore,
        prepared: PreparedStore,
        jobs: JobStore,
        limits: Limits,
        identify: Callable[[str], Awaitable[str]],
        submissions: CollectionLocks,
    ) -> None:
        """Take what jobs are stored with.

        Args:
            blobs: the documents' bytes.
            prepared: their prepared forms.
            jobs: the jobs' records.
            limits: what is refused.
            identify: Returns what tells a collection from an earlier one of its name, or raises
                NotFound.
            submissions: Held while a job is recorded, and while a whole collection is deleted.
        """
        self._blobs = blobs
        self._prepared = prepared
        self._jobs = jobs
        self._limits = limits
        self._identify = identify
        self._submissions = submissions

    async def receive(self, parts: AsyncIterator[Part]) -> Job:
        """Store a job and its documents; once this returns, a crash loses nothing.

        Raises:
            InvalidInput: parts out of order, a bad or repeated id, metadata that is no object.
            PayloadTooLarge: a document, the job, or its metadata is over its limit.
            Forbidden: access tags that the caller does not hold, given or of the document that
                would be replaced.
            NotFound: the collection does not exist, or was deleted during the upload.
        """
        identity = ""
        receiver = _JobReceiver(self._blobs, self._prepared, self._limits)
        try:
            async for part in parts:
                if isinstance(part, JobStart):
                    receiver.begin(part)
                    identity = await self._identify(part.collection)
                elif isinstance(part, DocumentStart):
                    await receiver.document(part)
                elif isinstance(part, PreparedPiece):
                    await receiver.prepared_piece(part.data)
                else:
                    await receiver.piece(part)
            job, items = await receiver.end()
            async with self._submissions.of(job.collection):
                if await self._identify(job.collection) != identity:
                    raise NotFound(
                        f"The collection {job.collection!r} was deleted and made anew during the "
                        "upload; send the documents again if the new one is to hold them."
                    )
                await self._jobs.add(job, items)
            return job
        finally:
            await receiver.release()


class _JobReceiver:
    """Receiver of one upload."""

    def __init__(self, blobs: BlobStore, prepared: PreparedStore, limits: Limits) -> None:
        self._blobs = blobs
        self._prepared = prepared
        self._limits = limits
        self._collection = ""
        self._id = new_job_id()
        self._items: list[Item] = []
        self._ids: set[str] = set()
        self._writer: BlobWriter | None = None
        self._prepared_writer: BlobWriter | None = None
        self._pinned: list[str] = []
        self._bytes = 0

    def begin(self, start: JobStart) -> None:
        if self._collection:
            raise InvalidInput("A job has one header; this is a second one.")
        if not start.collection:
            raise InvalidInput("The job names no collection.")
        self._collection = start.collection

    async def document(self, start: DocumentStart) -> None:
        if not self._collection:
            raise InvalidInput("The first message must be the job's header.")
        await self._finish_document()
        limit = self._limits.max_documents_per_job
        if len(self._items) == limit:
            raise PayloadTooLarge(
                f"The job holds more than {limit:,} documents, the limit "
                "(RAGLAN_INGESTER_MAX_DOCUMENTS_PER_JOB); send several jobs."
            )
        item = _item_of(start, len(self._items), self._limits)
        if item.document_id in self._ids:
            raise InvalidInput(
                f"Two documents of the job have the id {shortened(item.document_id)}; "
                "ids must differ."
            )
        self._ids.add(item.document_id)
        item.job_id = self._id
        self._items.append(item)
        self._writer = self._blobs.writer()
        if start.fingerprint:
            self._prepared_writer = self._prepared.writer(start.fingerprint)

    async def piece(self, data: bytes) -> None:
        if self._writer is None:
            raise InvalidInput("Bytes came before any document's header.")
        document_limit = self._limits.max_document_bytes
        if self._writer.size_bytes + len(data) > document_limit:
            raise PayloadTooLarge(
                f"The document {shortened(self._items[-1].document_id)} is larger than "
                f"{document_limit:,} bytes, the limit (RAGLAN_INGESTER_MAX_DOCUMENT_BYTES)."
            )
        self._count(data)
        await self._writer.write(data)

    async def prepared_piece(self, data: bytes) -> None:
        if self._prepared_writer is None:
            raise InvalidInput("Prepared bytes came of a document without a fingerprint.")
        self._count(data)
        await self._prepared_writer.write(data)

    def _count(self, data: bytes) -> None:
        if len(data) > _MAX_PIECE_BYTES:
            raise InvalidInput(
                f"A piece holds {len(data):,} bytes; the limit is {_MAX_PIECE_BYTES:,}."
            )
        job_limit = self._limits.max_job_bytes
        self._bytes += len(data)
        if self._bytes > job_limit:
            raise PayloadTooLarge(
                f"The job's documents are larger than {job_limit:,} bytes in all, the limit "
                "(RAGLAN_INGESTER_MAX_JOB_BYTES); send several jobs."
            )

    async def end(self) -> tuple[Job, Sequence[Item]]:
        await self._finish_document()
        if not self._items:
            raise InvalidInput("The job holds no documents.")
        job = Job(
            id=self._id,
            collection=self._collection,
            documents=len(self._items),
            created_ms=now_ms(),
            stages={},
        )
        return job, self._items

    async def release(self) -> None:
        """Let go of what the job's rows keep by now, or of what will never be needed."""
        for writer in filter(None, (self._writer, self._prepared_writer)):
            await writer.discard()
        await self._blobs.unpin(self._pinned)

    async def _finish_document(self) -> None:
        if self._writer is None:
            return
        item = self._items[-1]
        item.size_bytes = self._writer.size_bytes
        item.sha256 = await self._writer.commit()
        self._pinned.append(item.sha256)
        self._writer = None
        if self._prepared_writer is not None:
            await self._prepared_writer.commit()
            self._prepared_writer = None


def _item_of(start: DocumentStart, ordinal: int, limits: Limits) -> Item:
    document_id = start.document_id or _id_from(start.filename)
    if not document_id:
        raise InvalidInput(f"Document {ordinal + 1} of the job has neither an id nor a file name.")
    check_document_id(document_id)
    for name, value, limit in (
        ("title", start.title, _MAX_TITLE_CHARS),
        ("file name", start.filename, _MAX_FILENAME_CHARS),
        ("media type", start.media_type, _MAX_FILENAME_CHARS),
    ):
        if len(value) > limit:
            raise InvalidInput(
                f"The {name} of {shortened(document_id)} has {len(value)} characters; "
                f"the limit is {limit}."
            )
        if "\0" in value:
            raise InvalidInput(f"The {name} of {shortened(document_id)} holds a null character.")
    return Item(
        ordinal=ordinal,
        document_id=document_id,
        title=" ".join(start.title.split()),
        metadata_json=_metadata(start.metadata_json, document_id, limits.max_metadata_bytes),
        filename=start.filename,
        media_type=start.media_type,
        access=None if start.access is None else _tags(start.access, document_id),
    )


def _tags(given: Sequence[str], document_id: str) -> list[str]:
    tags = access_tags.check(given, of=f"access of {shortened(document_id)}")
    access_tags.require(tags)
    return list(tags)


_BYTES_AN_ESCAPE: Final = 6
"""JSON may spell each byte as an escape such as `\\u0061`: longer texts are not worth parsing."""


def _id_from(filename: str) -> str:
    """The relative path as given, with forward slashes."""
    return filename.replace("\\", "/").removeprefix("./")


def _metadata(text: str, document_id: str, limit: int) -> str:
    """The metadata in one canonical form, so that the same is seen to be the same.

    Whatever the index would refuse is refused here, before anything is replaced.
    """
    if not text:
        return "{}"
    if len(text) > _BYTES_AN_ESCAPE * limit:
        raise PayloadTooLarge(
            f"The metadata of {shortened(document_id)} has {len(text):,} characters of JSON; the "
            f"limit is {limit:,} bytes (RAGLAN_INGESTER_MAX_METADATA_BYTES)."
        )
    try:
        loaded = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        loaded = None
    if not isinstance(loaded, dict):
        raise InvalidInput(f"The metadata of {shortened(document_id)} is not a JSON object.")
    try:
        metadata.check(loaded, max_bytes=limit)
    except PayloadTooLarge as error:
        raise PayloadTooLarge(
            f"{shortened(document_id)}: {error.message} (RAGLAN_INGESTER_MAX_METADATA_BYTES)"
        ) from None
    except InvalidInput as error:
        raise InvalidInput(f"{shortened(document_id)}: {error.message}") from None
    # ASCII: a lone surrogate or a null stays an escape that every store can hold.
    return json.dumps(loaded, sort_keys=True, separators=(",", ":"))


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def new_job_id() -> str:
    """Sorts by time; the random part keeps two of one millisecond apart."""
    return f"job-{time.time_ns() // 1_000_000:011x}-{secrets.token_hex(6)}"
