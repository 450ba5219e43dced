"""The work of one Ray actor: read, parse, cut and embed documents, and submit them.

The vectors come from the embedder and the documents are written by the ingester, so that the index
is what a plain ingestion makes; what moves to the workers is reading, parsing, cutting and the
wait for the embedder.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from raglan.deadline import Deadline
from raglan.errors import RaglanError, Unavailable
from raglan.identifiers import check_document_id
from raglan.rpc import client
from raglan.rpc.pool import EndpointPool
from raglan.v1 import (
    embedder_pb2_grpc,
    ingester_pb2,
    ingester_pb2_grpc,
    retriever_pb2_grpc,
)

from raglan_ingester.bulk.manifest import FAILED, GONE, INDEXED, Record
from raglan_ingester.bulk.plan import Plan
from raglan_ingester.chunking import Sizes
from raglan_ingester.clients.embedder import (
    NO_FURTHER_VECTORS,
    Embedded,
    EmbedderClient,
    FurtherVectors,
)
from raglan_ingester.clients.retriever import CollectionSettings, RetrieverClient
from raglan_ingester.embedding_texts import divided, embedding_texts
from raglan_ingester.fingerprints import fingerprint
from raglan_ingester.model import Item
from raglan_ingester.outage_retry import OutageRetry
from raglan_ingester.parsers.parsed import Unparsable
from raglan_ingester.parsing import CutDocument, ParseRequest, ParserPool
from raglan_ingester.prepared import to_bytes
from raglan_ingester.semantic_cuts import SemanticParser
from raglan_ingester.settings import IngesterSettings
from raglan_ingester.sources.reader import Content, Entry, Listing, Skipped
from raglan_ingester.token_index import ModelTokenizer
from raglan_ingester.tokenizer_files import TokenizerFolder

_GROUP_BYTES: Final = 8 * 1024 * 1024
"""Of documents in one job."""
_PIECE_BYTES: Final = 1024 * 1024
_SUBMIT_S: Final = 300.0
_CALL_S: Final = 10.0
_JOB_S: Final = 3600.0
_POLL_S: Final = 0.1
_ENDED: Final = frozenset(
    {
        ingester_pb2.JOB_STATUS_SUCCEEDED,
        ingester_pb2.JOB_STATUS_PARTIAL,
        ingester_pb2.JOB_STATUS_FAILED,
        ingester_pb2.JOB_STATUS_CANCELLED,
    }
)


@dataclass(slots=True)
class _Document:
    entry: Entry
    item: Item
    data: bytes
    fingerprint: str
    prepared: bytes = b""
    chunks: int = 0

    def record(self, error: str) -> Record:
        state = FAILED if error else INDEXED
        item = self.item
        return Record(item.document_id, self.entry.version, item.sha256, self.chunks, state, error)


class BulkWorker:
    """The callable of `map_batches`: columns `key` and `version` in, `record` out."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._runner = asyncio.Runner()
        self._documents: BulkDocuments | None = None

    def __call__(self, batch: Mapping[str, Sequence[str]]) -> dict[str, Any]:
        """Work on a batch; return a line of the manifest for each of its documents."""
        entries = [
            Entry(str(key), str(version))
            for key, version in zip(batch["key"], batch["version"], strict=True)
        ]
        records = self._runner.run(self._work(entries))
        return {"record": np.array([record.line() for record in records], dtype=object)}

    async def _work(self, entries: Sequence[Entry]) -> list[Record]:
        # Made in the loop that it lives in, which goes on with every batch.
        if self._documents is None:
            self._documents = BulkDocuments(self._plan, IngesterSettings())
        return await self._documents.work(entries)


class BulkDocuments:
    """Documents of a plan, with the connections and processes that they need. Close it."""

    def __init__(self, plan: Plan, settings: IngesterSettings) -> None:
        self._plan = plan
        self._settings = settings
        self._reader = plan.reader(settings)
        self._retry = OutageRetry(settings.outage_patience_s)
        self._embedders = EndpointPool(
            "embedder", plan.services.embedder, embedder_pb2_grpc.EmbedderServiceStub
        )
        self._retrievers = EndpointPool(
            "retriever", plan.services.retriever, retriever_pb2_grpc.RetrieverServiceStub
        )
        self._embedder = EmbedderClient(self._embedders)
        self._retriever = RetrieverClient(self._retrievers, _ignore_revision)
        self._channel = client.connect(plan.services.ingester.partition(",")[0], target="ingester")
        self._ingester: Any = ingester_pb2_grpc.IngesterServiceStub(self._channel)
        self._folder = tempfile.TemporaryDirectory(prefix="raglan-bulk-")
        tokenizers = Path(self._folder.name, "tokenizers")
        tokenizers.mkdir()
        self._tokenizers = TokenizerFolder(tokenizers, self._embedder, self._retry)
        self._calls = asyncio.Semaphore(settings.embed_calls_in_flight)
        self._parser = SemanticParser(
            ParserPool(
                workers=settings.parse_workers,
                memory_bytes=settings.parse_memory_bytes,
                cpu_s=settings.parse_cpu_s,
                wall_s=settings.parse_wall_s,
                readable=(tokenizers,),
            ),
            self._vectors,
        )

    async def close(self) -> None:
        """Release what was opened."""
        await self._reader.close()
        await self._parser.close()
        await self._embedders.close()
        await self._retrievers.close()
        await self._channel.close()
        self._folder.cleanup()

    async def listing(self, skipped: Skipped) -> Listing:
        """List the source. Raises RaglanError."""
        found = await self._reader.list_entries("", skipped)
        assert found is not None  # there is no cursor from which nothing has changed
        return found

    async def collection(self) -> CollectionSettings:
        """Return the settings of the collection. Raises RaglanError."""
        found = await self._retry.call(lambda: self._retriever.collection(self._plan.collection))
        return found.with_defaults(
            max_chars=self._settings.chunk_max_chars,
            overlap_chars=self._settings.chunk_overlap_chars,
        )

    async def work(self, entries: Sequence[Entry]) -> list[Record]:
        """Bring documents into the collection; what fails is in their records."""
        try:
            settings = await self.collection()
            tokenizer = await self._tokenizers.current()
        except RaglanError as error:
            return [self._unread(entry, FAILED, error.message) for entry in entries]
        records: list[Record] = []
        group: list[_Document] = []
        for entry in entries:
            found = await self._read(entry, settings)
            if isinstance(found, Record):
                records.append(found)
                continue
            group.append(found)
            if sum(len(each.data) for each in group) >= _GROUP_BYTES:
                records += await self._finish(group, settings, tokenizer)
                group = []
        return records + (await self._finish(group, settings, tokenizer) if group else [])

    # Read

    async def _read(self, entry: Entry, settings: CollectionSettings) -> _Document | Record:
        try:
            check_document_id(f"{self._plan.name}/{entry.key}")
            content = await self._reader.read(entry, "")
        except RaglanError as error:
            return self._unread(entry, FAILED, error.message)
        if not isinstance(content, Content) or not content.data.strip():
            return self._unread(entry, GONE)
        item = self._plan.item(entry.key, content.data)
        return _Document(entry, item, content.data, fingerprint(item, settings))

    def _unread(self, entry: Entry, state: str, error: str = "") -> Record:
        return Record(f"{self._plan.name}/{entry.key}", entry.version, "", 0, state, error)

    # Prepare and submit

    async def _finish(
        self,
        group: Sequence[_Document],
        settings: CollectionSettings,
        tokenizer: ModelTokenizer | None,
    ) -> list[Record]:
        try:
            await self._prepare(group, settings, tokenizer)
            job = await self._retry.call(partial(self._submit, group))
            errors = await self._errors_of(job)
        except RaglanError as error:
            return [document.record(error.message) for document in group]
        return [document.record(errors.get(document.item.document_id, "")) for document in group]

    async def _prepare(
        self,
        group: Sequence[_Document],
        settings: CollectionSettings,
        tokenizer: ModelTokenizer | None,
    ) -> None:
        """Cut and embed. What cannot be parsed is submitted as it is: its job says why."""
        cuts = await asyncio.gather(*(self._cut(each, settings, tokenizer) for each in group))
        done = [(each, cut) for each, cut in zip(group, cuts, strict=True) if cut and cut.chunks]
        if not done:
            return
        texts = [text for _, cut in done for text in embedding_texts(cut)]
        replies = await self._embed(texts, settings.further)
        parts = divided(replies, [len(cut.chunks) for _, cut in done])
        for (document, cut), embedded in zip(done, parts, strict=True):
            document.prepared = to_bytes(cut, embedded)
            document.chunks = len(cut.chunks)

    async def _cut(
        self,
        document: _Document,
        settings: CollectionSettings,
        tokenizer: ModelTokenizer | None,
    ) -> CutDocument | None:
        item = document.item
        with tempfile.NamedTemporaryFile(dir=self._folder.name) as file:
            await asyncio.to_thread(_write, file.name, document.data)
            request = ParseRequest(
                path=Path(file.name),
                filename=item.filename,
                media_type=item.media_type,
                sizes=Sizes(
                    settings.max_chars,
                    settings.overlap_chars,
                    tokenizer.max_tokens if tokenizer else 0,
                    self._settings.max_chunks_per_document,
                ),
                title=item.title,
                strategy=settings.strategy,
                tokenizer=tokenizer.path if tokenizer else None,
            )
            try:
                return await self._parser.parse(request)
            except Unparsable:
                return None

    async def _embed(
        self, texts: Sequence[str], further: FurtherVectors = NO_FURTHER_VECTORS
    ) -> list[Embedded]:
        size = self._settings.embed_texts_per_call
        calls = (
            self._embed_call(texts[at : at + size], further) for at in range(0, len(texts), size)
        )
        return list(await asyncio.gather(*calls))

    async def _embed_call(self, texts: Sequence[str], further: FurtherVectors) -> Embedded:
        async with self._calls:
            return await self._retry.call(partial(self._embedder.embed, texts, further))

    async def _vectors(self, texts: Sequence[str]) -> NDArray[Any]:
        return np.concatenate([reply.vectors for reply in await self._embed(texts)])

    async def _submit(self, group: Sequence[_Document]) -> ingester_pb2.Job:
        requests = _requests(self._plan.collection, group)
        deadline = Deadline.after(_SUBMIT_S)
        job: ingester_pb2.Job = await client.call(
            self._ingester.Submit, requests, deadline=deadline, to="the ingester"
        )
        return job

    async def _errors_of(self, job: ingester_pb2.Job) -> Mapping[str, str]:
        """Wait until a job has ended; return the error of each document that failed."""
        until = asyncio.get_running_loop().time() + _JOB_S
        while job.status not in _ENDED:
            if asyncio.get_running_loop().time() > until:
                raise Unavailable(f"The job {job.id} has not ended within {_JOB_S:g} s.")
            await asyncio.sleep(_POLL_S)
            job = await self._retry.call(partial(self._job, job.id))
        errors = {each.document_id: each.message for each in job.errors}
        if job.status == ingester_pb2.JOB_STATUS_CANCELLED:
            raise Unavailable(f"The job {job.id} was cancelled.")
        return errors

    async def _job(self, id_: str) -> ingester_pb2.Job:
        request = ingester_pb2.GetJobRequest(id=id_)
        deadline = Deadline.after(_CALL_S)
        job: ingester_pb2.Job = await client.call(
            self._ingester.GetJob, request, deadline=deadline, to="the ingester"
        )
        return job


async def _requests(
    collection: str, group: Sequence[_Document]
) -> AsyncIterator[ingester_pb2.SubmitRequest]:
    head = ingester_pb2.JobHeader(collection=collection)
    yield ingester_pb2.SubmitRequest(job=head)
    for each in group:
        document = ingester_pb2.DocumentHeader(
            document_id=each.item.document_id,
            filename=each.item.filename,
            media_type=each.item.media_type,
            fingerprint=each.fingerprint if each.prepared else "",
        )
        yield ingester_pb2.SubmitRequest(document=document)
        for at in range(0, len(each.data), _PIECE_BYTES):
            yield ingester_pb2.SubmitRequest(data=each.data[at : at + _PIECE_BYTES])
        for at in range(0, len(each.prepared), _PIECE_BYTES):
            yield ingester_pb2.SubmitRequest(prepared=each.prepared[at : at + _PIECE_BYTES])


async def _ignore_revision(collection: str, revision: int) -> None:
    """The ingester counts the changes."""


def _write(path: str, data: bytes) -> None:
    Path(path).write_bytes(data)
