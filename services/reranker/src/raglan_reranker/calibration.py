"""From a model's scores to the probability that a passage is relevant, for models that are known.

A cross-encoder with one output gives the log odds of relevance. MaxSim gives a mean cosine; what
that is worth, beside how far the passage is ahead in retrieval, was fitted by logistic regression
(Platt, 1999). For any other model there is no honest figure, and none is given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Calibration:
    """Log odds as a weighted sum."""

    intercept: float
    raw: float
    retrieval: float

    def probabilities(
        self, raw: NDArray[np.float64], retrieval: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Of passages with these raw scores and z-scores in retrieval, 0..1."""
        odds = self.intercept + self.raw * raw + self.retrieval * retrieval
        # exp overflows beyond 709, where the probability is 0 or 1 to the last bit.
        chances: NDArray[np.float64] = 1 / (1 + np.exp(-np.clip(odds, -700, 700)))
        return chances


def known(engine: str, revision: str) -> Calibration | None:
    """The calibration of the model at `revision` as `engine` uses it; None without one."""
    return LOG_ODDS if engine == "cross-encoder" else FITTED.get((engine, revision))


LOG_ODDS: Final = Calibration(intercept=0.0, raw=1.0, retrieval=0.0)
"""For raw scores that are log odds."""

FITTED: Final[Mapping[tuple[str, str], Calibration]] = {
    # sentence-transformers/all-MiniLM-L6-v2, by `make bench-reranker`: every second question of
    # three sets, each set with the same weight, the 20 best passages of each.
    ("late-interaction", "53aa51172d14"): Calibration(intercept=-7.726, raw=9.391, retrieval=0.592),
}
"""By engine and revision of the weights."""
