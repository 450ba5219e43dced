"""Chunks of a document as they would be made, without storing anything."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final

from raglan.chunking_strategy import check_strategy
from raglan.errors import InvalidInput, PayloadTooLarge, RaglanError

from raglan_ingester.blobs import BlobStore, BlobWriter
from raglan_ingester.chunking import Sizes
from raglan_ingester.clients.embedder import Model
from raglan_ingester.clients.retriever import CollectionSettings
from raglan_ingester.parsers.parsed import Unparsable
from raglan_ingester.parsing import CutDocument, Parser, ParseRequest
from raglan_ingester.token_index import ModelTokenizer
from raglan_ingester.tokenizer_files import TokenizerFolder

MAX_CHUNK_CHARS: Final = 20_000
_NO_TOKENIZER: Final = (
    "The embedder's tokenizer is not at hand, so chunks were measured in characters alone; a job "
    "may make more of them."
)


@dataclass(frozen=True, slots=True)
class PreviewStart:
    """Options of a preview; empty and 0 leave the choice to the collection or the service."""

    collection: str
    """Its qualified name."""
    filename: str
    media_type: str
    title: str
    strategy: str
    max_chars: int
    overlap_chars: int


@dataclass(frozen=True, slots=True)
class Preview:
    """A document cut by these settings."""

    settings: CollectionSettings
    cut: CutDocument


class ChunkPreviewer:
    """Parses and cuts a document that is thrown away afterwards.

    Args:
        blobs: where the bytes lie meanwhile.
        parser: the pool that jobs use too.
        tokenizers: gives the embedding model's tokenizer.
        collection: returns the settings of a collection. Raises NotFound.
        max_document_bytes: largest document.
        max_chunks: most chunks of a document.
        defaults: sizes of a chunk where nothing else is said.
    """

    def __init__(
        self,
        blobs: BlobStore,
        parser: Parser,
        tokenizers: TokenizerFolder,
        collection: Callable[[str], Awaitable[CollectionSettings]],
        *,
        max_document_bytes: int,
        max_chunks: int,
        defaults: Sizes,
    ) -> None:
        self._blobs = blobs
        self._parser = parser
        self._tokenizers = tokenizers
        self._collection = collection
        self._max_document_bytes = max_document_bytes
        self._max_chunks = max_chunks
        self._defaults = defaults

    async def preview(self, start: PreviewStart, pieces: AsyncIterator[bytes]) -> Preview:
        """Cut the document that `pieces` hold.

        Raises:
            InvalidInput: it cannot be read, or an unknown strategy or size.
            PayloadTooLarge: it is larger than a document may be.
            NotFound: there is no such collection.
        """
        settings = await self._settings(start)
        writer = self._blobs.writer()
        try:
            await self._receive(writer, pieces)
            tokenizer = await self._tokenizer()
            cut = await self._cut(writer, start, settings, tokenizer)
        finally:
            await writer.discard()
        if tokenizer is None:
            cut.warnings.append(_NO_TOKENIZER)
        return Preview(settings, cut)

    async def _settings(self, start: PreviewStart) -> CollectionSettings:
        if start.collection:
            found = await self._collection(start.collection)
        else:
            found = CollectionSettings(Model("", "", 0), 0, 0, "")
        if start.max_chars:
            if start.max_chars > MAX_CHUNK_CHARS:
                raise InvalidInput(
                    f"max_chars is {start.max_chars}; the limit is {MAX_CHUNK_CHARS}."
                )
            found = replace(found, max_chars=start.max_chars, overlap_chars=start.overlap_chars)
        if start.strategy:
            found = replace(found, strategy=check_strategy(start.strategy))
        return found.with_defaults(
            max_chars=self._defaults.max_chars,
            overlap_chars=self._defaults.overlap_chars,
        )

    async def _receive(self, writer: BlobWriter, pieces: AsyncIterator[bytes]) -> None:
        async for piece in pieces:
            if writer.size_bytes + len(piece) > self._max_document_bytes:
                raise PayloadTooLarge(
                    f"The document is larger than {self._max_document_bytes:,} bytes, the limit "
                    "(RAGLAN_INGESTER_MAX_DOCUMENT_BYTES)."
                )
            await writer.write(piece)

    async def _tokenizer(self) -> ModelTokenizer | None:
        try:
            return await self._tokenizers.current()
        except RaglanError:
            return None

    async def _cut(
        self,
        writer: BlobWriter,
        start: PreviewStart,
        settings: CollectionSettings,
        tokenizer: ModelTokenizer | None,
    ) -> CutDocument:
        request = ParseRequest(
            path=await writer.flushed(),
            filename=start.filename,
            media_type=start.media_type,
            sizes=Sizes(
                settings.max_chars,
                settings.overlap_chars,
                tokenizer.max_tokens if tokenizer else 0,
                self._max_chunks,
            ),
            strategy=settings.strategy,
            title=start.title,
            tokenizer=tokenizer.path if tokenizer else None,
        )
        try:
            return await self._parser.parse(request)
        except Unparsable as error:
            raise InvalidInput(str(error)) from None
