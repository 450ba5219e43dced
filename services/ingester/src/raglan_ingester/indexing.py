"""The last step of a document: its text stored, its chunks in the index, nothing stale left."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, Protocol

import numpy as np
import structlog
from numpy.typing import NDArray
from raglan import metadata
from raglan.chunk_ids import chunk_id
from raglan.database import now_ms
from raglan.errors import NotFound, RaglanError, Unavailable
from raglan.tensors import SparseVector

from raglan_ingester.blobs import BlobStore
from raglan_ingester.clients.embedder import Model
from raglan_ingester.clients.retriever import IndexChunk
from raglan_ingester.collection_locks import CollectionLocks
from raglan_ingester.document_metadata import merge_metadata
from raglan_ingester.documents import DocumentStore, Version
from raglan_ingester.jobs import JobStore
from raglan_ingester.labels import Labels, submitted_labels
from raglan_ingester.model import Document, Item, ItemState, Job
from raglan_ingester.outage_retry import TRANSIENT, OutageRetry
from raglan_ingester.parsing import CutChunk, CutDocument
from raglan_ingester.versions import Edition, Kept, Retention, VersionStore

log: Final = structlog.get_logger()

_UPSERT_BYTES: Final = 4 * 1024 * 1024
"""Of text and metadata in one Upsert; vectors come on top, and a message may hold 16 MiB."""
_UPSERT_CHUNKS: Final = 128
_COUNTED_AT_ONCE: Final = 256
_GAP_CHARS: Final = 200
"""Longest text between two chunks that is kept with the second."""


class Index(Protocol):
    """The part of the retriever's client in use; every method raises RaglanError."""

    async def upsert(
        self, collection: str, model: Model, chunks: Sequence[IndexChunk], vectors: NDArray[Any]
    ) -> None:
        """Store chunks with their vectors, one row a chunk."""
        ...

    async def delete(
        self, collection: str, document_ids: Sequence[str], *, keep: Sequence[str] = ()
    ) -> int:
        """Delete the chunks of documents but those in `keep`; return their number."""
        ...

    async def keep_versions(self, collection: str, documents: Mapping[str, Kept]) -> None:
        """Make replaced versions earlier ones, and remove those that are not kept."""
        ...

    async def count(self, collection: str, document_ids: Sequence[str]) -> list[int]:
        """Count the chunks of each document's present version."""
        ...


@dataclass(frozen=True, slots=True)
class Prepared:
    """A document that only has to be indexed."""

    item: Item
    cut: CutDocument
    vectors: NDArray[Any]
    """float32 of shape (chunks, dimension)."""
    model: Model
    fingerprint: str
    metadata_json: str
    """Submitted metadata, completed with the document's own."""
    readability: Sequence[float] = ()
    """Readability of each chunk, in [0, 1]; empty where the embedder does not know."""
    tokens: Sequence[NDArray[Any]] = ()
    """Token vectors of each chunk; empty where the collection has none."""
    sparse: Sequence[SparseVector] = ()
    """Term weights of each chunk by the model; empty where the collection has none."""
    warnings: Sequence[str] = ()
    labels: Labels = field(default_factory=lambda: Labels("{}"))
    """Of its chunks, once they are known."""
    created_ms: int = 0
    """Time of submission, in milliseconds since the epoch."""
    number: int = 0
    """Of the version."""
    retention: Retention | None = None
    """Of the collection; None where it keeps no versions."""
    edition: Edition | None = None
    """Place in the document's history, once it is known."""

    def labelled(self, item: Item, held: Document) -> Prepared:
        """Return it with what its submission and its present version, as they are now, decide."""
        labels = submitted_labels(item, held, completed_json=self.metadata_json)
        if self.retention is None:
            return replace(self, labels=labels)
        since = held.valid_from_ms
        if self.number != held.version:
            since = max(now_ms(), since + 1)
        return replace(self, labels=labels, edition=Edition(self.number, since, self.retention))

    @property
    def id(self) -> str:
        """Id of the document."""
        return self.item.document_id

    def version(self) -> Version:
        """Build the row of the version that becomes current."""
        return Version(
            item=self.item,
            title=title_of(self.item, self.cut),
            text=self.cut.text,
            chunks=len(self.cut.chunks),
            fingerprint=self.fingerprint,
            metadata_json=self.metadata_json,
            labels=self.labels,
            language=self.cut.language,
            warnings=self.warnings,
            structure=self.cut.structure,
            edition=self.edition,
        )


def title_of(item: Item, cut: CutDocument) -> str:
    """Choose the document's title: as submitted, its own, or its file name."""
    return item.title or cut.title or item.filename.rpartition("/")[2] or item.document_id


class Indexer:
    """Moves prepared documents into the index, each wholly or not at all.

    What holds the collection's lock calls the index once, without a retry: an index that is away is
    waited for with the lock released, so that deletions need not wait.
    """

    def __init__(
        self,
        jobs: JobStore,
        documents: DocumentStore,
        index: Index,
        locks: CollectionLocks,
        retry: OutageRetry,
        blobs: BlobStore,
        versions: VersionStore,
    ) -> None:
        self._blobs = blobs
        self._versions = versions
        self._jobs = jobs
        self._documents = documents
        self._index = index
        self._locks = locks
        self._retry = retry

    async def add(self, job: Job, batch: Sequence[Prepared]) -> None:
        """Index a batch; if it is refused, each document of it alone. Raises no RaglanError."""
        try:
            await self._retry.call(partial(self._add, job, batch))
        except TRANSIENT as error:
            await self._give_up(job, batch, f"{error.message} It was tried again for a while; "
                                            "retry the job when it is back.")  # fmt: skip
        except RaglanError as error:
            if len(batch) == 1:
                await self._give_up(job, batch, error.message)
                return
            for document in batch:
                await self.add(job, [document])

    async def verify(self, job: Job) -> None:
        """Ask the index how many chunks it holds of each document; fail those that differ.

        Raises:
            RaglanError: the index cannot be reached.
        """
        after = ""
        while last := await self._retry.call(partial(self._verify_page, job, after)):
            after = last

    async def _verify_page(self, job: Job, after: str) -> str:
        """The id of the last document of the page; empty when there are no more."""
        async with self._locks.of(job.collection):
            page = await self._documents.ready(job, after, _COUNTED_AT_ONCE)
            if not page:
                return ""
            wrong = await self._differing(job, page)
            if stale := [row for row in page if wrong.get(row.id, 0) > row.chunks]:
                await self._clear_stale(job, [(r.id, r.fingerprint, r.chunks) for r in stale])
                wrong = await self._differing(job, page)
            chunks = {row.id: row.chunks for row in page}
            errors = {
                id_: f"The index holds {count} of the document's {chunks[id_]} chunks; "
                "retry the job."
                for id_, count in wrong.items()
            }
            await self._jobs.fail(job, errors, spoilt=True)
            return page[-1].id

    async def _differing(self, job: Job, rows: Sequence[Document]) -> dict[str, int]:
        """Return the index's chunk counts of the documents whose own count differs."""
        ids = [row.id for row in rows]
        counts = await self._index.count(job.collection, ids)
        return {
            row.id: count for row, count in zip(rows, counts, strict=True) if count != row.chunks
        }

    async def _add(self, job: Job, batch: Sequence[Prepared]) -> None:
        """Chunks first, beside those of the earlier version; then the switch; then clear up."""
        async with self._locks.of(job.collection):
            ids = [document.id for document in batch]
            before = await self._documents.claimed(job, ids)
            items = await self._documents.items(job, ids)
            held = [
                document.labelled(items[document.id], before[document.id])
                for document in batch
                if document.id in before
            ]
            for chunks, vectors in _upserts(held):
                model = held[0].model
                await self._index.upsert(job.collection, model, chunks, vectors)
            done = await self._documents.publish(job, [document.version() for document in held])
            await self._drop(job, {document.id for document in batch} - done)
            older = [d for d in held if before[d.id].chunks and d.id in done]
            if older:
                await self._clear_or_leave(job, older)
        # The bytes of earlier versions; `unnamed_blobs` keeps those that another document has.
        replaced = [row.sha256 for row in before.values()]
        with suppress(Unavailable):  # the reconciler removes them later
            await self._blobs.purge(replaced, self._documents.unnamed_blobs)

    async def _clear_or_leave(self, job: Job, documents: Sequence[Prepared]) -> None:
        versions = [(d.id, d.fingerprint, len(d.cut.chunks)) for d in documents]
        try:
            await self._clear_stale(job, versions)
        except RaglanError as error:
            # The new version is whole: `verify` or the reconciler clears the old one away.
            log.warning("chunks of earlier versions remain", job=job.id, reason=error.message)
            versioned = [document.id for document in documents if document.edition]
            await self._versions.leave(job.collection, versioned)

    async def _clear_stale(self, job: Job, versions: Sequence[tuple[str, str, int]]) -> None:
        """Remove all chunks of documents but those of one version, (id, fingerprint, chunks).

        Earlier versions stay as far as they are kept.
        """
        ids = [id_ for id_, _, _ in versions]
        if kept := await self._versions.kept(job.collection, ids):
            await self._index.keep_versions(job.collection, kept)
        keep = [
            chunk_id(id_, fingerprint, ordinal)
            for id_, fingerprint, chunks in versions
            for ordinal in range(chunks)
        ]
        await self._index.delete(job.collection, ids, keep=keep)

    async def drop(self, job: Job, lost: set[str]) -> None:
        """Documents that were deleted or submitted anew meanwhile: the deleted leave no chunks."""
        await self._retry.call(partial(self._drop, job, lost))

    async def _drop(self, job: Job, lost: set[str]) -> None:
        if not lost:
            return
        held = await self._documents.states(job.collection, sorted(lost))
        if deleted := sorted(lost - held.keys()):
            await self._remove(job, deleted)
        await self._jobs.settle(job, lost, ItemState.DROPPED)

    async def _remove(self, job: Job, document_ids: Sequence[str]) -> None:
        """Take documents out of the index; a collection that is gone holds none."""
        try:
            await self._index.delete(job.collection, document_ids)
        except NotFound:
            return

    async def _give_up(self, job: Job, batch: Sequence[Prepared], message: str) -> None:
        """Fail documents; an earlier version of each stays as it was, in text and in chunks."""
        await self._jobs.fail(job, {document.id: message for document in batch})
        try:
            for document in batch:
                await self._retry.call(partial(self._take_back, job, document))
        except RaglanError as error:
            # The reconciler finds what remains; running or deleting them again clears it too.
            log.warning("chunks of failed documents remain", job=job.id, reason=error.message)

    async def _take_back(self, job: Job, document: Prepared) -> None:
        """Remove the chunks of a version that never became whole."""
        held = (await self._documents.claimed(job, [document.id])).get(document.id)
        if held is None or held.fingerprint == document.fingerprint:
            return
        if not held.chunks:
            await self._remove(job, [document.id])
        elif held.fingerprint:
            await self._clear_stale(job, [(held.id, held.fingerprint, held.chunks)])


def _upserts(
    documents: Sequence[Prepared],
) -> Iterator[tuple[list[IndexChunk], NDArray[Any]]]:
    chunks: list[IndexChunk] = []
    rows: list[NDArray[Any]] = []
    size = 0
    for document in documents:
        for chunk, row in zip(_chunks_of(document), document.vectors, strict=True):
            weight = 4 * len(chunk.text) + len(chunk.metadata_json) + len(chunk.structure)
            weight += 0 if chunk.tokens is None else chunk.tokens.nbytes
            if chunks and (size + weight > _UPSERT_BYTES or len(chunks) == _UPSERT_CHUNKS):
                yield chunks, np.stack(rows)
                chunks, rows, size = [], [], 0
            chunks.append(chunk)
            rows.append(row)
            size += weight
    if chunks:
        yield chunks, np.stack(rows)


def _own_metadata(document: Prepared, chunk: CutChunk) -> str:
    """Metadata of a chunk alone, as JSON; empty if it has none or the index would refuse it."""
    if not chunk.metadata:
        return ""
    _, refused = merge_metadata(document.labels.metadata_json, chunk.metadata, metadata.MAX_BYTES)
    return "" if refused else json.dumps(chunk.metadata)


def _chunks_of(document: Prepared) -> Iterator[IndexChunk]:
    cut = document.cut
    title = title_of(document.item, cut)
    sections = _sections(cut.chunks)
    end = cut.chunks[0].start if cut.chunks else 0
    for ordinal, span in enumerate(cut.chunks):
        gap, end = cut.text[end : span.start], span.end
        yield IndexChunk(
            chunk_id=chunk_id(document.id, document.fingerprint, ordinal),
            document_id=document.id,
            ordinal=ordinal,
            title=title,
            text=cut.text[span.start : span.end],
            start=span.start,
            end=span.end,
            heading_path=span.heading_path,
            metadata_json=document.labels.metadata_json,
            own_metadata_json=_own_metadata(document, span),
            page=span.page,
            structure=span.structure,
            language=cut.language,
            readability=document.readability[ordinal] if document.readability else None,
            filename=document.item.filename,
            created_ms=document.created_ms,
            access=document.labels.access,
            gap_before=gap if len(gap) <= _GAP_CHARS else "",
            section=None if span.section is None else sections[span.section],
            edition=document.edition,
            tokens=document.tokens[ordinal] if document.tokens else None,
            sparse=document.sparse[ordinal] if document.sparse else None,
        )


def _sections(chunks: Sequence[CutChunk]) -> dict[int, tuple[int, int]]:
    """Return the positions of the first and the last chunk of each section, by its number."""
    ranges: dict[int, tuple[int, int]] = {}
    for ordinal, chunk in enumerate(chunks):
        if chunk.section is not None:
            first, _ = ranges.get(chunk.section, (ordinal, ordinal))
            ranges[chunk.section] = first, ordinal
    return ranges
