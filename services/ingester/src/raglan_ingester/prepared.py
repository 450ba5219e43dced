"""Documents that were cut and embedded before their submission, kept until their job takes them.

They are a cache: a job that does not find a document here parses and embeds it itself. They are
kept by the fingerprint that the job would give, so that what was prepared by other settings, by
another model or by another version of the code is never found.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from google.protobuf.message import DecodeError
from raglan import tensors
from raglan.disk import Disk
from raglan.errors import InvalidInput
from raglan.identifiers import shortened
from raglan.v1 import common_pb2, ingester_pb2

from raglan_ingester.blobs import BlobWriter
from raglan_ingester.clients.embedder import Embedded, Model
from raglan_ingester.parsers.parsed import Unparsable
from raglan_ingester.parsing import CutDocument, body_of, reply_of

_KEPT_S: Final = 86_400.0
"""What no job took by then is removed."""
_DIGEST_CHARS: Final = 64


@dataclass(frozen=True, slots=True)
class PreparedDocument:
    """A document that only has to be indexed."""

    cut: CutDocument
    embedded: Embedded


class PreparedStore:
    """Files in one folder, named by fingerprint."""

    def __init__(self, root: Path, *, min_free_mb: int = 0) -> None:
        self._root = root
        self._disk = Disk(
            "The disk of the ingester's data folder (RAGLAN_INGESTER_DATA_DIR)",
            root.parent,
            min_free_mb,
            "RAGLAN_INGESTER_MIN_FREE_MB",
            "Nothing of the upload was kept: free some space and send it again.",
        )

    def writer(self, fingerprint: str) -> BlobWriter:
        """Create a writer of one prepared document. Raises InvalidInput."""
        if len(fingerprint) != _DIGEST_CHARS or not set(fingerprint) <= set("0123456789abcdef"):
            raise InvalidInput(f"{shortened(fingerprint)} is no fingerprint.")
        self._root.mkdir(exist_ok=True)
        partial = self._root / f"partial-{secrets.token_hex(16)}"
        return BlobWriter(_Place(self._root / fingerprint), partial, self._disk)

    async def take(self, fingerprint: str, max_chunks: int) -> PreparedDocument | None:
        """Return a document and forget it; None where it is not here, or cannot be used."""
        return await asyncio.to_thread(self._take, self._root / fingerprint, max_chunks)

    async def discard(self, fingerprints: Iterable[str]) -> None:
        """Forget documents."""
        await asyncio.to_thread(self._discard, list(fingerprints))

    async def sweep(self) -> None:
        """Forget what no job took."""
        await asyncio.to_thread(self._sweep, time.time() - _KEPT_S)

    def _take(self, path: Path, max_chunks: int) -> PreparedDocument | None:
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        path.unlink(missing_ok=True)
        try:
            found = from_bytes(data)
        except (DecodeError, InvalidInput, KeyError, TypeError, ValueError):
            return None
        return found if len(found.cut.chunks) <= max_chunks else None

    def _discard(self, fingerprints: list[str]) -> None:
        for fingerprint in fingerprints:
            (self._root / fingerprint).unlink(missing_ok=True)

    def _sweep(self, oldest: float) -> None:
        for path in self._root.glob("*"):
            if path.stat().st_mtime < oldest:
                path.unlink(missing_ok=True)


class _Place:
    """Where a prepared document goes once it is whole."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def adopt(self, received: Path, sha256: str) -> None:
        received.rename(self._path)


def to_bytes(cut: CutDocument, embedded: Embedded) -> bytes:
    """Return the message of a document."""
    model = embedded.model
    return ingester_pb2.PreparedDocument(
        cut_json=body_of(cut),
        vectors=tensors.pack(embedded.vectors),
        model=common_pb2.ModelIdentity(
            id=model.id, revision=model.revision, dimension=model.dimension
        ),
        truncated_tokens=embedded.truncated_tokens,
        readability=embedded.readability,
        token_vectors=tensors.pack_tokens(embedded.tokens) if embedded.tokens else None,
        sparse=tensors.pack_sparse(embedded.sparse) if embedded.sparse else None,
    ).SerializeToString()


def from_bytes(data: bytes) -> PreparedDocument:
    """Read a message of `to_bytes`.

    Raises:
        DecodeError, InvalidInput, KeyError, TypeError, ValueError: it is none.
    """
    message = ingester_pb2.PreparedDocument.FromString(data)
    cut = reply_of(message.cut_json)
    vectors = tensors.unpack(message.vectors).astype(np.float32, copy=False)
    rows = len(vectors)
    if isinstance(cut, Unparsable) or rows != len(cut.chunks):
        raise ValueError("a row of vectors a chunk")
    tokens = (
        tensors.unpack_tokens(message.token_vectors) if message.HasField("token_vectors") else ()
    )
    sparse = tensors.unpack_sparse(message.sparse) if message.HasField("sparse") else ()
    each = (message.truncated_tokens, message.readability, tokens, sparse)
    if {len(values) for values in each} - {0, rows}:
        raise ValueError("a figure a chunk")
    model = Model(message.model.id, message.model.revision, message.model.dimension)
    embedded = Embedded(
        vectors,
        model,
        tuple(message.truncated_tokens),
        tuple(message.readability),
        tokens,
        sparse,
    )
    return PreparedDocument(cut, embedded)
