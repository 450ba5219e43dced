"""Confidence of an extracted answer: one number from its agreement with the passages.

Two questions in turn: do the passages speak of what is asked, and if they do, are these the right
sentences? The first is a logistic model, fitted by `bench/extraction_weights.py` to tell SQuAD
questions (1,001-2,000) from every second question of SciFact and Cranfield, all put to the SQuAD
collection. The second is the sentences' own chance. `bench/generator_quality.py` shows on other
questions how well the product holds. The cosine is that of all-MiniLM-L6-v2: with an embedder whose
cosines run higher, fewer answers abstain.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

WEIGHTS: Final = {"match": 5.4, "coverage": 10.7, "similarity": 14.2}
OFFSET: Final = -12.0
WEIGHTS_BY_WORDS: Final = {"match": 5.0, "coverage": 14.0}
OFFSET_BY_WORDS: Final = -6.0
"""Offset where no embedder has compared question and passages."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Evidence for an answer, each component in [0, 1]."""

    match: float
    """Of the best sentence with the question, each term by its rarity."""
    coverage: float
    """Share of the question's terms in one passage, long ones, which are rarer, weighing more."""
    similarity: float | None
    """Cosine of the question and the nearest passage; None where it is unknown."""
    specifics: float
    """1 where a passage of the chosen units has every name, number, code and rare word of the
    question; less the more of them it lacks, and the more telling they are."""
    share: float
    """Chance that the chosen sentences hold the answer, if any of the passages' sentences does."""

    def confidence(self) -> float:
        """The probability that the chosen sentences hold the answer, in [0, 1]."""
        parts = self.parts()
        return self.answerable() * parts["specifics"] * parts["share"]

    def answerable(self) -> float:
        """Probability that the passages are about the question, in [0, 1]."""
        parts = self.parts()
        known = self.similarity is not None
        x = OFFSET if known else OFFSET_BY_WORDS
        for name, weight in (WEIGHTS if known else WEIGHTS_BY_WORDS).items():
            x += weight * parts[name]
        return 1 / (1 + math.exp(-x))

    def parts(self) -> dict[str, float]:
        """By name; what is unknown is missing."""
        found = {
            "match": self.match,
            "coverage": self.coverage,
            "specifics": self.specifics,
            "share": self.share,
        }
        if self.similarity is not None:
            found["similarity"] = self.similarity
        return {name: min(1.0, max(0.0, value)) for name, value in found.items()}
