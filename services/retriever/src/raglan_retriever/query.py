"""A search as it is asked for: what to find, and the limits of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from raglan import fusion
from raglan.errors import InvalidInput
from raglan.filtering.clauses import Clause
from raglan.identifiers import check_collection_name

from raglan_retriever import model_legs
from raglan_retriever.collection import Collection, Model
from raglan_retriever.model_legs import NO_QUERY_VECTORS, QueryVectors

Mode = Literal["hybrid", "dense", "lexical"]
MAX_TEXT_CHARS: Final = 32_768


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one call."""

    max_limit: int = 1000
    max_upsert_chunks: int = 1000
    min_candidates: int = 200
    max_collections: int = 16


@dataclass(frozen=True, slots=True)
class Fusion:
    """Parameters of the fusion of the two legs of a hybrid search."""

    method: fusion.Method = "dbsf"
    dense_weight: float = 1
    lexical_weight: float = 1


@dataclass(frozen=True, slots=True)
class Query:
    """One search."""

    collections: tuple[str, ...]
    mode: Mode
    limit: int
    text: str = ""
    """Needed unless `mode` is dense."""

    vector: NDArray[np.float32] | None = None
    """Of shape (dimension,). Needed unless `mode` is lexical."""

    model: Model | None = None
    """Made `vector`."""

    readability: float | None = None
    """Readability of `text` for `model`, in [0, 1]; None where that is not known."""

    further: QueryVectors = NO_QUERY_VECTORS
    """Vectors by `model` besides `vector`, for collections that have such of their chunks."""

    where: Clause | None = None
    as_of_ms: int | None = None
    """Milliseconds since 1970: the time whose versions are searched; None for the present ones."""
    fusion: Fusion = field(default_factory=Fusion)
    collection_budget_s: float | None = None
    """Seconds that each collection may take before it is left out; None: all have to answer."""

    def within(self, remaining_s: float) -> Query:
        """Return the query with a budget of at most half of the time that the call has left."""
        budget_s = self.collection_budget_s
        if budget_s is None or budget_s <= remaining_s / 2:
            return self
        return replace(self, collection_budget_s=remaining_s / 2)

    def checked(self, limits: Limits) -> tuple[str, ...]:
        """Return the collections to search, without duplicates.

        Raises:
            InvalidInput: what the mode needs is missing, or a limit is exceeded.
        """
        if not 1 <= self.limit <= limits.max_limit:
            raise InvalidInput(
                f"limit is {self.limit}; it must be 1 to {limits.max_limit} "
                "(RAGLAN_RETRIEVER_MAX_LIMIT)."
            )
        names = tuple(dict.fromkeys(check_collection_name(name) for name in self.collections))
        if not names:
            raise InvalidInput("The search names no collection.")
        if len(names) > limits.max_collections:
            raise InvalidInput(
                f"The search names {len(names)} collections; the limit is "
                f"{limits.max_collections} (RAGLAN_RETRIEVER_MAX_SEARCHED_COLLECTIONS)."
            )
        if len(self.text) > MAX_TEXT_CHARS:
            raise InvalidInput(
                f"The text has {len(self.text)} characters; the limit is {MAX_TEXT_CHARS}."
            )
        if self.mode != "dense" and not self.text.strip():
            raise InvalidInput(f"A {self.mode} search needs a text.")
        if self.mode != "lexical":
            if self.vector is None or self.model is None:
                raise InvalidInput(
                    f"A {self.mode} search needs a vector and the model it comes from."
                )
            model_legs.check(self.vector, self.further, self.model)
        return names

    def check_collection(self, held: Collection) -> None:
        """Raise Conflict unless the terms and vectors of `held` can be searched by this query."""
        if self.mode != "dense":
            held.check_analysis()
        if self.mode != "lexical" and self.model is not None:
            held.check_model(self.model)
