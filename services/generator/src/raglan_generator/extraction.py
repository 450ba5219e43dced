"""Picking the sentences that answer a question, by words, neighbours and the passages' order.

Every weight here was chosen on SQuAD questions 1,001-2,000 and is reported on the first 1,000 by
`bench/generator_quality.py`; each term of `_scores` gains there what the others cannot give.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from raglan_generator.cues import cue_of
from raglan_generator.generation import Passage
from raglan_generator.sentences import Span, spans
from raglan_generator.support import confidence
from raglan_generator.terms import grams, grams_of, terms

_BEFORE, _AFTER, _CUE, _PRIOR = 0.3, 0.15, 0.15, 0.4


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence of a passage and how well it fits the question."""

    passage: int
    span: Span
    score: float
    """For ranking only; has no scale."""


@dataclass(frozen=True, slots=True)
class Extraction:
    """The best sentences and the support they have."""

    sentences: tuple[Sentence, ...]
    """Best first."""
    confidence: float
    """In [0, 1]; see `support.confidence`."""

    def in_reading_order(self) -> tuple[Sentence, ...]:
        """Passages by their best sentence; within a passage as the document has them."""
        order = {
            index: i for i, index in enumerate(dict.fromkeys(s.passage for s in self.sentences))
        }
        return tuple(sorted(self.sentences, key=lambda s: (order[s.passage], s.span)))


@dataclass(frozen=True, slots=True)
class _Candidate:
    passage: int
    span: Span
    terms: frozenset[str]
    text: str


def extract(
    question: str,
    passages: Sequence[Passage],
    *,
    max_sentences: int = 3,
    checkpoint: Callable[[], None] = lambda: None,
) -> Extraction:
    """The best sentences of `passages` for `question`; none when no sentence shares a word with it.

    Takes about 3 ms for 10 passages of 700 characters, and grows with their length.

    Args:
        passages: best first.
        checkpoint: called for each sentence; raises to stop the work.
    """
    asked = list(dict.fromkeys(terms(question)))
    candidates: list[_Candidate] = []
    for index, passage in enumerate(passages):
        candidates += _candidates(index, passage, checkpoint)
    if not asked or not candidates:
        return Extraction((), 0.0)
    matches = _matches(asked, candidates, checkpoint)
    if not any(exact for exact, _, _ in matches):
        return Extraction((), 0.0)
    scores = _scores(question, passages, candidates, matches)
    best = sorted(range(len(candidates)), key=lambda i: -scores[i])[:max_sentences]
    return Extraction(
        tuple(Sentence(candidates[i].passage, candidates[i].span, scores[i]) for i in best),
        confidence(
            match=max(matches[i][1] for i in best),
            share=_best_share(asked, passages, candidates),
            similarity=max(
                (p.similarity for p in passages if p.similarity is not None), default=None
            ),
        ),
    )


def _candidates(index: int, passage: Passage, checkpoint: Callable[[], None]) -> list[_Candidate]:
    found = []
    for span in spans(passage.text):
        checkpoint()
        text = passage.text[span.start : span.end]
        found.append(_Candidate(index, span, frozenset(terms(text)), text))
    return found


def _matches(
    asked: Sequence[str], candidates: Sequence[_Candidate], checkpoint: Callable[[], None]
) -> list[tuple[float, float, dict[str, float]]]:
    """For each candidate: its exact coverage and its match, in [0, 1], and the terms it lacks.

    A term weighs its BM25 inverse frequency among the candidates. The match counts whole terms and
    their four-letter pieces equally, so that "invasion" half answers to "invaded".
    """
    counts = Counter(term for candidate in candidates for term in candidate.terms)
    n = len(candidates)
    weights = {t: math.log(1 + (n - counts[t] + 0.5) / (counts[t] + 0.5)) for t in asked}
    total = sum(weights.values())
    weights = {t: weight / total for t, weight in weights.items()}
    pieces = {t: grams(t) for t in asked}
    found = []
    for candidate in candidates:
        checkpoint()
        held = grams_of(candidate.terms)
        exact = sum(weights[t] for t in asked if t in candidate.terms)
        partly = sum(weights[t] * len(pieces[t] & held) / len(pieces[t]) for t in asked)
        lacking = {t: weights[t] for t in asked if t not in candidate.terms}
        found.append((exact, (exact + partly) / 2, lacking))
    return found


def _scores(
    question: str,
    passages: Sequence[Passage],
    candidates: Sequence[_Candidate],
    matches: Sequence[tuple[float, float, dict[str, float]]],
) -> list[float]:
    priors, cue = _priors(passages), cue_of(question)

    def neighbour(i: int, step: int) -> float:
        # "It has 12 floors." answers through the sentence before, which names the building.
        j = i + step
        if not 0 <= j < len(candidates) or candidates[j].passage != candidates[i].passage:
            return 0.0
        return sum(weight for t, weight in matches[i][2].items() if t in candidates[j].terms)

    return [
        match
        + _BEFORE * neighbour(i, -1)
        + _AFTER * neighbour(i, +1)
        + _CUE * cue(candidates[i].text)
        + _PRIOR * priors[candidates[i].passage]
        for i, (_, match, _) in enumerate(matches)
    ]


def _priors(passages: Sequence[Passage]) -> list[float]:
    """How the passages compare before their sentences are read, in [0, 1]."""
    scores = [passage.score for passage in passages if passage.score is not None]
    if len(scores) == len(passages) and max(scores) > min(scores):
        low, high = min(scores), max(scores)
        return [(score - low) / (high - low) for score in scores]
    return [1 / rank for rank in range(1, len(passages) + 1)]


def _best_share(
    asked: Sequence[str], passages: Sequence[Passage], candidates: Sequence[_Candidate]
) -> float:
    """The largest share of the question's terms that one passage holds, its headings included."""
    held = [set(terms(" ".join((p.title, *p.headings)))) for p in passages]
    for candidate in candidates:
        held[candidate.passage] |= candidate.terms
    return max(sum(t in terms_ for t in asked) for terms_ in held) / len(asked)
