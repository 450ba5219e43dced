"""The part of a reply that says what came from a cache."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

OF_ONE_REPLY: Final = frozenset({"id", "timings_ms", "trace_id", "cached", "similar"})
"""Fields of a reply that differ when a cached answer is given again."""


class CachedLayer(BaseModel):
    """A part of a reply that came from a cache."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    age_s: float
    """Seconds since it was made."""
    saved_ms: float
    """Milliseconds that making it took."""


Cached = dict[Literal["embedding", "evidence", "answer", "semantic"], CachedLayer]


class Cacheable(BaseModel):
    """A reply that may come from a cache, in part or as a whole."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    cached: Cached = Field(default_factory=dict)
    """Parts from a cache, by layer: the query's vector, the passages, the whole answer, or that of
    a similar question."""


class SimilarQuestion(BaseModel):
    """The question that a cached answer was made for."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    question: str
    similarity: float
    """Cosine of its vector and that of the question that was asked."""


class CacheableAnswer(Cacheable):
    """An answer that may be that of a similar question."""

    similar: SimilarQuestion | None = None
    """The other question, where this is its answer (`cached.semantic`); else null."""
