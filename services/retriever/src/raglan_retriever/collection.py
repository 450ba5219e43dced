"""Description of a collection: name, model and statistics learned from its chunks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final

from raglan.chunking_strategy import STRUCTURE
from raglan.errors import Conflict, InvalidInput
from raglan.terms import ANALYSIS

FORMAT: Final = 2
"""Of a description and its shard. Changes that an earlier retriever must not serve raise it; fields
that it may ignore do not. A description is written in the earliest format that can hold it: 2 only
where there are further vectors."""

MAX_DIMENSION: Final = 8192
MAX_TOKEN_POOLING: Final = 16
_LEARNED_FROM_CHUNKS: Final = 1000
_NOTABLE_CHANGE: Final = 0.0002


class NewerFormat(Conflict):
    """A later version of Raglan stored the collection, in a form that is not known here."""

    def __init__(self, found: object) -> None:
        super().__init__(
            f"it was written by a newer version of Raglan (format {found}; this one reads up to "
            f"{FORMAT}): upgrade the retriever"
        )


@dataclass(frozen=True, slots=True)
class Model:
    """Identity of an embedding model; vectors compare only when all three fields agree."""

    id: str
    revision: str
    dimension: int

    def __str__(self) -> str:
        revision = f" at revision {self.revision}" if self.revision else ""
        return f"{self.id}{revision} with {self.dimension} dimensions"


@dataclass(frozen=True, slots=True)
class FurtherVectors:
    """Vectors of each chunk besides the dense vector and the weights of its words."""

    token_vectors: bool = False
    """Token vectors in float16, by whose MaxSim the hits of the dense vectors are scored too."""

    token_pooling: int = 1
    """Tokens that a token vector stands for in the mean."""

    sparse: bool = False
    """Term weights of the embedding model, searched beside the words."""

    def __str__(self) -> str:
        pooled = f" of {self.token_pooling} tokens each" if self.token_pooling > 1 else ""
        kinds = (
            f"token vectors{pooled}" if self.token_vectors else "",
            "sparse vectors" if self.sparse else "",
        )
        return " and ".join(filter(None, kinds)) or "no further vectors"

    def check(self) -> FurtherVectors:
        """Return it if a collection can have them.

        Raises:
            InvalidInput: the pooling is out of range, or there is nothing to pool.
        """
        if not 1 <= self.token_pooling <= MAX_TOKEN_POOLING:
            raise InvalidInput(
                f"token_pooling is {self.token_pooling}; it must be 1 to {MAX_TOKEN_POOLING}."
            )
        if self.token_pooling > 1 and not self.token_vectors:
            raise InvalidInput("token_pooling is set, but the collection has no token vectors.")
        return self


NO_FURTHER_VECTORS: Final = FurtherVectors()


@dataclass(frozen=True, slots=True)
class MeanLength:
    """Mean number of terms a chunk, which BM25 needs while the corpus still grows.

    It is the running mean of the first 1,000 chunks and then stays, so that later chunks of a
    collection are weighed alike.
    """

    words: float = 0
    chunks: int = 0

    @property
    def is_learning(self) -> bool:
        """Return whether further chunks still change the mean."""
        return self.chunks < _LEARNED_FROM_CHUNKS

    @property
    def value(self) -> float:
        """Mean number of terms, at least 1: BM25 divides by it."""
        return max(1.0, self.words / self.chunks) if self.chunks else 1.0

    def including(self, lengths: Sequence[int]) -> MeanLength:
        """Return the mean with chunks of these lengths, in terms."""
        return MeanLength(self.words + sum(lengths), self.chunks + len(lengths))


@dataclass(frozen=True, slots=True)
class MeanReadability:
    """Mean of how well the embedding model reads a collection's chunks; see `raglan.readability`.

    After 1,000 chunks each further one counts a thousandth, so that the mean follows a collection
    whose documents are replaced.
    """

    value: float = 0.0
    chunks: int = 0
    """Chunks that it rests on, 1,000 at most; 0 means that it is not known."""

    def including(self, values: Sequence[float]) -> MeanReadability:
        """Return the mean with chunks of these values."""
        chunks = self.chunks + len(values)
        if not chunks:
            return self
        value = (self.value * self.chunks + sum(values)) / chunks
        return MeanReadability(value, min(chunks, _LEARNED_FROM_CHUNKS))

    def differs(self, other: MeanReadability) -> bool:
        """Return whether storing this in place of `other` makes a difference to a search."""
        return self.chunks != other.chunks or abs(self.value - other.value) > _NOTABLE_CHANGE


@dataclass(frozen=True, slots=True)
class Retention:
    """How long a collection keeps earlier versions of documents."""

    max_versions: int
    """Of a document, the present one aside."""
    max_age_days: int = 0
    """After a version was replaced; 0 for no limit."""

    def __str__(self) -> str:
        days = f" for {self.max_age_days} days" if self.max_age_days else ""
        return f"{self.max_versions}{days}"


@dataclass(frozen=True, slots=True)
class Collection:
    """The description that is stored with a collection."""

    name: str
    model: Model
    max_chars: int
    overlap_chars: int
    created: str
    """ISO 8601, UTC, to the microsecond: no two collections of one name have the same."""

    language: str
    """ISO 639-1: of texts and queries whose language is not detected. Fixed when it is created."""

    mean_length: MeanLength = MeanLength()
    languages: tuple[str, ...] = ()
    """ISO 639-1 codes that its texts were analysed by, in the order in which they came."""

    analysis: int = ANALYSIS
    """Version of `raglan.terms` that its texts were analysed with."""

    mean_readability: MeanReadability = MeanReadability()
    profile: str = ""
    """Name of the settings that callers search it with; kept for them."""

    strategy: str = STRUCTURE
    """How documents are cut (`raglan.chunking_strategy`); the ingester reads it."""

    contextual: bool = False
    """A language model situates each chunk in its document; the ingester reads it."""
    versions: Retention | None = None
    """Which earlier versions of documents it keeps; None for none. The ingester reads it."""
    further_vectors: FurtherVectors = NO_FURTHER_VECTORS

    recall: float | None = None
    """Recall@10 that its vector index is built and searched for; None for the retriever's own."""

    @property
    def readability(self) -> float | None:
        """Mean readability of the chunks; None where the embedder returned none."""
        return self.mean_readability.value if self.mean_readability.chunks else None

    def check_model(self, model: Model) -> None:
        """Raise Conflict, with both names, unless `model` made this collection's vectors."""
        if model != self.model:
            raise Conflict(
                f"The vectors of collection {self.name!r} come from {self.model}; these come from "
                f"{model}. Use the collection's model, or create a new collection."
            )

    def check_analysis(self) -> None:
        """Raise Conflict unless today's analysis of text made this collection's terms."""
        if self.analysis != ANALYSIS:
            raise Conflict(
                f"Collection {self.name!r} was indexed by analysis {self.analysis} of its text, "
                f"whose terms do not match those of today's, {ANALYSIS}. Delete the collection and "
                "ingest its documents again; until then a dense search works."
            )

    def is_searched_like(self, other: Collection) -> bool:
        """Return whether a query is made of the same searches in `self` as in `other`."""
        return self._searched_by == other._searched_by

    @property
    def _searched_by(self) -> tuple[object, ...]:
        words = (self.analysis, self.language, self.languages)
        return (self.created, self.model, *words, self.further_vectors, self.versions)

    def same_settings(self, other: Collection) -> bool:
        """Return whether both were created with the same settings."""
        return self._settings == other._settings

    @property
    def _settings(self) -> tuple[object, ...]:
        chunking = (self.max_chars, self.overlap_chars, self.strategy, self.contextual)
        return (self.name, self.model, *chunking, self.further_vectors, self.versions)

    def with_texts(self, lengths: Sequence[int], languages: Iterable[str]) -> Collection:
        """Return the collection with texts of these lengths, in terms, and languages."""
        mean_length = self.mean_length
        if mean_length.is_learning:
            mean_length = mean_length.including(lengths)
        known = tuple(dict.fromkeys((*self.languages, *languages)))
        return replace(self, mean_length=mean_length, languages=known)

    def to_json(self) -> dict[str, Any]:
        """Return the description as stored."""
        written = 1 if self.further_vectors == NO_FURTHER_VECTORS else FORMAT
        return {"format": written, **asdict(self)}

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Collection:
        """Read a stored description. Fields that a later version has added are left out.

        Raises:
            NewerFormat: it is of a later format.
            KeyError, TypeError: `stored` does not come from `to_json`.
        """
        # Descriptions older than the field have the first format.
        if (found := stored.get("format", 1)) > FORMAT:
            raise NewerFormat(found)
        known = {field.name for field in fields(cls)}
        versions = stored.get("versions")
        return cls(
            # Descriptions older than the field come from the first analysis, Qdrant's.
            **{"analysis": 0}
            | {name: value for name, value in stored.items() if name in known}
            | {
                "model": Model(**stored["model"]),
                "mean_length": MeanLength(**stored["mean_length"]),
                "mean_readability": MeanReadability(**stored.get("mean_readability", {})),
                "languages": tuple(stored.get("languages", ())),
                "versions": Retention(**versions) if versions else None,
                "further_vectors": FurtherVectors(**stored.get("further_vectors", {})),
            }
        )


def check_new_model(model: Model) -> Model:
    """Return `model` if a collection can be created for it.

    Raises:
        InvalidInput: no id, or a dimension out of range.
    """
    if not model.id:
        raise InvalidInput("The collection's embedder has no id.")
    if not 1 <= model.dimension <= MAX_DIMENSION:
        raise InvalidInput(
            f"The embedder's dimension is {model.dimension}; it must be 1 to {MAX_DIMENSION}."
        )
    return model
