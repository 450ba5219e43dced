"""One run of a job: parse and cut, embed, index, all three at once on different documents.

Documents are taken from the job's table and leave it settled, batch by batch; a run that is broken
off is continued by the next, which takes what is still queued.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import Any, Final, Protocol

import structlog
from raglan.errors import Conflict, RaglanError
from raglan.telemetry import semconv, tracing

from raglan_ingester.blobs import BlobStore
from raglan_ingester.byte_budget import ByteBudget
from raglan_ingester.chunking import Sizes
from raglan_ingester.clients.embedder import Embedded, FurtherVectors, Model
from raglan_ingester.clients.retriever import CollectionSettings
from raglan_ingester.contexts import TOKENS, Contexts, JobContexts
from raglan_ingester.document_metadata import merge_metadata
from raglan_ingester.documents import DocumentStore
from raglan_ingester.embedding_texts import divided, embedding_texts
from raglan_ingester.fingerprints import fingerprint
from raglan_ingester.indexing import Indexer, Prepared
from raglan_ingester.jobs import JobStore
from raglan_ingester.model import Document, DocumentState, Item, ItemState, Job, JobState
from raglan_ingester.outage_retry import TRANSIENT, OutageRetry
from raglan_ingester.parsers.parsed import Unparsable
from raglan_ingester.parsing import CutDocument, Parser, ParseRequest
from raglan_ingester.prepared import PreparedStore
from raglan_ingester.progress import Progress
from raglan_ingester.token_index import ModelTokenizer
from raglan_ingester.tokenizer_files import TokenizerFolder
from raglan_ingester.unread_language import UnreadDocuments, truncation_warnings
from raglan_ingester.versions import following

log: Final = structlog.get_logger()

_PAGE: Final = 256
BYTES_UNDER_WAY: Final = 64 * 1024 * 1024
_DOCUMENTS_UNDER_WAY: Final = 512
_OUR_FAULT: Final = "The ingester met an error of its own; retry the job."


class Observer(Protocol):
    """Observer of job runs; must return at once."""

    def timed(self, stage: str) -> AbstractContextManager[None]:
        """Around each piece of work of parse, embed and index."""
        ...

    def indexed(self, documents: int, chunks: int) -> None:
        """Indexing is done with documents of so many chunks in all, whatever became of them."""

    def job_ended(self, state: JobState, seconds: float) -> None:
        """A job came to its end so long after its submission."""


class Embedder(Protocol):
    """The part of the embedder that a run needs."""

    async def embed(self, texts: Sequence[str], further: FurtherVectors) -> Embedded:
        """Raises RaglanError."""
        ...


@dataclass(frozen=True, slots=True)
class JobDependencies:
    """Collaborators of every job run."""

    jobs: JobStore
    documents: DocumentStore
    blobs: BlobStore
    prepared: PreparedStore
    parser: Parser
    embedder: Embedder
    embedder_retry: OutageRetry
    indexer: Indexer
    observer: Observer
    parse_workers: int
    texts_per_call: int
    calls_in_flight: int
    embed_calls: asyncio.Semaphore
    """One for all jobs, first come first served: each job waits with `calls_in_flight` calls at
    most, so that a small job gets its turn beside a large one."""
    byte_budget: ByteBudget
    """Bytes of documents under way, of all jobs."""
    tokenizers: TokenizerFolder
    max_metadata_bytes: int
    max_chunks_per_document: int
    max_chunks_per_job: int
    contexts: Contexts


@dataclass(frozen=True, slots=True)
class _Cut:
    """A parsed document, with what it borrowed of the byte budget."""

    item: Item
    cut: CutDocument
    number: int
    """Of the version; 0 where the collection keeps none."""
    borrowed: int
    embedded: Embedded | None = None
    """What was embedded before the submission."""


class JobRun:
    """`await work()` settles every queued item of the job; cancel it to stop between documents.

    Args:
        tokenizer: of the embedding model; None measures chunks in characters.
    """

    def __init__(
        self,
        dependencies: JobDependencies,
        job: Job,
        collection: CollectionSettings,
        progress: Progress,
        tokenizer: ModelTokenizer | None,
    ) -> None:
        self._tokenizer = tokenizer
        self._dependencies = dependencies
        self._job = job
        self._collection = collection
        self.progress = progress
        self._byte_budget = dependencies.byte_budget
        self._parsing = asyncio.Semaphore(dependencies.parse_workers)
        self._calls = asyncio.Semaphore(dependencies.calls_in_flight)
        self._batches = asyncio.Semaphore(dependencies.calls_in_flight + 1)
        self._cut: asyncio.Queue[_Cut | None] = asyncio.Queue()
        self._indexing: set[asyncio.Task[None]] = set()
        self.unread = UnreadDocuments()
        self._chunks = progress.total["index"]
        self._contexts = dependencies.contexts.of_job(job.context)

    async def work(self) -> None:
        """Parse, embed and index the queued items."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._parse_all())
            while True:
                await self._batches.acquire()
                batch = await self._next_batch()
                if not batch:
                    break
                tasks.create_task(self._embed_and_index(batch))

    async def settle(self) -> None:
        """Wait for what had begun to be indexed: a document is never left half in the index."""
        while self._indexing:
            await asyncio.wait(self._indexing)

    def abandon(self) -> None:
        """Break off even what is being indexed: the process ends, and the next one redoes it."""
        for task in self._indexing:
            task.cancel()

    # Parse and cut

    async def _parse_all(self) -> None:
        after = -1
        async with asyncio.TaskGroup() as tasks:
            while items := await self._dependencies.jobs.queued_items(self._job.id, after, _PAGE):
                after = items[-1].ordinal
                for item, number in await self._changed(items):
                    borrowed = await self._byte_budget.acquire(
                        max(item.size_bytes, BYTES_UNDER_WAY // _DOCUMENTS_UNDER_WAY)
                    )
                    await self._parsing.acquire()
                    tasks.create_task(self._parse(item, number, borrowed))
        self._cut.put_nowait(None)

    async def _changed(self, items: Sequence[Item]) -> list[tuple[Item, int]]:
        """Return the items that need work, with the number of their version; settle the others."""
        held = await self._dependencies.documents.claimed(
            self._job, [item.document_id for item in items]
        )
        work, unchanged, lost = [], [], set()
        for item in items:
            row = held.get(item.document_id)
            if row is None:
                lost.add(item.document_id)
            elif self._is_unchanged(item, row):
                unchanged.append(item.document_id)
            else:
                work.append((item, self._number(row)))
        await self._dependencies.jobs.settle(self._job, unchanged, ItemState.UNCHANGED)
        todo = {item.document_id for item, _ in work}
        if done := [
            fingerprint(item, self._collection) for item in items if item.document_id not in todo
        ]:
            await self._dependencies.prepared.discard(done)
        await self._dependencies.indexer.drop(self._job, lost)
        for _ in range(len(items) - len(work)):
            self.progress.skipped()
        return work

    def _number(self, row: Document) -> int:
        if self._collection.versions is None:
            return 0
        return following(row, is_repair=row.submission != self._job.number)

    def _is_unchanged(self, item: Item, row: Document) -> bool:
        """Return whether a document is as the submission would leave it."""
        same = fingerprint(item, self._collection, row.version)
        if row.state != DocumentState.READY or row.fingerprint != same:
            return False
        # An edit before the submission gives way to it; tags that are not submitted stay. One after
        # it that it does not name was made to this very version, between two parts of a backup.
        gives_way = 0 < row.edited_ms <= self._job.created_ms
        return not (gives_way or item.edits) and item.access in (None, row.access)

    async def _parse(self, item: Item, number: int, borrowed: int) -> None:
        settings = self._collection
        try:
            request = ParseRequest(
                path=self._dependencies.blobs.path(item.sha256),
                filename=item.filename,
                media_type=item.media_type,
                sizes=Sizes(
                    settings.max_chars,
                    settings.overlap_chars,
                    self._max_tokens(),
                    self._dependencies.max_chunks_per_document,
                ),
                title=item.title,
                strategy=settings.strategy,
                tokenizer=self._tokenizer.path if self._tokenizer else None,
            )
            known = {semconv.DOCUMENT_ID: item.document_id, semconv.BYTES: item.size_bytes}
            with self._dependencies.observer.timed("parse"), tracing.span(semconv.PARSE, known):
                found = await self._dependencies.prepared.take(
                    fingerprint(item, settings), request.sizes.max_chunks
                )
                if found and (found.embedded.model != settings.model or settings.contextual):
                    found = None
                cut = found.cut if found else await self._dependencies.parser.parse(request)
        except Unparsable as error:
            await self._fail([item], str(error))
        except RaglanError as error:  # of the embedder, for semantic cuts
            await self._fail([item], error.message)
        except Exception:
            log.exception("parsing failed", job=self._job.id, stage="parse")
            await self._fail([item], _OUR_FAULT)
        else:
            if self._has_room(cut):
                self.progress.cut(len(cut.chunks))
                embedded = found.embedded if found else None
                self._cut.put_nowait(_Cut(item, cut, number, borrowed, embedded))
                return
            await self._fail([item], self._too_many_chunks())
        finally:
            self._parsing.release()
        self.progress.skipped()
        self._byte_budget.release(borrowed)

    def _max_tokens(self) -> int:
        """Return the tokens of a chunk, beside its sentence if it gets one; 0 if unknown."""
        if self._tokenizer is None:
            return 0
        return self._tokenizer.max_tokens - (TOKENS if self._collection.contextual else 0)

    def _has_room(self, cut: CutDocument) -> bool:
        if self._chunks + len(cut.chunks) > self._dependencies.max_chunks_per_job:
            return False
        self._chunks += len(cut.chunks)
        return True

    def _too_many_chunks(self) -> str:
        return (
            f"The job's documents make more than {self._dependencies.max_chunks_per_job:,} chunks "
            "in all, the limit (RAGLAN_INGESTER_MAX_CHUNKS_PER_JOB); send this one in another job."
        )

    # Embed

    async def _next_batch(self) -> list[_Cut]:
        """Take the ready documents, up to two calls' worth of chunks, without waiting for more.

        Empty when the job has no more.
        """
        batch: list[_Cut] = []
        waiting = 0
        while not batch or (
            waiting < 2 * self._dependencies.texts_per_call and not self._cut.empty()
        ):
            cut = await self._cut.get()
            if cut is None:
                self._cut.put_nowait(None)
                break
            batch.append(cut)
            waiting += len(cut.cut.chunks)
        return batch

    async def _embed_and_index(self, batch: list[_Cut]) -> None:
        try:
            prepared = await self._embed_each(batch)
            if prepared:
                # Not cancelled with this run: `settle` waits for it.
                task = asyncio.create_task(self._index(prepared))
                self._indexing.add(task)
                task.add_done_callback(self._indexing.discard)
                await asyncio.shield(task)
        finally:
            self._batches.release()
            for cut in batch:
                self._byte_budget.release(cut.borrowed)

    async def _embed_each(self, batch: Sequence[_Cut]) -> list[Prepared]:
        """Embed a batch together; if it is refused, each document alone."""
        try:
            known = {
                semconv.DOCUMENTS: len(batch),
                semconv.TEXTS: sum(len(cut.cut.chunks) for cut in batch),
            }
            with self._dependencies.observer.timed("embed"), tracing.span(semconv.EMBED, known):
                return await self._embed(batch)
        except TRANSIENT as error:
            message = f"{error.message} It was tried again for a while; retry the job later."
        except RaglanError as error:
            if len(batch) > 1:
                return [done for cut in batch for done in await self._embed_each([cut])]
            message = error.message
        except Exception:
            log.exception("embedding failed", job=self._job.id, stage="embed")
            message = _OUR_FAULT
        await self._fail([cut.item for cut in batch], message)
        self.progress.lost(sum(len(cut.cut.chunks) for cut in batch))
        return []

    async def _embed(self, batch: Sequence[_Cut]) -> list[Prepared]:
        rest = [cut for cut in batch if cut.embedded is None]
        embedded = iter(await self._embed_cuts(rest) if rest else ())
        ready = [cut for cut in batch if cut.embedded is not None]
        self.progress.embedded(sum(len(cut.cut.chunks) for cut in ready))
        return [self._prepared(cut, cut.embedded or next(embedded)) for cut in batch]

    async def _embed_cuts(self, cuts: Sequence[_Cut]) -> list[Embedded]:
        pairs = list(zip([each.cut for each in cuts], await self._sentences(cuts), strict=True))
        texts = await asyncio.to_thread(lambda: [t for p in pairs for t in embedding_texts(*p)])
        size = self._dependencies.texts_per_call
        replies = await self._embed_parts(
            [texts[at : at + size] for at in range(0, len(texts), size)]
        )
        return divided(replies, [len(cut.cut.chunks) for cut in cuts])

    async def _sentences(self, batch: Sequence[_Cut]) -> list[Sequence[str]]:
        """Return the sentences that situate the chunks of each document."""
        if not self._collection.contextual:
            return [()] * len(batch)
        name = self._job.collection
        return [
            await self._contexts.sentences(name, each.item.document_id, each.cut) for each in batch
        ]

    @property
    def context(self) -> JobContexts | None:
        """Sentences of the job and their cost; None where its collection asks for none."""
        return self._contexts if self._collection.contextual else None

    def _prepared(self, cut: _Cut, embedded: Embedded) -> Prepared:
        """Combine a document's chunks with their vectors."""
        self.unread.add(cut.cut.language, embedded.readability, embedded.model.id)
        limit = self._dependencies.max_metadata_bytes
        metadata_json, refused = merge_metadata(cut.item.metadata_json, cut.cut.metadata, limit)
        truncated = truncation_warnings(embedded.truncated_tokens)
        return Prepared(
            cut.item,
            cut.cut,
            embedded.vectors,
            embedded.model,
            fingerprint(cut.item, self._collection, cut.number),
            metadata_json,
            readability=embedded.readability,
            tokens=embedded.tokens,
            sparse=embedded.sparse,
            warnings=[*cut.cut.warnings, *refused, *truncated],
            created_ms=self._job.created_ms,
            number=cut.number,
            retention=self._collection.versions,
        )

    async def _embed_parts(self, parts: Sequence[Sequence[str]]) -> list[Embedded]:
        """Embed every part, and count each when it is done."""
        counted = 0

        async def call(part: Sequence[str]) -> Embedded:
            nonlocal counted
            reply = await self._embed_call(part)
            self.progress.embedded(len(part))
            counted += len(part)
            return reply

        try:
            return await _all([call(part) for part in parts])
        except BaseException:
            self.progress.embedded(-counted)
            raise

    async def _embed_call(self, texts: Sequence[str]) -> Embedded:
        async with self._calls, self._dependencies.embed_calls:
            embedder = self._dependencies.embedder
            further = self._collection.further
            reply = await self._dependencies.embedder_retry.call(
                lambda: embedder.embed(texts, further)
            )
        wanted = self._collection.model
        if wanted.id and reply.model != wanted:
            raise Conflict(
                f"The collection {self._job.collection!r} holds vectors of {_name(wanted)}, but "
                f"the embedder now runs {_name(reply.model)}; make a new collection, or change "
                "the embedder back."
            )
        return reply

    # Index

    async def _index(self, prepared: Sequence[Prepared]) -> None:
        try:
            known = {semconv.DOCUMENTS: len(prepared)}
            with self._dependencies.observer.timed("index"), tracing.span(semconv.INDEX, known):
                await self._dependencies.indexer.add(self._job, prepared)
        except Exception:
            log.exception("indexing failed", job=self._job.id, stage="index")
            await self._fail([document.item for document in prepared], _OUR_FAULT)
        chunks = sum(len(document.cut.chunks) for document in prepared)
        self.progress.indexed(chunks)
        self._dependencies.observer.indexed(len(prepared), chunks)

    async def _fail(self, items: Sequence[Item], message: str) -> None:
        await self._dependencies.jobs.fail(self._job, {item.document_id: message for item in items})


async def _all(calls: Sequence[Any]) -> list[Embedded]:
    """Every result; when one fails, the others are cancelled and its error is raised by itself."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.wait(tasks)


def _name(model: Model) -> str:
    return f"{model.id} ({model.revision or 'no revision'}, {model.dimension} dimensions)"
