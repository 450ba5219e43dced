"""Description of a collection: name, model and statistics learned from its chunks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final

from raglan.chunking_strategy import STRUCTURE
from raglan.errors import Conflict, InvalidInput
from raglan.terms import ANALYSIS

FORMAT: Final = 1
"""Of a description and its shard. Changes that an earlier retriever must not serve raise it; fields
that it may ignore do not."""

MAX_DIMENSION: Final = 8192
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
        return (self.created, self.model, self.analysis, self.language, self.languages)

    def same_settings(self, other: Collection) -> bool:
        """Return whether both were created with the same settings."""
        return (self.name, self.model, *self._chunking) == (
            other.name,
            other.model,
            *other._chunking,
        )

    @property
    def _chunking(self) -> tuple[int, int, str]:
        return (self.max_chars, self.overlap_chars, self.strategy)

    def with_texts(self, lengths: Sequence[int], languages: Iterable[str]) -> Collection:
        """Return the collection with texts of these lengths, in terms, and languages."""
        mean_length = self.mean_length
        if mean_length.is_learning:
            mean_length = mean_length.including(lengths)
        known = tuple(dict.fromkeys((*self.languages, *languages)))
        return replace(self, mean_length=mean_length, languages=known)

    def to_json(self) -> dict[str, Any]:
        """Return the description as stored."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Collection:
        """Read a stored description. Fields that a later version has added are left out.

        Raises:
            NewerFormat: it is of a later format.
            KeyError, TypeError: `stored` does not come from `to_json`.
        """
        # Descriptions older than the field have the format of today.
        if (found := stored.get("format", FORMAT)) > FORMAT:
            raise NewerFormat(found)
        known = {field.name for field in fields(cls)}
        return cls(
            # Descriptions older than the field come from the first analysis, Qdrant's.
            **{"analysis": 0}
            | {name: value for name, value in stored.items() if name in known}
            | {
                "model": Model(**stored["model"]),
                "mean_length": MeanLength(**stored["mean_length"]),
                "mean_readability": MeanReadability(**stored.get("mean_readability", {})),
                "languages": tuple(stored.get("languages", ())),
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
