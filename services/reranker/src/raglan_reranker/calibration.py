"""From a model's score of a pair to how relevant the passage is, in [0, 1].

The value depends on the pair alone, never on the other candidates, so that one limit (`min_score`)
means the same for every query. A cross-encoder with one output gives the log odds of relevance.
What a MaxSim of the bundled model is worth was fitted by logistic regression (Platt, 1999). Servers
give 0 to 1 already. For any other model the logistic function of the score is monotone, but no
probability.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Calibration:
    """Log odds as a linear function of the model's score."""

    intercept: float
    raw: float

    def log_odds(self, raw: NDArray[np.float64]) -> NDArray[np.float64]:
        """Of passages with these scores."""
        return self.intercept + self.raw * raw

    def probabilities(self, raw: NDArray[np.float64]) -> NDArray[np.float64]:
        """Of passages with these scores, in [0, 1]."""
        odds = self.log_odds(raw)
        # exp overflows beyond 709, where the probability is 0 or 1 to the last bit.
        chances: NDArray[np.float64] = 1 / (1 + np.exp(-np.clip(odds, -700, 700)))
        return chances


@dataclass(frozen=True, slots=True)
class Clamped:
    """For scores that are in [0, 1] already; what a server gives beyond that is cut off."""

    def log_odds(self, raw: NDArray[np.float64]) -> NDArray[np.float64]:
        """Of passages with these scores; near 0 and 1 limited by the precision of a double."""
        chances = np.clip(raw, 1e-15, 1 - 1e-15)
        odds: NDArray[np.float64] = np.log(chances) - np.log1p(-chances)
        return odds

    def probabilities(self, raw: NDArray[np.float64]) -> NDArray[np.float64]:
        """The scores themselves, in [0, 1]."""
        return np.clip(raw, 0.0, 1.0)


def calibration_of(engine: str, revision: str) -> Calibration | Clamped | None:
    """Return the calibration of the model at `revision` as `engine` uses it.

    None where the scores say nothing of the passages.
    """
    if engine == "null":
        return None
    if engine == "http":
        return Clamped()
    return FITTED.get((engine, revision), LOG_ODDS)


LOG_ODDS_SPREAD: Final = 4.0
"""Log odds that count as one standard deviation where they are blended with retrieval's scores."""

LOG_ODDS: Final = Calibration(intercept=0.0, raw=1.0)
"""For scores that are log odds, and for those of which nothing is known."""

FITTED: Final[Mapping[tuple[str, str], Calibration]] = {
    # sentence-transformers/all-MiniLM-L6-v2: every second question of SQuAD and Cranfield, each set
    # with the same weight, the 20 best passages of each. `make bench-reranker` fits SciFact too.
    ("late-interaction", "9ca8eb488ac9"): Calibration(intercept=-9.747, raw=13.388),
}
"""By engine and revision of the weights."""
