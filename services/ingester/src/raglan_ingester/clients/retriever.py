"""The index, as the ingester writes it.

The ingester knows collections by their qualified names. Here, and in `index_transfer`, they become
a tenant and the name that its retriever knows.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from numpy.typing import NDArray
from raglan import access_tags, tenancy, tensors
from raglan.chunking_strategy import STRUCTURE
from raglan.deadline import Deadline
from raglan.rpc.pool import EndpointPool
from raglan.v1 import common_pb2, retriever_pb2

from raglan_ingester.clients.embedder import NO_FURTHER_VECTORS, FurtherVectors, Model
from raglan_ingester.labels import Labels
from raglan_ingester.versions import Edition, Kept, Retention

_CALL_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class CollectionSettings:
    """A collection's chunking and embedding settings; 0 for the default."""

    model: Model
    max_chars: int
    overlap_chars: int
    created: str
    """Tells it from an earlier collection of the same name."""
    strategy: str = STRUCTURE
    further: FurtherVectors = NO_FURTHER_VECTORS
    versions: Retention | None = None
    """Which earlier versions of documents it keeps; None for none."""
    contextual: bool = False
    """A language model situates each chunk in its document."""

    def with_defaults(self, *, max_chars: int, overlap_chars: int) -> CollectionSettings:
        """Return the same with these sizes, where it has none of its own."""
        if self.max_chars:
            return self
        return replace(self, max_chars=max_chars, overlap_chars=overlap_chars)


@dataclass(frozen=True, slots=True)
class IndexChunk:
    """A chunk to be indexed."""

    chunk_id: str
    document_id: str
    ordinal: int
    title: str
    text: str
    start: int
    end: int
    heading_path: Sequence[str]
    metadata_json: str
    own_metadata_json: str = ""
    """Metadata of this chunk alone."""
    page: int = 0
    """On which it begins, from 1; 0 without pages."""
    structure: bytes = b""
    """See `raglan.blocks.to_bytes`."""
    language: str = ""
    """ISO 639-1."""
    readability: float | None = None
    """Readability for the embedding model, in [0, 1]; None where the embedder does not know."""
    filename: str = ""
    created_ms: int = 0
    """Time of submission, in milliseconds since the epoch."""
    access: Sequence[str] = ()
    """Tags of which a caller must hold one to find it."""
    gap_before: str = ""
    """Text between the chunk before and this one."""
    section: tuple[int, int] | None = None
    """Positions of the first and the last chunk of its section."""
    edition: Edition | None = None
    """Of its document's version; None where the collection keeps no versions."""
    tokens: NDArray[Any] | None = None
    """Its token vectors; None where the collection has none."""
    sparse: tensors.SparseVector | None = None
    """Its term weights by the model; None where the collection has none."""


class RetrieverClient:
    """Every method raises RaglanError. Retries are decided by the caller (OutageRetry)."""

    def __init__(
        self, pool: EndpointPool, on_change: Callable[[str, int], Awaitable[None]]
    ) -> None:
        """Call the retrievers of `pool`.

        Args:
            pool: The retrievers.
            on_change: Awaited with a collection and its revision after each change of its chunks.
        """
        self._pool = pool
        self._on_change = on_change

    async def collection(self, name: str, deadline: Deadline | None = None) -> CollectionSettings:
        """Raises NotFound when there is no such collection."""
        with tenancy.owner_of(name) as alone:
            request = retriever_pb2.GetCollectionRequest(name=alone)
            reply = await self._call("GetCollection", request, deadline)
        return CollectionSettings(
            Model(reply.embedder.id, reply.embedder.revision, reply.embedder.dimension),
            reply.chunking.max_chars,
            reply.chunking.overlap_chars,
            reply.created,
            reply.chunking.strategy or STRUCTURE,
            FurtherVectors(
                reply.further_vectors.token_vectors,
                reply.further_vectors.token_pooling or 1,
                reply.further_vectors.sparse,
            ),
            versions=Retention(reply.versions.max_versions, reply.versions.max_age_days)
            if reply.HasField("versions")
            else None,
            contextual=reply.chunking.contextual,
        )

    async def upsert(
        self, collection: str, model: Model, chunks: Sequence[IndexChunk], vectors: NDArray[Any]
    ) -> None:
        """Store chunks with their vectors, one row a chunk."""
        request = retriever_pb2.UpsertRequest(
            embedder=common_pb2.ModelIdentity(
                id=model.id, revision=model.revision, dimension=model.dimension
            ),
            chunks=[_to_proto(chunk) for chunk in chunks],
            vectors=tensors.pack(vectors),
            readability=[chunk.readability for chunk in chunks if chunk.readability is not None],
        )
        if tokens := [chunk.tokens for chunk in chunks if chunk.tokens is not None]:
            request.token_vectors.CopyFrom(tensors.pack_tokens(tokens))
        if sparse := [chunk.sparse for chunk in chunks if chunk.sparse is not None]:
            request.sparse.CopyFrom(tensors.pack_sparse(sparse))
        with tenancy.owner_of(collection) as request.collection:
            reply = await self._call("Upsert", request)
        await self._on_change(collection, reply.revision)

    async def delete(
        self,
        collection: str,
        document_ids: Sequence[str],
        *,
        keep: Sequence[str] = (),
        deadline: Deadline | None = None,
    ) -> int:
        """Remove the documents' chunks except `keep`; how many there were."""
        request = retriever_pb2.DeleteRequest(document_ids=document_ids, keep_chunk_ids=keep)
        with tenancy.owner_of(collection) as request.collection:
            reply = await self._call("Delete", request, deadline)
        await self._on_change(collection, reply.revision)
        return int(reply.deleted_chunks)

    async def label(
        self,
        collection: str,
        labels: Mapping[str, Labels],
        *,
        deadline: Deadline | None = None,
    ) -> None:
        """Replace metadata and tags of documents, by id, on all their chunks."""
        request = retriever_pb2.LabelDocumentsRequest(
            documents=[
                retriever_pb2.DocumentLabels(
                    document_id=id_, metadata_json=each.metadata_json, access=each.access
                )
                for id_, each in labels.items()
            ]
        )
        with tenancy.owner_of(collection) as request.collection:
            reply = await self._call("LabelDocuments", request, deadline)
        await self._on_change(collection, reply.revision)

    async def keep_versions(
        self,
        collection: str,
        documents: Mapping[str, Kept],
        *,
        deadline: Deadline | None = None,
    ) -> None:
        """Make replaced versions earlier ones, and remove those that are not kept."""
        request = retriever_pb2.KeepVersionsRequest()
        for id_, kept in documents.items():
            named = request.documents.add(document_id=id_, present=kept.present, access=kept.access)
            for number, valid_to_ms in kept.earlier.items():
                named.earlier.add(number=number).valid_to.FromMilliseconds(valid_to_ms)
        with tenancy.owner_of(collection) as request.collection:
            reply = await self._call("KeepVersions", request, deadline)
        await self._on_change(collection, reply.revision)

    async def count(self, collection: str, document_ids: Sequence[str]) -> list[int]:
        """Count the chunks of each document in the index."""
        request = retriever_pb2.CountChunksRequest(document_ids=document_ids)
        with tenancy.owner_of(collection) as request.collection:
            return list((await self._call("CountChunks", request)).counts)

    async def _call(self, method: str, request: Any, deadline: Deadline | None = None) -> Any:
        within = deadline or Deadline.after(_CALL_S, is_budget=True)
        # Whom a change is allowed was decided before it; the index keeps all documents alike.
        with access_tags.serving(None):
            return await self._pool.call(method, request, deadline=within, retry=False)


def _to_proto(chunk: IndexChunk) -> retriever_pb2.Chunk:
    message = retriever_pb2.Chunk(
        chunk_id=chunk.chunk_id,
        document_id=chunk.document_id,
        ordinal=chunk.ordinal,
        title=chunk.title,
        text=chunk.text,
        start=chunk.start,
        end=chunk.end,
        heading_path=chunk.heading_path,
        metadata_json=chunk.metadata_json,
        own_metadata_json=chunk.own_metadata_json,
        page=chunk.page,
        structure=chunk.structure,
        language=chunk.language,
        filename=chunk.filename,
        access=chunk.access,
        gap_before=chunk.gap_before,
    )
    if chunk.section is not None:
        message.section.first, message.section.last = chunk.section
    if chunk.edition is not None:
        message.version.number = chunk.edition.number
        message.version.valid_from.FromMilliseconds(chunk.edition.valid_from_ms)
    message.created_at.FromMilliseconds(chunk.created_ms)
    return message
