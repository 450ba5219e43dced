"""Vectors of a Qdrant Edge shard: its parameters, and points and queries as Edge takes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import qdrant_edge as qe

from raglan_retriever.chunks import STORED
from raglan_retriever.collection import NO_FURTHER_VECTORS, FurtherVectors
from raglan_retriever.lexical import Sparse
from raglan_retriever.stores.store import (
    DENSE,
    LEXICAL,
    SPARSE,
    TOKENS,
    LateInteraction,
    LearnedSparse,
    Point,
    Search,
)

_COLD: Final = qe.Memory.Cold
_NO_GRAPH: Final = qe.HnswIndexConfig(m=0, ef_construct=4, full_scan_threshold=10_000)


@dataclass(frozen=True, slots=True)
class Vectors:
    """The vectors of each point."""

    dimension: int
    further: FurtherVectors = NO_FURTHER_VECTORS

    def dense_params(
        self, *, memory: qe.Memory = _COLD, quantization: Any = None
    ) -> dict[str, qe.EdgeVectorParams]:
        """Return the parameters of the dense vectors and of the token vectors.

        Cold: a mapping that is not read ahead. Else a shard of one chunk keeps the 32 MiB of its
        first file in memory. Once they are read, searches are as fast.

        Args:
            memory: of the dense vectors.
            quantization: of the dense vectors, as Edge takes it; None for none.
        """
        params = {
            DENSE: qe.EdgeVectorParams(
                size=self.dimension,
                distance=qe.Distance.Cosine,
                memory=memory,
                quantization_config=quantization,
            )
        }
        if self.further.token_vectors:
            params[TOKENS] = qe.EdgeVectorParams(
                size=self.dimension,
                distance=qe.Distance.Dot,
                datatype=qe.VectorStorageDatatype.Float16,
                memory=_COLD,
                multivector_config=qe.MultiVectorConfig(qe.MultiVectorComparator.MaxSim),
                # They score what the dense vectors found, and are never searched themselves.
                hnsw_config=_NO_GRAPH,
            )
        return params

    def sparse_params(self) -> dict[str, qe.EdgeSparseVectorParams]:
        """Return the parameters of the words' weights and of the model's."""
        params = {LEXICAL: qe.EdgeSparseVectorParams(modifier=qe.Modifier.Idf)}
        if self.further.sparse:
            params[SPARSE] = qe.EdgeSparseVectorParams()
        return params


def settings(path: Path) -> dict[str, Any]:
    """Return the settings that the shard at `path` keeps.

    Raises:
        OSError, ValueError: they cannot be read.
    """
    held: dict[str, Any] = json.loads((path / "edge_config.json").read_text(encoding="utf-8"))
    return held


def read(path: Path) -> Vectors:
    """Return the vectors of the shard at `path`, by its own settings.

    Raises:
        OSError, ValueError, KeyError: they cannot be read.
    """
    held = settings(path)
    dense, sparse = held["vectors"], held["sparse_vectors"]
    further = FurtherVectors(token_vectors=TOKENS in dense, sparse=SPARSE in sparse)
    return Vectors(dense[DENSE]["size"], further)


def request(
    search: Search, passes: qe.Filter | None, params: qe.SearchParams | None
) -> qe.QueryRequest:
    """Return the request for the best points that pass.

    Args:
        search: the search.
        passes: filter; None for all points.
        params: of a search of the dense vectors.
    """
    limit = search.limit
    payload = list(STORED) if search.with_chunks else None
    asked: dict[str, Any]
    match search.vector:
        case LateInteraction(dense, tokens):
            nearest = qe.Query.Nearest(dense, using=DENSE)
            first = qe.Prefetch(query=nearest, limit=limit, filter=passes, params=params)
            by_tokens = qe.Query.Nearest(tokens.tolist(), using=TOKENS)
            asked = {"query": by_tokens, "prefetches": [first]}
        case Sparse(indices, values) as words:
            using = SPARSE if isinstance(words, LearnedSparse) else LEXICAL
            nearest = qe.Query.Nearest(qe.SparseVector(indices, values), using=using)
            asked = {"query": nearest, "filter": passes}
        case dense:
            nearest = qe.Query.Nearest(dense, using=DENSE)
            asked = {"query": nearest, "filter": passes, "params": params}
    return qe.QueryRequest(limit=limit, with_payload=payload, **asked)


def of_point(point: Point) -> dict[str, Any]:
    """Return the vectors of `point` by name; an empty sparse one is left out."""
    vectors: dict[str, Any] = {DENSE: point.dense}
    for name, weights in ((LEXICAL, point.lexical), (SPARSE, point.sparse)):
        if weights is not None and weights.indices:
            vectors[name] = qe.SparseVector(weights.indices, weights.values)
    if point.tokens is not None:
        vectors[TOKENS] = point.tokens.astype(np.float32)
    return vectors


def to_point(id_: str, payload: dict[str, Any], vectors: Mapping[str, Any]) -> Point:
    """Return a stored point."""
    tokens = vectors.get(TOKENS)
    return Point(
        id_,
        payload,
        list(vectors[DENSE]),
        _weights(vectors.get(LEXICAL)) or Sparse([], []),
        None if tokens is None else np.array(tokens, np.float16),
        _weights(vectors.get(SPARSE)),
    )


def _weights(stored: Any) -> Sparse | None:
    return Sparse(list(stored.indices), list(stored.values)) if stored else None
