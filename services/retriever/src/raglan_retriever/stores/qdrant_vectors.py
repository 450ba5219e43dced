"""Vectors of a Qdrant server's collection: its parameters, and points and queries as it takes them.

They mirror `shard_vectors`: the two libraries have the same classes, under other names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from qdrant_client import models

from raglan_retriever.collection import FurtherVectors
from raglan_retriever.lexical import Sparse
from raglan_retriever.stores.store import (
    DENSE,
    LEXICAL,
    SPARSE,
    TOKENS,
    LateInteraction,
    LearnedSparse,
    Point,
    SearchVector,
)

_NO_GRAPH: Final = models.HnswConfigDiff(m=0)


def dense_params(dimension: int, further: FurtherVectors) -> dict[str, models.VectorParams]:
    """Return the parameters of the dense vectors and of the token vectors."""
    params = {DENSE: models.VectorParams(size=dimension, distance=models.Distance.COSINE)}
    if further.token_vectors:
        params[TOKENS] = models.VectorParams(
            size=dimension,
            distance=models.Distance.DOT,
            datatype=models.Datatype.FLOAT16,
            on_disk=True,
            multivector_config=models.MultiVectorConfig(
                comparator=models.MultiVectorComparator.MAX_SIM
            ),
            # They score what the dense vectors found, and are never searched themselves.
            hnsw_config=_NO_GRAPH,
        )
    return params


def sparse_params(further: FurtherVectors) -> dict[str, models.SparseVectorParams]:
    """Return the parameters of the words' weights and of the model's."""
    params = {LEXICAL: models.SparseVectorParams(modifier=models.Modifier.IDF)}
    if further.sparse:
        params[SPARSE] = models.SparseVectorParams()
    return params


def query(
    query: SearchVector,
    limit: int,
    passes: models.Filter | None,
    params: models.SearchParams | None,
) -> dict[str, Any]:
    """Return the fields of the request for the `limit` best points that pass.

    Args:
        query: vectors of the query.
        limit: most points.
        passes: filter; None for all points.
        params: of a search of the dense vectors.
    """
    match query:
        case LateInteraction(dense, tokens):
            first = models.Prefetch(
                query=dense, using=DENSE, limit=limit, filter=passes, params=params
            )
            return {"query": tokens.tolist(), "using": TOKENS, "prefetch": [first]}
        case Sparse(indices, values):
            using = SPARSE if isinstance(query, LearnedSparse) else LEXICAL
            vector = models.SparseVector(indices=indices, values=values)
            return {"query": vector, "using": using, "filter": passes}
        case _:
            return {"query": query, "using": DENSE, "filter": passes, "params": params}


def of_point(point: Point) -> dict[str, Any]:
    """Return the vectors of `point` by name; an empty sparse one is left out."""
    vectors: dict[str, Any] = {DENSE: point.dense}
    for name, weights in ((LEXICAL, point.lexical), (SPARSE, point.sparse)):
        if weights is not None and weights.indices:
            vectors[name] = models.SparseVector(indices=weights.indices, values=weights.values)
    if point.tokens is not None:
        vectors[TOKENS] = point.tokens.tolist()
    return vectors


def to_point(id_: str, payload: dict[str, Any], vectors: Mapping[str, Any]) -> Point:
    """Return a stored point."""
    tokens = vectors.get(TOKENS)
    return Point(
        id_,
        payload,
        vectors[DENSE],
        _weights(vectors.get(LEXICAL)) or Sparse([], []),
        None if tokens is None else np.array(tokens, np.float16),
        _weights(vectors.get(SPARSE)),
    )


def _weights(stored: models.SparseVector | None) -> Sparse | None:
    return Sparse(stored.indices, stored.values) if stored else None
