"""The embedding model's tokenizer as a file that parser processes can read."""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path
from typing import Protocol

import structlog
from raglan.errors import NotSupported

from raglan_ingester.clients.embedder import TokenizerDefinition
from raglan_ingester.outage_retry import OutageRetry
from raglan_ingester.token_index import ModelTokenizer

log = structlog.get_logger()


class TokenizerSource(Protocol):
    """The embedder, as far as it is needed here."""

    async def tokenizer(self) -> TokenizerDefinition:
        """Raises RaglanError."""
        ...


class TokenizerFolder:
    """Keeps the definitions that the embedder gave, one file for each content."""

    def __init__(self, folder: Path, embedder: TokenizerSource, retry: OutageRetry) -> None:
        self._folder = folder
        self._embedder = embedder
        self._retry = retry

    async def current(self) -> ModelTokenizer | None:
        """The tokenizer of the model that the embedder runs; None where it has none of its own.

        Raises:
            RaglanError: the embedder cannot be reached.
        """
        try:
            found = await self._retry.call(self._embedder.tokenizer)
        except NotSupported as error:
            log.warning("no tokenizer; chunks are measured in characters", reason=error.message)
            return None
        if not found.definition:
            return None
        path = await asyncio.to_thread(self._keep, found.definition)
        return ModelTokenizer(path, found.max_tokens)

    def _keep(self, definition: bytes) -> Path:
        path = self._folder / f"{hashlib.sha256(definition).hexdigest()[:32]}.json"
        if not path.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(f".{os.getpid()}")
            partial.write_bytes(definition)
            partial.replace(path)
        return path
