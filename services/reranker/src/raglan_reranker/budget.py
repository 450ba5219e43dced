"""Number of candidates to score, and blending of their scores with those of retrieval."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def within_gap(retrieval: NDArray[np.float64], gap: float) -> int:
    """Return the number of candidates from the top down to the last that is worth scoring.

    Worth it is one whose retrieval score lies at most `gap` standard deviations of these scores
    below the best of them: shifting or stretching the scores changes nothing, and equal scores are
    never cut apart. From the top without gaps, as in `affordable`.
    """
    if gap == math.inf:
        return len(retrieval)
    heights = standardised(retrieval)
    near = np.flatnonzero(heights >= heights.max(initial=-np.inf) - gap)
    return int(near[-1]) + 1 if len(near) else 0


def affordable(query_tokens: int, lengths: Sequence[int], *, count: int, tokens: int) -> int:
    """Return the number of candidates from the top within `count` and `tokens`.

    From the top without gaps: a candidate below one that was left out would pass it unseen.

    Args:
        query_tokens: what the query costs, once.
        lengths: tokens each candidate costs, best first.
        count: largest number of candidates.
        tokens: token budget.
    """
    spent, taken = query_tokens, 0
    for length in lengths[:count]:
        spent += length
        if spent > tokens:
            break
        taken += 1
    return taken


def blend(
    scores: NDArray[np.float64], retrieval: NDArray[np.float64], share: float
) -> NDArray[np.float64]:
    """`share` of the model's scores and the rest of retrieval's, both as z-scores.

    z-scores, because the two have nothing else in common; equal scores all become 0 and then say
    nothing, which is right.

    Args:
        scores: of the candidates that were scored.
        retrieval: of all candidates, those that were scored first: how far the first are ahead of
            the rest counts, whether the rest was scored or not.
        share: weight of the model's scores, in [0, 1].
    """
    return mixed(standardised(scores), retrieval, share)


def mixed(
    heights: NDArray[np.float64], retrieval: NDArray[np.float64], share: float
) -> NDArray[np.float64]:
    """Blend like `blend`, for scores that are z-scores already."""
    return share * heights + (1 - share) * standardised(retrieval)[: len(heights)]


def standardised(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """`values` less their mean, in standard deviations; 0 where all are equal."""
    if not len(values):
        return np.zeros_like(values)
    # Scaled first, so that values near the float limit do not overflow when squared.
    scale = np.abs(values).max()
    centred = values / scale if scale > 0 else values
    centred = centred - centred.sum() / len(values)
    # As a product: numpy's mean takes several times as long for so few values.
    deviation = math.sqrt(centred.dot(centred) / len(values))
    return centred / deviation if deviation > 1e-9 else np.zeros_like(values)
