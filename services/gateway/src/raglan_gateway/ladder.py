"""The degradation ladder: what stands in for each part of the mesh while it is away."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Rung:
    """One part that may be away."""

    name: str
    """What `/readyz` calls the rung."""
    stage: str
    """As in `degraded` and `timings_ms`."""
    service: str
    fallback: str
    """What `degraded` says stands in."""
    means: str


LADDER: Final = (
    Rung("full", "", "", "", "Every part is there."),
    Rung("local_state", "share", "redis", "local", "Limits and kept answers are each gateway's."),
    Rung("no_uploads", "ingest", "ingester", "refused", "Uploads are refused, queries answered."),
    Rung("words_compared", "cite", "embedder", "lexical", "Words decide what citations support."),
    Rung("fused_order", "rerank", "reranker", "fused_order", "Passages keep the index's order."),
    Rung("lexical", "embed", "embedder", "lexical", "Searches go by words alone."),
    Rung("passages", "generate", "generator", "passages", "The best passages are quoted, cited."),
    Rung("kept_answers", "retrieve", "retriever", "cached_answer", "Answers given before, or 503."),
)
"""From what is missed least to what is missed most. A database that is away stops the ingester's
jobs and nothing else."""

FALLBACK: Final = {rung.stage: rung.fallback for rung in LADDER}


def standing_on(away: Collection[str]) -> Rung:
    """The rung that the mesh stands on while these services are `away`: the lowest of theirs."""
    return next(rung for rung in reversed(LADDER) if not rung.service or rung.service in away)
