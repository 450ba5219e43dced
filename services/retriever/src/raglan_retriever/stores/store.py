"""Protocol of a store, to which the conformance suite holds every implementation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from raglan.filtering.clauses import Clause

from raglan_retriever.chunks import Chunk
from raglan_retriever.collection import Collection
from raglan_retriever.lexical import Sparse
from raglan_retriever.stores.plans import Plan, State

DENSE: Final = "dense"
LEXICAL: Final = "lexical"
TOKENS: Final = "tokens"
SPARSE: Final = "sparse"

Tokens = NDArray[np.float16]
"""Token vectors of one text, (tokens, dimension), rows L2-normalised."""


@dataclass(frozen=True, slots=True)
class Point:
    """One chunk with its vectors, ready to store."""

    id: str
    payload: dict[str, Any]
    dense: list[float]
    lexical: Sparse
    tokens: Tokens | None = None
    """None where the collection has no token vectors."""
    sparse: Sparse | None = None
    """None where the collection has no sparse vectors of the model."""


@dataclass(frozen=True, slots=True)
class LateInteraction:
    """A search by the dense vector whose hits are scored by MaxSim.

    The score is the mean, over the query's tokens, of the best dot product with a token vector of
    the chunk (Khattab and Zaharia, ColBERT, 2020).
    """

    dense: list[float]
    tokens: NDArray[np.float32]
    """Of the query, (tokens, dimension)."""


@dataclass(frozen=True, slots=True)
class LearnedSparse(Sparse):
    """Term weights of a query by the embedding model, scored by the dot product."""


SearchVector = list[float] | Sparse | LateInteraction
"""By its type: dense, the words' weights, the model's term weights, or late interaction."""


class Search(NamedTuple):
    """One of the searches of a call."""

    vector: SearchVector
    limit: int
    with_chunks: bool = False


class Hit(NamedTuple):
    """A point that a search found, with its raw score (dense: the cosine)."""

    id: str
    score: float
    chunk: Chunk | None = None
    """None where it was not asked for."""


class Versioned(NamedTuple):
    """A collection's description, and the revision of what it holds.

    The revision is raised after each change of what a search can find, before the change is
    acknowledged. So a search that reads the revision first finds what it stands for, or newer. No
    revision is given twice under one name, nor after a higher one: not by another replica, not
    after a restart, and not when the collection is dropped and created anew.
    """

    collection: Collection
    revision: int


class Removed(NamedTuple):
    """Number of chunks that a call removed or changed, and the collection's revision after it."""

    chunks: int
    revision: int


@dataclass(frozen=True, slots=True)
class Size:
    """Sizes of a collection that are found quickly."""

    chunks: int
    unindexed_chunks: int
    disk_bytes: int
    """0 where the store cannot tell."""


@dataclass(frozen=True, slots=True)
class VectorIndex:
    """State and parameters of a collection's dense vector index."""

    state: State
    chunks: int
    """Chunks in it. The others are compared with the query one by one."""

    recall_target: float
    """Recall@10 against an exact search that its parameters are chosen for."""

    plan: Plan | None
    """Parameters of the present index; None where there is none."""


@dataclass(frozen=True, slots=True)
class Stats(Size):
    """All sizes of a collection."""

    documents: int
    index: VectorIndex | None = None
    """None where the store does not tell."""


Relabel = Callable[[Mapping[str, Any]], dict[str, Any]]
"""Makes the new fields of a payload of its `LABELLED` ones; none to leave it as it is."""


class Store(Protocol):
    """Collections of points. Every method but the first four raises NotFound for an unknown name.

    All methods raise Unavailable when what lies behind the store cannot be reached, Conflict when
    the collection is damaged; those that write, StorageFull when there is no space.
    """

    @property
    def name(self) -> str:
        """Value of the setting `store` that selects it."""

    @property
    def is_remote(self) -> bool:
        """Whether each call takes a round trip over a network."""

    async def open(self) -> None:
        """Open the store.

        Raises:
            Unavailable, Conflict: It cannot be opened; the message says the way out.
        """

    async def close(self) -> None:
        """Release all resources. Acknowledged writes stay."""

    async def collections(self) -> list[Collection]:
        """Return all collections by name."""

    def set_aside(self) -> dict[str, str]:
        """Return collections that cannot be served, each with the reason.

        They are damaged, or a newer version wrote them. Every method but `drop` refuses them.
        """

    async def create(self, collection: Collection) -> None:
        """Create a collection.

        Raises:
            Conflict: The name is taken.
        """

    async def collection(self, name: str) -> Collection:
        """Return the stored description."""

    async def versioned(self, names: Sequence[str]) -> list[Versioned]:
        """Return each collection with its revision."""

    def last_read(self, name: str) -> Versioned | None:
        """Return what `versioned` has found last, where it takes a round trip.

        It may be outdated. None where nothing is known that is likely to hold still, or where
        reading costs nothing.
        """

    async def describe(self, collection: Collection) -> None:
        """Replace the stored description."""

    async def drop(self, name: str) -> int:
        """Remove a collection, a damaged one too, and return a revision above all that it had."""

    async def upsert(self, name: str, points: Sequence[Point]) -> int:
        """Store the points durably, replacing those of the same id, and return the revision."""

    async def search(
        self, name: str, searches: Sequence[Search], where: Clause | None
    ) -> list[list[Hit]]:
        """Return the best points of each search, best first, in one round trip.

        By cosine (dense), by BM25 (lexical), by the dot product (learned sparse); by MaxSim those
        nearest by cosine (late interaction).
        """

    async def fetch(self, name: str, ids: Sequence[str]) -> dict[str, Chunk]:
        """Return the chunks of those ids that exist."""

    async def points(self, name: str, ids: Sequence[str]) -> list[Point]:
        """Return the points of those ids that exist, in the order of `ids`, as they are stored."""

    async def select(self, name: str, where: Clause) -> list[Chunk]:
        """Return every chunk that passes."""

    async def delete(self, name: str, where: Clause) -> Removed:
        """Remove every chunk that passes."""

    async def label(self, name: str, where: Clause, relabel: Relabel) -> Removed:
        """Replace fields of the payload of every chunk that passes, durably.

        Returns:
            The number of chunks that were changed, and the revision after it.
        """

    async def count(self, name: str, where: Clause | None) -> int:
        """Return the exact number of chunks that pass."""

    async def count_by_document(
        self, name: str, document_ids: Sequence[str], where: Clause | None
    ) -> list[int]:
        """Return the exact number of chunks of each document that pass, in one round trip."""

    async def size(self, name: str) -> Size:
        """Return the sizes that are found quickly."""

    async def stats(self, name: str) -> Stats:
        """Return all sizes."""

    def backlog_s(self) -> float:
        """Return the estimated seconds until the waiting reads are done."""
