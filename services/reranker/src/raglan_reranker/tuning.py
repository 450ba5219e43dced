"""Default budgets and weights of each engine.

Late interaction works with a model that was not trained to rerank: its share, budget and gap were
measured (docs/decisions/reranking.md). Models trained to rerank give the log odds of relevance;
they are used as their authors do: every candidate scored, and their order taken as it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final


@dataclass(frozen=True, slots=True)
class Tuning:
    """Defaults of an engine."""

    share: float
    """Of the model's score in the order."""

    tokens_on_cpu: int
    """Of query and candidates a call."""

    gap: float
    """Standard deviations a retrieval score may lie below the best."""

    is_absolute: bool
    """True if a score says by itself how relevant a passage is, whatever stands beside it."""


_TRAINED: Final = Tuning(share=1.0, tokens_on_cpu=8_000, gap=math.inf, is_absolute=True)

TUNING: Final = {
    "late-interaction": Tuning(share=0.5, tokens_on_cpu=1_200, gap=3.0, is_absolute=False),
    "cross-encoder": _TRAINED,
    "llm": _TRAINED,
    # A server says a number of its own scale, often in [0, 1].
    "http": replace(_TRAINED, is_absolute=False),
    "null": Tuning(share=1.0, tokens_on_cpu=65_536, gap=math.inf, is_absolute=False),
}
"""By the name of the engine."""

TOKENS_ON_GPU: Final = 65_536
PASSAGE_TOKENS_ON_CPU: Final = 384
"""Of one candidate: chunks are shorter, and one long text must not take the place of all others."""
