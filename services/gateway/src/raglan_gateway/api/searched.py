"""The part of a reply that says how it was found: collections, degradations, caches."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from raglan_gateway.api.cacheable import Cacheable


class SearchedCollection(BaseModel):
    """The search of one collection."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    collection: str
    took_ms: float
    """Milliseconds; collections are searched at the same time."""
    passages: int
    """Of the reply's passages, those of this collection."""
    error: str = ""
    """Reason for which it was left out; else empty."""


class Degraded(BaseModel):
    """A stage that fell back, why, and to what."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    stage: str
    reason: str
    fallback: str
    collection: str = ""
    """The collection that was left out, of stage `collection`; else empty."""


class Searched(Cacheable):
    """A reply of a search, or of one and an answer."""

    collections: list[SearchedCollection] = Field(default_factory=list)
    """One for each collection; none where the passages come from a cache."""
    degraded: list[Degraded]
    timings_ms: dict[str, float]
    trace_id: str
