"""Two ranked lists made one: weighted score fusion, the same for every store.

Each leg's scores are brought to a common scale, weighted and summed; what a leg did not find gets
nothing from it. DBSF is Qdrant's distribution-based score fusion (mean ± 3 standard deviations to
0..1); RRF follows Cormack, Clarke and Büttcher (SIGIR 2009) with the weight outside the fraction,
because Qdrant's weighted form acts backwards for what both legs found.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Generic, Literal, TypeVar

Key = TypeVar("Key", bound=Hashable)
Method = Literal["dbsf", "min_max", "rrf"]

RRF_K: Final = 2
"""Qdrant's default."""


@dataclass(frozen=True, slots=True)
class Leg(Generic[Key]):
    """What one way of searching found, best first, with its raw scores."""

    hits: Sequence[tuple[Key, float]]
    weight: float = 1.0

    credit: Callable[[Key], float] | None = None
    """What of the weight a hit gets, in [0, 1]; None gives it the whole weight."""


def fuse(legs: Sequence[Leg[Key]], method: Method) -> list[tuple[Key, float]]:
    """Everything that any leg found, best first. Ties keep the order in which they were met."""
    scale = _SCALES[method]
    fused: dict[Key, float] = {}
    for leg in legs:
        for (key, _), share in zip(leg.hits, scale([s for _, s in leg.hits]), strict=True):
            credit = 1.0 if leg.credit is None else leg.credit(key)
            fused[key] = fused.get(key, 0.0) + leg.weight * credit * share
    return sorted(fused.items(), key=lambda item: -item[1])


def dbsf(scores: Sequence[float]) -> list[float]:
    """Scores on the scale where mean - 3 deviations is 0 and mean + 3 deviations is 1.

    The deviation is the sample's (n - 1). A single score, or equal ones, get 0.5, like Qdrant's.
    """
    if len(set(scores)) < 2:
        return [0.5] * len(scores)
    mean = math.fsum(scores) / len(scores)
    deviation = math.sqrt(math.fsum((s - mean) ** 2 for s in scores) / (len(scores) - 1))
    low = mean - 3 * deviation
    return [(s - low) / (6 * deviation) for s in scores]


def min_max(scores: Sequence[float]) -> list[float]:
    """Scores on the scale where the worst is 0 and the best 1; equal ones get 1."""
    low, high = min(scores, default=0.0), max(scores, default=0.0)
    return [(s - low) / (high - low) if high > low else 1.0 for s in scores]


def rrf(scores: Sequence[float]) -> list[float]:
    """Reciprocal ranks: 1 / (`RRF_K` + rank), the best having rank 0."""
    return [1 / (RRF_K + rank) for rank in range(len(scores))]


_SCALES: Final[Mapping[Method, Callable[[Sequence[float]], list[float]]]] = {
    "dbsf": dbsf,
    "min_max": min_max,
    "rrf": rrf,
}
