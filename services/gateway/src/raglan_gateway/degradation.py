"""Degradation levels: what stands in for each part of the mesh while it is unavailable."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from raglan.errors import DeadlineExceeded, Internal, Overloaded, Unavailable

RECOVERABLE: Final = (Unavailable, Overloaded, DeadlineExceeded, Internal)
"""Errors that a fallback can replace. Any other is the request's own fault and is reported."""


@dataclass(frozen=True, slots=True)
class DegradationLevel:
    """Behaviour of the mesh without one of its services."""

    name: str
    """Value of `rung` in `/readyz`."""
    stage: str
    """Name as in `degraded` and `timings_ms`."""
    service: str
    """Empty where no service as a whole is unavailable."""
    fallback: str
    """Value of `fallback` in `degraded`."""
    means: str


_ROWS: Final = (
    ("full", "", "", "", "Every part is there."),
    ("local_state", "share", "redis", "local", "Limits and kept answers are each gateway's."),
    ("no_profile", "profile", "", "default", "The collection's profile is not known."),
    ("no_sessions", "history", "database", "none", "Sessions are neither read nor kept."),
    ("no_uploads", "ingest", "ingester", "refused", "Uploads are refused, queries answered."),
    ("words_compared", "cite", "embedder", "lexical", "Words decide what citations support."),
    ("first_answer", "second_try", "generator", "first_answer", "The first answer stands."),
    ("plain_query", "strategy", "generator", "plain_query", "The question is searched as it is."),
    ("plain_passages", "expand", "", "plain_passages", "Passages lack their neighbours."),
    ("fused_order", "rerank", "reranker", "fused_order", "Passages keep the index's order."),
    ("lexical", "embed", "embedder", "lexical", "Searches go by words alone."),
    ("fewer_collections", "collection", "", "left_out", "The other collections answer."),
    ("passages", "generate", "generator", "passages", "The best passages are quoted, cited."),
    ("kept_answers", "retrieve", "retriever", "cached_answer", "Answers given before, or 503."),
)

LEVELS: Final = tuple(DegradationLevel(*row) for row in _ROWS)
"""From the least loss to the greatest. A database that is unavailable stops the ingester's jobs and
nothing else."""

FALLBACK: Final = {level.stage: level.fallback for level in LEVELS}


def current_level(unavailable: Collection[str]) -> DegradationLevel:
    """Return the level with the greatest loss among those of the `unavailable` services."""
    return next((each for each in reversed(LEVELS) if each.service in unavailable), LEVELS[0])
