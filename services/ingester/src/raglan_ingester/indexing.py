"""The last step of a document: its text stored, its chunks in the index, nothing stale left."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

import numpy as np
import structlog
from numpy.typing import NDArray
from raglan.errors import NotFound, RaglanError

from raglan_ingester.blobs import BlobStore
from raglan_ingester.clients.embedder import Model
from raglan_ingester.clients.retriever import IndexChunk
from raglan_ingester.collection_locks import CollectionLocks
from raglan_ingester.documents import DocumentStore, Version
from raglan_ingester.jobs import JobStore
from raglan_ingester.model import Item, ItemState, Job
from raglan_ingester.parsing import CutDocument
from raglan_ingester.patience import TRANSIENT, Patience

log: Final = structlog.get_logger()

_UPSERT_BYTES: Final = 4 * 1024 * 1024
"""Of text and metadata in one Upsert; vectors come on top, and a message may hold 16 MiB."""
_UPSERT_CHUNKS: Final = 128
_COUNTED_AT_ONCE: Final = 256


class Index(Protocol):
    """What of the retriever this needs; every method raises RaglanError."""

    async def upsert(
        self, collection: str, model: Model, chunks: Sequence[IndexChunk], vectors: NDArray[Any]
    ) -> None: ...

    async def delete(
        self, collection: str, document_ids: Sequence[str], *, keep: Sequence[str] = ()
    ) -> int: ...

    async def count(self, collection: str, document_ids: Sequence[str]) -> list[int]: ...


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
    """As submitted, and below it what the document says of itself."""
    readability: Sequence[float] = ()
    """Readability of each chunk, in [0, 1]; empty where the embedder does not know."""
    warnings: Sequence[str] = ()

    @property
    def id(self) -> str:
        return self.item.document_id

    def version(self) -> Version:
        return Version(
            item=self.item,
            title=title_of(self.item, self.cut),
            text=self.cut.text,
            chunks=len(self.cut.chunks),
            fingerprint=self.fingerprint,
            metadata_json=self.metadata_json,
            language=self.cut.language,
            warnings=self.warnings,
            structure=self.cut.structure,
        )


def title_of(item: Item, cut: CutDocument) -> str:
    """What to call the document: as submitted, as it says itself, or its file name."""
    return item.title or cut.title or item.filename.rpartition("/")[2] or item.document_id


class Indexer:
    """Moves prepared documents into the index, each wholly or not at all."""

    def __init__(
        self,
        jobs: JobStore,
        documents: DocumentStore,
        index: Index,
        locks: CollectionLocks,
        patience: Patience,
        blobs: BlobStore,
    ) -> None:
        self._blobs = blobs
        self._jobs = jobs
        self._documents = documents
        self._index = index
        self._locks = locks
        self._patience = patience

    async def add(self, job: Job, batch: Sequence[Prepared]) -> None:
        """Index a batch; if it is refused, each document of it alone. Raises no RaglanError."""
        try:
            await self._add(job, batch)
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
            RaglanError: the index cannot be asked.
        """
        after = ""
        while last := await self._verify_page(job, after):
            after = last

    async def _verify_page(self, job: Job, after: str) -> str:
        """The id of the last document of the page; empty when there are no more."""
        async with self._locks.of(job.collection):
            page = await self._documents.ready_chunks(job, after, _COUNTED_AT_ONCE)
            if not page:
                return ""
            ids = [id_ for id_, _ in page]
            counts = await self._patience.call(partial(self._index.count, job.collection, ids))
            wrong = {
                id_: f"The index holds {count} of the document's {chunks} chunks; retry the job."
                for (id_, chunks), count in zip(page, counts, strict=True)
                if count != chunks
            }
            await self._jobs.fail(job, wrong, spoilt=True)
            return ids[-1]

    async def _add(self, job: Job, batch: Sequence[Prepared]) -> None:
        async with self._locks.of(job.collection):
            before = await self._documents.claimed(job, [document.id for document in batch])
            held = [document for document in batch if document.id in before]
            await self._documents.store(job, [document.version() for document in held])
            for chunks, vectors in _upserts(held):
                model = held[0].model
                await self._patience.call(
                    partial(self._index.upsert, job.collection, model, chunks, vectors)
                )
            older = [document for document in held if before[document.id].chunks]
            if older:
                await self._clear_stale(job, older)
            done = await self._documents.publish(job, [document.version() for document in held])
            await self.drop(job, {document.id for document in batch} - done)
        # The bytes of earlier versions; `unnamed_blobs` keeps those that another document has.
        replaced = [row.sha256 for row in before.values()]
        await self._blobs.purge(replaced, self._documents.unnamed_blobs)

    async def _clear_stale(self, job: Job, documents: Sequence[Prepared]) -> None:
        ids = [document.id for document in documents]
        keep = [chunk_id(document.id, n) for document in documents for n in _ordinals(document)]
        await self._patience.call(lambda: self._index.delete(job.collection, ids, keep=keep))

    async def drop(self, job: Job, lost: set[str]) -> None:
        """Documents that were deleted or submitted anew meanwhile: the deleted leave no chunks."""
        if not lost:
            return
        if deleted := await self._documents.absent(job.collection, sorted(lost)):
            await self.remove(job, sorted(deleted))
        await self._jobs.settle(job, lost, ItemState.DROPPED)

    async def remove(self, job: Job, document_ids: Sequence[str]) -> None:
        """Take documents out of the index; a collection that is gone holds none."""
        try:
            await self._patience.call(lambda: self._index.delete(job.collection, document_ids))
        except NotFound:
            return

    async def _give_up(self, job: Job, batch: Sequence[Prepared], message: str) -> None:
        await self._jobs.fail(job, {document.id: message for document in batch}, spoilt=True)
        try:
            await self.remove(job, [document.id for document in batch])
        except RaglanError as error:
            # They are marked failed; running or deleting them again clears them away.
            log.warning("chunks of failed documents remain", job=job.id, reason=error.message)


def chunk_id(document_id: str, ordinal: int) -> str:
    """The same for the same place in the same document: indexing twice changes nothing."""
    return f"{document_id}#{ordinal}"


def _ordinals(document: Prepared) -> Iterable[int]:
    return range(len(document.cut.chunks))


def _upserts(
    documents: Sequence[Prepared],
) -> Iterator[tuple[list[IndexChunk], NDArray[Any]]]:
    chunks: list[IndexChunk] = []
    rows: list[NDArray[Any]] = []
    size = 0
    for document in documents:
        for chunk, row in zip(_chunks_of(document), document.vectors, strict=True):
            weight = 4 * len(chunk.text) + len(chunk.metadata_json) + len(chunk.structure)
            if chunks and (size + weight > _UPSERT_BYTES or len(chunks) == _UPSERT_CHUNKS):
                yield chunks, np.stack(rows)
                chunks, rows, size = [], [], 0
            chunks.append(chunk)
            rows.append(row)
            size += weight
    if chunks:
        yield chunks, np.stack(rows)


def _chunks_of(document: Prepared) -> Iterator[IndexChunk]:
    cut = document.cut
    title = title_of(document.item, cut)
    for ordinal, span in enumerate(cut.chunks):
        yield IndexChunk(
            chunk_id=chunk_id(document.id, ordinal),
            document_id=document.id,
            ordinal=ordinal,
            title=title,
            text=cut.text[span.start : span.end],
            start=span.start,
            end=span.end,
            heading_path=span.heading_path,
            metadata_json=document.metadata_json,
            page=span.page,
            structure=span.structure,
            language=cut.language,
            readability=document.readability[ordinal] if document.readability else None,
        )
