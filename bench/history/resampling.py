"""Bootstrap intervals over the samples of runs; apart from the rest because NumPy loads slowly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from history.records import Figure

_RESAMPLES: Final = 2_000
_SEED: Final = 0
"""The same runs give the same verdict."""

_FEWEST: Final = 20
_FEWEST_BEYOND: Final = 5
"""Samples beyond a percentile, without which it is one sample's luck."""

Array = np.ndarray[Any, np.dtype[np.float64]]
Bounds = tuple[float, float, float]
"""low, estimate, high"""


def paired(before: Sequence[Figure], now: Sequence[Figure], confidence: float) -> Bounds | None:
    """Of the mean difference a question; None where runs did not answer the same ones."""
    every = (*before, *now)
    sizes = {len(each.samples) for each in every}
    if len(sizes) != 1 or not all(each.paired and each.statistic == "mean" for each in every):
        return None
    if sizes.pop() < _FEWEST:
        return None
    old, new = (np.mean([each.samples for each in some], axis=0) for some in (before, now))
    apart = new - old
    drawn = np.random.default_rng(_SEED).integers(len(apart), size=(_RESAMPLES, len(apart)))
    return _bounds(apart[drawn].mean(axis=1), float(apart.mean()), confidence)


def unpaired(before: Sequence[Figure], now: Sequence[Figure], confidence: float) -> Bounds | None:
    """Of the difference of a statistic; None where a run has too few samples for it."""
    statistic = before[0].statistic
    if any(
        each.statistic != statistic or not _enough(len(each.samples), statistic)
        for each in (*before, *now)
    ):
        return None
    random = np.random.default_rng(_SEED)
    sides = [[np.array(each.samples) for each in some] for some in (before, now)]
    old, new = (_statistic(np.concatenate(runs)[None], statistic)[0] for runs in sides)
    was, became = (_redrawn(runs, statistic, random) for runs in sides)
    return _bounds(became - was, float(new - old), confidence)


def _enough(samples: int, statistic: str) -> bool:
    if samples < _FEWEST or statistic == "mean":
        return samples >= _FEWEST
    percent = float(statistic.removeprefix("p"))
    return samples * min(percent, 100 - percent) >= 100 * _FEWEST_BEYOND


def _redrawn(runs: Sequence[Array], statistic: str, random: np.random.Generator) -> Array:
    """The statistic of each resample: of runs first, then of the samples of each."""
    if len(runs) == 1:
        (run,) = runs
        return _statistic(run[random.integers(len(run), size=(_RESAMPLES, len(run)))], statistic)
    found = []
    for chosen in random.integers(len(runs), size=(_RESAMPLES, len(runs))):
        parts = [runs[i][random.integers(len(runs[i]), size=len(runs[i]))] for i in chosen]
        found.append(_statistic(np.concatenate(parts)[None], statistic)[0])
    return np.array(found)


def _statistic(samples: Array, statistic: str) -> Array:
    """Of each row; a percentile is a value that was measured."""
    if statistic == "mean":
        return np.asarray(samples.mean(axis=1))
    percent = float(statistic.removeprefix("p"))
    return np.asarray(np.percentile(samples, percent, axis=1, method="inverted_cdf"))


def _bounds(resampled: Array, estimate: float, confidence: float) -> Bounds:
    tail = (1 - confidence) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return float(low), estimate, float(high)
