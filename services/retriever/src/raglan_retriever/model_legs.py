"""Legs of a search that the embedding model scores: dense, late interaction, its term weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from raglan import fusion, readability
from raglan.errors import InvalidInput
from raglan.readability import Readability

from raglan_retriever.collection import Collection, Model
from raglan_retriever.merging import Key, merge
from raglan_retriever.stores.store import Hit, LateInteraction, LearnedSparse, SearchVector

DENSE: Final = "dense"
LATE_INTERACTION: Final = "late_interaction"
SPARSE: Final = "sparse"

SHARES: Final = {DENSE: 2.0, LATE_INTERACTION: 2.0, SPARSE: 1.0}
"""Weights of the legs among each other: those that the authors of BGE-M3 give in its model card."""

MAX_QUERY_TOKENS: Final = 512
"""Each is compared with every token vector of the chunks that the dense vector found."""


@dataclass(frozen=True, slots=True)
class QueryVectors:
    """Vectors of a query besides the dense one; a leg without its vector is left out."""

    tokens: NDArray[np.float32] | None = None
    """Of shape (tokens, dimension), rows L2-normalised."""

    sparse: LearnedSparse | None = None


NO_QUERY_VECTORS: Final = QueryVectors()


def check(dense: NDArray[np.float32], further: QueryVectors, model: Model) -> None:
    """Raise InvalidInput unless the vectors of a query can be those of `model`."""
    if dense.shape != (model.dimension,):
        raise InvalidInput(
            f"The query vector has {dense.size} values; its model, {model}, has {model.dimension}."
        )
    if not np.isfinite(dense).all():
        raise InvalidInput("The query vector holds values that are not finite.")
    if (tokens := further.tokens) is None:
        return
    if not 1 <= len(tokens) <= MAX_QUERY_TOKENS or tokens.shape[1] != model.dimension:
        raise InvalidInput(
            f"The query's token vectors have shape {tokens.shape}; 1 to {MAX_QUERY_TOKENS} rows "
            f"of {model.dimension} values are needed."
        )
    if not np.isfinite(tokens).all():
        raise InvalidInput("The query's token vectors hold values that are not finite.")


def vectors_for(
    collection: Collection, dense: NDArray[np.float32], further: QueryVectors
) -> dict[str, SearchVector]:
    """Return the vector of each leg that `collection` can be searched by."""
    held = collection.further_vectors
    vectors: dict[str, SearchVector] = {DENSE: dense.tolist()}
    if held.token_vectors and further.tokens is not None:
        vectors[LATE_INTERACTION] = LateInteraction(dense.tolist(), further.tokens)
    if held.sparse and further.sparse is not None and further.sparse.indices:
        vectors[SPARSE] = further.sparse
    return vectors


def merged(
    names: Sequence[str], found: Sequence[Mapping[str, list[Hit]]], depth: int
) -> dict[str, list[tuple[Key, float]]]:
    """Merge the hits of each leg over the collections.

    A leg that one of the collections lacks is left out: it would put the hits of the others ahead.
    """
    return {
        leg: merge(names, [each[leg] for each in found], depth)
        for leg in SHARES
        if found and all(leg in each for each in found)
    }


def weighted(
    hits: Mapping[str, Sequence[tuple[Key, float]]],
    weight: float,
    credit: Callable[[Key], float] | None = None,
) -> list[fusion.Leg[Key]]:
    """Return the legs to fuse, which have `weight` together."""
    whole = sum(SHARES[leg] for leg in hits)
    return [
        fusion.Leg(some, weight * SHARES[leg] / whole, credit=credit) for leg, some in hits.items()
    ]


def worth(query: float | None, text: str, collections: Sequence[Collection]) -> dict[str, float]:
    """Return the share of its weight that the model deserves in each collection, in [0, 1].

    Args:
        query: readability of the query for the model; None where it is not known.
        text: of the query.
        collections: those searched.
    """
    if query is None:
        return {each.name: 1.0 for each in collections}
    read = Readability(query, readability.count_words(text))
    return {each.name: readability.query_credit(read, each.readability) for each in collections}
