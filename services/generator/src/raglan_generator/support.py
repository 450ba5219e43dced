"""How far an answer may be trusted: one number from what the passages share with the question.

Both logistic models were fitted to tell SQuAD questions (1,001-2,000) from every second question
of SciFact and Cranfield, all put to the SQuAD collection; `bench/generator_quality.py` reports the
rest. They answer "do the documents speak of this?"; whether the sentence is the right one they tell
only weakly (area under the curve 0.62). The cosine is that of all-MiniLM-L6-v2: with an embedder
whose cosines run higher, fewer answers abstain.
"""

from __future__ import annotations

import math


def confidence(*, match: float, share: float, similarity: float | None) -> float:
    """In [0, 1], rising with each argument.

    Args:
        match: of the best sentence with the question, in [0, 1], each term by its rarity.
        share: of the question's terms in the best passage, in [0, 1], each term alike; used
            where there is no similarity, beside which it adds nothing.
        similarity: cosine of the question and the nearest passage; None where it is unknown.
    """
    if similarity is None:
        # 0.5 more than fitted, so that one threshold serves both.
        return _logistic(8.0 * match + 14.0 * share - 9.4)
    return _logistic(16.0 * match + 14.4 * similarity - 11.9)


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x))
