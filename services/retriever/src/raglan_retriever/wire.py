"""Conversion between protobuf messages and the index's types."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Final

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp
from raglan import fusion, tensors
from raglan.errors import InvalidInput
from raglan.filtering.clauses import Clause
from raglan.filtering.wire import clause_from_proto
from raglan.rpc import pages
from raglan.v1 import common_pb2, embedder_pb2, retriever_pb2

from raglan_retriever.attempts import Searched
from raglan_retriever.chunk_vectors import ChunkVectors
from raglan_retriever.chunks import Chunk
from raglan_retriever.collection import Collection, FurtherVectors, Model, Retention
from raglan_retriever.legs import Synonyms
from raglan_retriever.lexical import Sparse
from raglan_retriever.model_legs import QueryVectors
from raglan_retriever.neighbours import Neighbourhood
from raglan_retriever.query import Fusion, Mode, Query
from raglan_retriever.searching import SearchHit
from raglan_retriever.stores.store import LearnedSparse, Stats, VectorIndex
from raglan_retriever.transfer import IndexedChunks
from raglan_retriever.validity import KeptVersions, Version

_MODES: Final[dict[int, Mode]] = {
    retriever_pb2.SEARCH_MODE_UNSPECIFIED: "hybrid",
    retriever_pb2.SEARCH_MODE_HYBRID: "hybrid",
    retriever_pb2.SEARCH_MODE_DENSE: "dense",
    retriever_pb2.SEARCH_MODE_LEXICAL: "lexical",
}
MAX_VERSIONS: Final = 1000
_METHODS: Final[dict[int, fusion.Method]] = {
    retriever_pb2.FUSION_METHOD_DBSF: "dbsf",
    retriever_pb2.FUSION_METHOD_MIN_MAX: "min_max",
    retriever_pb2.FUSION_METHOD_RRF: "rrf",
}


def model_from_proto(message: common_pb2.ModelIdentity) -> Model:
    """Convert a model's identity."""
    return Model(message.id, message.revision, message.dimension)


def chunk_from_proto(message: retriever_pb2.Chunk) -> Chunk:
    """Convert a chunk to index.

    Raises:
        InvalidInput: its time is none.
    """
    return Chunk(
        chunk_id=message.chunk_id,
        document_id=message.document_id,
        ordinal=message.ordinal,
        title=message.title,
        text=message.text,
        start=message.start,
        end=message.end,
        heading_path=tuple(message.heading_path),
        metadata_json=message.metadata_json,
        own_metadata_json=message.own_metadata_json,
        page=message.page,
        structure=message.structure,
        language=message.language,
        filename=message.filename,
        created_ms=milliseconds(
            message.created_at, f"created_at of chunk {message.chunk_id[:100]!r}"
        ),
        gap_before=message.gap_before,
        section=_section_from_proto(message),
        access=tuple(message.access),
        version=_version_from_proto(message),
    )


def _version_from_proto(message: retriever_pb2.Chunk) -> Version | None:
    if not message.HasField("version"):
        return None
    version = message.version
    return Version(
        version.number,
        milliseconds(version.valid_from, "valid_from"),
        milliseconds(version.valid_to, "valid_to") if version.HasField("valid_to") else None,
        tuple(version.own_access),
    )


def _version_to_proto(version: Version | None) -> retriever_pb2.ChunkVersion | None:
    if version is None:
        return None
    message = retriever_pb2.ChunkVersion(number=version.number, own_access=version.own_access)
    message.valid_from.FromMilliseconds(version.valid_from_ms)
    if version.valid_to_ms is not None:
        message.valid_to.FromMilliseconds(version.valid_to_ms)
    return message


def _section_from_proto(message: retriever_pb2.Chunk) -> tuple[int, int] | None:
    if not message.HasField("section"):
        return None
    first, last = message.section.first, message.section.last
    if not first <= message.ordinal <= last:
        raise InvalidInput(
            f"The section of chunk {message.chunk_id[:100]!r} is {first} to {last}; it must hold "
            f"the chunk's own position, {message.ordinal}."
        )
    return first, last


def _section_to_proto(chunk: Chunk) -> common_pb2.ChunkRange | None:
    if chunk.section is None:
        return None
    return common_pb2.ChunkRange(first=chunk.section[0], last=chunk.section[1])


def milliseconds(moment: Timestamp, name: str) -> int:
    """Convert a time to milliseconds since 1970. Raises InvalidInput."""
    try:
        return moment.ToMilliseconds()
    except ValueError:
        raise InvalidInput(
            f"{name} is no timestamp: its seconds are those of the years 1 to 9999, its nanos 0 to "
            "999999999."
        ) from None


def query_from_proto(request: retriever_pb2.SearchRequest, default: Fusion) -> Query:
    """Convert a search request.

    Raises:
        InvalidInput: an unknown mode or method, weights out of range, a malformed vector or filter.
    """
    mode = _MODES.get(request.mode)
    if mode is None:
        raise InvalidInput(f"The search mode is {request.mode}; it must be one of {list(_MODES)}.")
    vector = None
    if mode != "lexical" and request.HasField("vector"):
        matrix = tensors.unpack(request.vector)
        if len(matrix) != 1:
            raise InvalidInput(f"The query has {len(matrix)} vectors; it must have one.")
        vector = matrix[0].astype("float32")
    return Query(
        collections=tuple(request.collections),
        mode=mode,
        limit=request.limit,
        text=request.text,
        vector=vector,
        model=model_from_proto(request.embedder) if request.HasField("embedder") else None,
        readability=_readability_from_proto(request),
        further=_query_vectors_from_proto(request),
        where=filter_from_proto(request),
        as_of_ms=as_of_from_proto(request),
        fusion=_fusion_from_proto(request.fusion, default),
        collection_budget_s=request.collection_budget_ms / 1e3 or None,
    )


def filter_from_proto(
    request: retriever_pb2.SearchRequest | retriever_pb2.GetNeighboursRequest,
) -> Clause | None:
    """Convert the filter of a request. Raises InvalidInput."""
    return clause_from_proto(request.filter) if request.HasField("filter") else None


def as_of_from_proto(
    request: retriever_pb2.SearchRequest | retriever_pb2.GetNeighboursRequest,
) -> int | None:
    """Convert the time of a request, to milliseconds since 1970. Raises InvalidInput."""
    return milliseconds(request.as_of, "as_of") if request.HasField("as_of") else None


def neighbourhoods_from_proto(
    request: retriever_pb2.GetNeighboursRequest,
) -> list[Neighbourhood]:
    """Convert a request for neighbours.

    Raises:
        InvalidInput: one names no collection of the request, or its range is reversed.
    """
    wanted = []
    for around in request.around:
        first, last = around.wanted.first, around.wanted.last
        if around.collection >= len(request.collections) or first > last:
            raise InvalidInput(
                f"A neighbourhood names collection {around.collection} of "
                f"{len(request.collections)} and the chunks {first} to {last}."
            )
        name = request.collections[around.collection]
        wanted.append(Neighbourhood(name, around.chunk_id, around.ordinal, first, last))
    return wanted


def collection_to_proto(collection: Collection, stats: Stats) -> retriever_pb2.Collection:
    """Convert a collection's description and statistics."""
    return retriever_pb2.Collection(
        name=collection.name,
        embedder=model_to_proto(collection.model),
        chunking=retriever_pb2.Chunking(
            max_chars=collection.max_chars,
            overlap_chars=collection.overlap_chars,
            strategy=collection.strategy,
            contextual=collection.contextual,
        ),
        chunks=stats.chunks,
        documents=stats.documents,
        disk_bytes=stats.disk_bytes,
        unindexed_chunks=stats.unindexed_chunks,
        created=collection.created,
        profile=collection.profile,
        versions=_retention_to_proto(collection.versions),
        further_vectors=further_to_proto(collection.further_vectors),
        index=None if stats.index is None else _index_to_proto(stats.index),
    )


def _index_to_proto(index: VectorIndex) -> retriever_pb2.VectorIndex:
    plan = index.plan
    return retriever_pb2.VectorIndex(
        state=index.state,
        chunks=index.chunks,
        recall_target=index.recall_target,
        m=plan.m if plan else 0,
        ef_construct=plan.ef_construct if plan else 0,
        ef=plan.ef if plan else 0,
        quantization=plan.quantization if plan else "",
        oversampling=plan.oversampling if plan else 0,
        on_disk=plan.on_disk if plan else (),
    )


def retention_from_proto(
    request: retriever_pb2.CreateCollectionRequest,
) -> Retention | None:
    """Convert which versions a collection keeps.

    Raises:
        InvalidInput: the number is out of range.
    """
    if not request.HasField("versions"):
        return None
    if not 1 <= request.versions.max_versions <= MAX_VERSIONS:
        raise InvalidInput(
            f"max_versions is {request.versions.max_versions}; it must be 1 to {MAX_VERSIONS}."
        )
    return Retention(request.versions.max_versions, request.versions.max_age_days)


def _retention_to_proto(held: Retention | None) -> retriever_pb2.VersionRetention | None:
    if held is None:
        return None
    return retriever_pb2.VersionRetention(
        max_versions=held.max_versions, max_age_days=held.max_age_days
    )


def kept_from_proto(request: retriever_pb2.KeepVersionsRequest) -> dict[str, KeptVersions]:
    """Convert the versions of documents that are kept, by document. Raises InvalidInput."""
    return {
        each.document_id: KeptVersions(
            each.present,
            tuple(each.access),
            {old.number: milliseconds(old.valid_to, "valid_to") for old in each.earlier},
        )
        for each in request.documents
    }


def description_to_proto(collection: Collection) -> retriever_pb2.CollectionDescription:
    """Convert a collection's description, for a backup."""
    return retriever_pb2.CollectionDescription(
        name=collection.name,
        embedder=model_to_proto(collection.model),
        json=json.dumps(collection.to_json(), separators=(",", ":")),
    )


def description_from_proto(message: retriever_pb2.CollectionDescription) -> Collection:
    """Convert a description from a backup.

    Raises:
        InvalidInput: it is none.
        NewerFormat: a later version made it.
    """
    try:
        return replace(Collection.from_json(json.loads(message.json)), name=message.name)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InvalidInput(
            f"The description of collection {message.name!r} is not one that a retriever wrote."
        ) from None


def indexed_to_proto(
    name: str, held: IndexedChunks, *, page_bytes: int = pages.PAGE_BYTES
) -> retriever_pb2.IndexedChunks:
    """Convert as many of the chunks as fit into `page_bytes`, and at least one if there is any."""
    row_bytes = held.vectors.itemsize * (held.vectors.shape[1] if held.vectors.ndim > 1 else 0)
    chunks: list[retriever_pb2.Chunk] = []
    size = 0
    for at, (chunk, words) in enumerate(zip(held.chunks, held.lexical, strict=True)):
        message = chunk_to_proto(chunk)
        size += message.ByteSize() + row_bytes + 8 * len(words.indices) + held.further.size(at)
        if chunks and size > page_bytes:
            break
        chunks.append(message)
    return retriever_pb2.IndexedChunks(
        collection=name,
        embedder=model_to_proto(held.model),
        chunks=chunks,
        vectors=tensors.pack(held.vectors[: len(chunks)]),
        lexical=_sparse_to_proto(held.lexical[: len(chunks)]),
        analysis=held.analysis,
        token_vectors=tensors.pack_tokens(held.further.tokens[: len(chunks)])
        if held.further.tokens and chunks
        else None,
        sparse=_sparse_to_proto(held.further.sparse[: len(chunks)])
        if held.further.sparse
        else None,
    )


def _sparse_to_proto(vectors: Sequence[Sparse]) -> embedder_pb2.SparseVectors:
    return tensors.pack_sparse(
        [
            tensors.SparseVector(
                np.array(each.indices, np.uint32), np.array(each.values, np.float32)
            )
            for each in vectors
        ]
    )


def _sparse_from_proto(message: embedder_pb2.SparseVectors) -> list[Sparse]:
    return [
        Sparse(each.indices.tolist(), each.weights.tolist())
        for each in tensors.unpack_sparse(message)
    ]


def chunk_vectors_from_proto(
    message: retriever_pb2.UpsertRequest | retriever_pb2.IndexedChunks,
) -> ChunkVectors:
    """Convert the further vectors of chunks. Raises InvalidInput."""
    return ChunkVectors(
        tensors.unpack_tokens(message.token_vectors) if message.HasField("token_vectors") else (),
        _sparse_from_proto(message.sparse) if message.HasField("sparse") else (),
    )


def further_from_proto(message: retriever_pb2.FurtherVectors) -> FurtherVectors:
    """Convert what a collection has besides dense vectors and words."""
    return FurtherVectors(message.token_vectors, message.token_pooling or 1, message.sparse)


def further_to_proto(further: FurtherVectors) -> retriever_pb2.FurtherVectors:
    """Convert what a collection has besides dense vectors and words."""
    return retriever_pb2.FurtherVectors(**asdict(further))


def _query_vectors_from_proto(request: retriever_pb2.SearchRequest) -> QueryVectors:
    tokens = sparse = None
    if request.HasField("token_vectors"):
        tokens = tensors.unpack(request.token_vectors).astype(np.float32)
    if request.HasField("sparse"):
        several = _sparse_from_proto(request.sparse)
        if len(several) != 1:
            raise InvalidInput(f"The query has {len(several)} sparse vectors; it must have one.")
        sparse = LearnedSparse(several[0].indices, several[0].values)
    return QueryVectors(tokens, sparse)


def indexed_from_proto(message: retriever_pb2.IndexedChunks) -> IndexedChunks:
    """Convert chunks from a backup. Raises InvalidInput."""
    return IndexedChunks(
        model_from_proto(message.embedder),
        [chunk_from_proto(chunk) for chunk in message.chunks],
        tensors.unpack(message.vectors),
        _sparse_from_proto(message.lexical),
        message.analysis,
        chunk_vectors_from_proto(message),
    )


def model_to_proto(model: Model) -> common_pb2.ModelIdentity:
    """Convert a model's identity."""
    return common_pb2.ModelIdentity(id=model.id, revision=model.revision, dimension=model.dimension)


def chunk_to_proto(chunk: Chunk) -> retriever_pb2.Chunk:
    """Convert a stored chunk."""
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
        gap_before=chunk.gap_before,
        section=_section_to_proto(chunk),
        access=chunk.access,
        version=_version_to_proto(chunk.version),
    )
    if chunk.created_ms:
        message.created_at.FromMilliseconds(chunk.created_ms)
    return message


def passage_to_proto(rank: int, found: SearchHit) -> common_pb2.Passage:
    """Convert a search result; `rank` counts from 1."""
    message = chunk_passage(found.collection, found.chunk)
    message.rank = rank
    message.exact = found.exact
    message.duplicates = found.duplicates
    for name in ("dense", "lexical", "fused"):
        if (score := getattr(found, name)) is not None:
            setattr(message.scores, name, score)
    return message


def chunk_passage(collection: str, chunk: Chunk) -> common_pb2.Passage:
    """Convert a chunk of a collection that no search found."""
    return common_pb2.Passage(
        chunk_id=chunk.chunk_id,
        document_id=chunk.document_id,
        collection=collection,
        title=chunk.title,
        text=chunk.text,
        start=chunk.start,
        end=chunk.end,
        heading_path=chunk.heading_path,
        metadata_json=chunk.metadata_json,
        page=chunk.page,
        structure=chunk.structure,
        language=chunk.language,
        ordinal=chunk.ordinal,
        gap_before=chunk.gap_before,
        section=_section_to_proto(chunk),
        version=chunk.version.number if chunk.version else 0,
    )


def searched_to_proto(searched: Searched) -> retriever_pb2.CollectionSearch:
    """Convert the outcome of the search of one collection."""
    return retriever_pb2.CollectionSearch(
        collection=searched.collection,
        timing=common_pb2.Timing(compute_ns=int(searched.seconds * 1e9), batch_size=1),
        passages=searched.hits,
        error=searched.error.message if searched.error else "",
    )


def synonyms_to_proto(synonyms: Synonyms) -> list[retriever_pb2.Synonym]:
    """Convert the other forms that a search looked for."""
    return [retriever_pb2.Synonym(form=form, others=others) for form, others in synonyms.items()]


def _readability_from_proto(request: retriever_pb2.SearchRequest) -> float | None:
    if not request.HasField("readability"):
        return None
    if not 0 <= request.readability <= 1:
        raise InvalidInput(f"readability is {request.readability:g}; it must be 0 to 1.")
    return float(request.readability)


def _fusion_from_proto(message: retriever_pb2.Fusion, default: Fusion) -> Fusion:
    method = default.method
    if message.method != retriever_pb2.FUSION_METHOD_UNSPECIFIED:
        if message.method not in _METHODS:
            raise InvalidInput(
                f"The fusion method is {message.method}; it must be one of {list(_METHODS)}."
            )
        method = _METHODS[message.method]
    dense, words = message.dense_weight, message.lexical_weight
    for weight in (dense, words):
        if not (math.isfinite(weight) and weight >= 0):
            raise InvalidInput(f"A fusion weight is {weight}; it must be a number from 0 up.")
    if dense == 0 and words == 0:
        dense, words = default.dense_weight, default.lexical_weight
    return Fusion(method, dense, words)
