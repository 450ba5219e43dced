"""Sentences that situate chunks in their documents, written by a language model.

They are embedded before the chunk's text, and neither stored with the chunk nor shown. Each is kept
with its document under a digest of what the model was shown, so that a job that is resumed, or a
document that is sent again, pays for none twice. A chunk that gets none is embedded without one.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final, Protocol

import sqlalchemy as sa
from raglan.database import Transactions
from raglan.errors import RaglanError, Unavailable
from raglan.v1 import generator_pb2
from sqlalchemy.orm import Session

from raglan_ingester.model import ChunkContext, Document
from raglan_ingester.outage_retry import OutageRetry
from raglan_ingester.parsing import CutDocument
from raglan_ingester.revisions import insert

TOKENS: Final = 64
"""Tokens of the embedding model that are kept free for a sentence."""
_LAYOUT: Final = "1"
"""Raise it when the generator is asked for another sentence."""
_FAILURES: Final = 5
"""Calls of a job that fail in a row until the rest of its chunks go without."""
_GAP: Final = "\n[...]\n"


class Writer(Protocol):
    """The part of the generator in use."""

    async def situate(
        self, title: str, document: str, passage: str
    ) -> generator_pb2.SituateResponse:
        """Raises RaglanError."""
        ...


@dataclass(slots=True)
class Cost:
    """Sentences of a job, and what they cost."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    reused: int = 0
    missing: int = 0

    def as_dict(self) -> dict[str, int]:
        """Return it as a job stores it."""
        return asdict(self)


class ContextStore:
    """Sentences in the database; they go with their documents."""

    def __init__(self, database: Transactions) -> None:
        self._database = database

    async def held(self, collection: str, document_id: str) -> dict[str, str]:
        """Return the sentences of a document by key."""
        query = sa.select(ChunkContext.key, ChunkContext.sentence).where(
            ChunkContext.collection == collection, ChunkContext.document_id == document_id
        )
        return await self._database.run(
            lambda session: {row.key: row.sentence for row in session.execute(query)}
        )

    async def add(self, collection: str, document_id: str, key: str, sentence: str) -> None:
        """Keep a sentence, unless its document is gone."""

        def work(session: Session) -> None:
            if session.get(Document, (collection, document_id), with_for_update=True) is None:
                return
            row = {"collection": collection, "document_id": document_id, "key": key}
            statement = insert(session, ChunkContext).values(**row, sentence=sentence)
            session.execute(statement.on_conflict_do_nothing())

        await self._database.run(work)

    async def forget(self, collection: str, document_id: str, keys: Sequence[str]) -> None:
        """Remove sentences of a document."""
        await self._database.run(
            lambda session: session.execute(
                sa.delete(ChunkContext).where(
                    ChunkContext.collection == collection,
                    ChunkContext.document_id == document_id,
                    ChunkContext.key.in_(keys),
                )
            )
        )


@dataclass(frozen=True, slots=True)
class Contexts:
    """Writes sentences for all jobs.

    Args:
        writer: the language model.
        retry: waits for it.
        store: keeps what was written.
        calls: of the model at a time, of all jobs.
        document_chars: of a document that the model is shown for a chunk.
    """

    writer: Writer
    retry: OutageRetry
    store: ContextStore
    calls: asyncio.Semaphore
    document_chars: int

    async def ask(self, title: str, excerpt: str, passage: str) -> generator_pb2.SituateResponse:
        """Have a sentence written; a generator that is away is waited for.

        Raises:
            RaglanError: it stayed away, or its model wrote no sentence.
        """

        async def attempt() -> generator_pb2.SituateResponse | Unavailable:
            try:
                return await self.writer.situate(title, excerpt, passage)
            except Unavailable as error:
                if not error.is_final:
                    raise
                return error

        reply = await self.retry.call(attempt)
        if isinstance(reply, Unavailable):
            raise reply
        return reply

    def of_job(self, spent: Mapping[str, int] | None) -> JobContexts:
        """Return what writes those of one job, which has spent so much before."""
        return JobContexts(self, Cost(**(spent or {})))


class JobContexts:
    """Writes the sentences of one job."""

    def __init__(self, contexts: Contexts, cost: Cost) -> None:
        self._contexts = contexts
        self.cost = cost
        self._failures = 0
        self._reason = ""

    async def sentences(self, collection: str, id_: str, cut: CutDocument) -> list[str]:
        """Return a sentence for each chunk of a document; empty where there is none."""
        if len(cut.chunks) < 2:  # the chunk is the document
            return [""] * len(cut.chunks)
        store = self._contexts.store
        held = await store.held(collection, id_)
        shown = [
            (
                around(cut.text, each.start, each.end, self._contexts.document_chars),
                cut.text[each.start : each.end],
            )
            for each in cut.chunks
        ]
        keys = [_key(cut.title, *each) for each in shown]

        async def sentence(key: str, excerpt: str, passage: str) -> str:
            if (known := held.get(key)) is not None:
                self.cost.reused += 1
                return known
            if written := await self._write(cut.title, excerpt, passage):
                await store.add(collection, id_, key, written)
            return written

        found = await asyncio.gather(
            *(sentence(key, *each) for key, each in zip(keys, shown, strict=True))
        )
        if stale := held.keys() - set(keys):
            await store.forget(collection, id_, sorted(stale))
        return found

    async def _write(self, title: str, excerpt: str, passage: str) -> str:
        """Return a sentence; empty where the model writes none within its time."""
        async with self._contexts.calls:
            if self._failures >= _FAILURES:
                self.cost.missing += 1
                return ""
            self.cost.calls += 1
            try:
                reply = await self._contexts.ask(title, excerpt, passage)
            except RaglanError as error:
                self._failures += 1
                self._reason = error.message
                self.cost.missing += 1
                return ""
        self._failures = 0
        self.cost.prompt_tokens += reply.usage.prompt_tokens
        self.cost.completion_tokens += reply.usage.completion_tokens
        return reply.sentence

    def warnings(self) -> list[str]:
        """Say how many chunks are embedded without a sentence, and why."""
        if not self._reason:
            return []
        return [
            f"{self.cost.missing:,} chunks are embedded without a sentence of context; the last "
            f"reason: {self._reason}"
        ]


def around(text: str, start: int, end: int, limit: int) -> str:
    """Return up to `limit` characters of a document: its beginning, and those around a passage.

    Args:
        text: of the document.
        start: of the passage.
        end: of the passage.
        limit: characters in all, gaps aside.
    """
    if len(text) <= limit:
        return text
    head = limit // 2
    rest = limit - head
    begin = max(0, min(start - max(0, rest - (end - start)) // 2, len(text) - rest))
    if begin <= head:
        return text[: begin + rest]
    return f"{text[:head]}{_GAP}{text[begin : begin + rest]}"


def _key(title: str, excerpt: str, passage: str) -> str:
    shown = json.dumps([_LAYOUT, title, excerpt, passage]).encode()
    return hashlib.sha256(shown).hexdigest()
