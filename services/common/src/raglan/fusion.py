"""Two ranked lists made one: weighted score fusion, the same for every store.

Each leg's scores are brought to a common scale, weighted and summed; what a leg did not find gets
nothing from it.

DBSF is Qdrant's distribution-based score fusion (mean ± 3 standard deviations to 0..1), with one
addition: of a leg that searched a known number of candidates, those that it did not find count as
scored 0. Without that a lone hit has no deviation and gets .5, less than every dense neighbour;
with it, the fewer chunks hold the words of the query, the further they stand out.

RRF follows Cormack, Clarke and Büttcher (SIGIR 2009) with the weight outside the fraction, because
Qdrant's weighted form acts backwards for what both legs found.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Final, Generic, Literal, TypeVar

Key = TypeVar("Key", bound=Hashable)
Method = Literal["dbsf", "min_max", "rrf"]

RRF_K: Final = 2
"""Qdrant's default."""

MAX_POPULATION: Final = 1000
"""Most candidates that scores are compared with; docs/decisions/retrieval.md has the choice."""

_EXACT_DEVIATIONS: Final = (9.0, 15.0)
"""Least distance of an exact match from the mean, in standard deviations: that of a hit with a
third of all squared deviations, within these bounds. The upper one is out of reach for five equal
hits, the lower one for any hit among fewer than 83 chunks, where every word is rare."""


@dataclass(frozen=True, slots=True)
class Leg(Generic[Key]):
    """Hits of one search method, best first, with raw scores."""

    hits: Sequence[tuple[Key, float]]
    weight: float = 1.0
    population: int = 0
    """Candidates that the scores are a sample of; those that were not found scored 0. With 0, only
    what was found counts. DBSF heeds it."""

    credit: Callable[[Key], float] | None = None
    """Share of the leg's weight that a hit gets, in [0, 1]; None gives the whole weight."""


def fuse(legs: Sequence[Leg[Key]], method: Method) -> list[tuple[Key, float]]:
    """Merge the hits of all legs, best first. Ties keep their order of appearance."""
    fused: dict[Key, float] = {}
    for leg in legs:
        for (key, _), share in zip(leg.hits, _shares(leg, method), strict=True):
            weight = leg.weight if leg.credit is None else leg.weight * leg.credit(key)
            fused[key] = fused.get(key, 0.0) + weight * share
    return sorted(fused.items(), key=itemgetter(1), reverse=True)


def exact_matches(leg: Leg[Key]) -> frozenset[Key]:
    """Return the lexical hits that hold words which hardly any other chunk holds.

    These are identifiers, error codes, names and rare words of the query. Their chunk is meant,
    whatever a model thinks of its text.
    """
    shares = _shares(leg, "dbsf")
    low, high = _EXACT_DEVIATIONS
    deviations = min(high, max(low, math.sqrt(leg.population / 3)))
    least = 0.5 + deviations / 6
    return frozenset(
        key for (key, _), share in zip(leg.hits, shares, strict=True) if share >= least
    )


def dbsf(scores: Sequence[float], *, population: int = 0) -> list[float]:
    """Scale scores so that mean - 3 deviations is 0 and mean + 3 deviations is 1.

    The deviation is the sample's (n - 1). Equal scores, or a single one, of a population that they
    are all of get 0.5, like Qdrant's.

    Args:
        scores: Raw scores, best first.
        population: Number of candidates, those with score 0 that are not among `scores` included.
    """
    count = max(population, len(scores))
    missing = count - len(scores)
    if len({*scores, 0.0} if missing else set(scores)) < 2:
        return [0.5] * len(scores)
    mean = math.fsum(scores) / count
    squares = math.fsum([(s - mean) ** 2 for s in scores]) + missing * mean**2
    deviation = math.sqrt(squares / (count - 1))
    low = mean - 3 * deviation
    return [(s - low) / (6 * deviation) for s in scores]


def min_max(scores: Sequence[float]) -> list[float]:
    """Scale scores so that the worst is 0 and the best 1; equal ones get 1."""
    low, high = min(scores, default=0.0), max(scores, default=0.0)
    return [(s - low) / (high - low) if high > low else 1.0 for s in scores]


def rrf(scores: Sequence[float]) -> list[float]:
    """Return reciprocal ranks: 1 / (`RRF_K` + rank), the best with rank 0."""
    return [1 / (RRF_K + rank) for rank in range(len(scores))]


def _shares(leg: Leg[Key], method: Method) -> list[float]:
    scores = [score for _, score in leg.hits]
    match method:
        case "dbsf":
            return dbsf(scores, population=leg.population)
        case "min_max":
            return min_max(scores)
        case "rrf":
            return rrf(scores)
