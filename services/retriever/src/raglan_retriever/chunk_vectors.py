"""Vectors of chunks besides the dense ones, on their way into a collection and out of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from raglan.errors import InvalidInput

from raglan_retriever.collection import Collection, FurtherVectors
from raglan_retriever.lexical import Sparse
from raglan_retriever.stores.store import Point


@dataclass(frozen=True, slots=True)
class ChunkVectors:
    """Further vectors of some chunks; empty where the collection has no such."""

    tokens: Sequence[NDArray[Any]] = ()
    """Of each chunk, (tokens, dimension)."""

    sparse: Sequence[Sparse] = ()
    """Term weights of each chunk by the model."""

    @classmethod
    def of(cls, points: Sequence[Point], further: FurtherVectors) -> ChunkVectors:
        """Return those of stored points. An empty sparse vector is not stored."""
        return cls(
            [point.tokens for point in points if point.tokens is not None],
            [point.sparse or Sparse([], []) for point in points] if further.sparse else (),
        )

    def check(self, collection: Collection, count: int) -> None:
        """Check that they are those of `count` chunks of `collection`.

        Raises:
            InvalidInput: some are missing, too many, not finite, or of another dimension.
        """
        wanted = collection.further_vectors
        for what, is_wanted, held in (
            ("token vectors", wanted.token_vectors, self.tokens),
            ("sparse vectors", wanted.sparse, self.sparse),
        ):
            if len(held) != (count if is_wanted else 0):
                raise InvalidInput(
                    f"The upsert brings {what} of {len(held)} chunks; collection "
                    f"{collection.name!r} with {wanted} needs those of "
                    f"{count if is_wanted else 0}."
                )
        dimension = collection.model.dimension
        for tokens in self.tokens:
            if not len(tokens) or tokens.shape[1] != dimension or not np.isfinite(tokens).all():
                raise InvalidInput(
                    f"The token vectors of a chunk have shape {tokens.shape}; at least one row of "
                    f"{dimension} finite values is needed."
                )

    def added_to(self, points: Sequence[Point]) -> list[Point]:
        """Return `points` with these vectors."""
        return [
            replace(
                point,
                tokens=self.tokens[at].astype(np.float16) if self.tokens else None,
                sparse=self.sparse[at] if self.sparse else None,
            )
            for at, point in enumerate(points)
        ]

    def size(self, at: int) -> int:
        """Return the bytes of the vectors of one chunk."""
        tokens = self.tokens[at].nbytes if self.tokens else 0
        return tokens + (8 * len(self.sparse[at].indices) if self.sparse else 0)


NO_CHUNK_VECTORS: Final = ChunkVectors()
