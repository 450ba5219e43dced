"""Picking the sentences that answer a question, by the words they share with it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from raglan_generator.generation import Passage
from raglan_generator.sentences import Span, split
from raglan_generator.terms import terms


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence of a passage and how well it fits the question."""

    passage: int
    span: Span
    score: float


@dataclass(frozen=True, slots=True)
class Extraction:
    """The chosen sentences, in reading order, and the support they have, in [0, 1]."""

    sentences: tuple[Sentence, ...]
    confidence: float


def extract(
    question: str,
    passages: Sequence[Passage],
    *,
    max_sentences: int = 3,
    checkpoint: Callable[[], None] = lambda: None,
) -> Extraction:
    """The best sentences of `passages` for `question`.

    Args:
        checkpoint: called once a passage; raises to stop the work.
    """
    asked = set(terms(question))
    candidates: list[tuple[int, Span, set[str]]] = []
    for index, passage in enumerate(passages):
        checkpoint()
        candidates += [
            (index, span, set(terms(passage.text[span.start : span.end])))
            for span in split(passage.text)
        ]
    weights = idf(asked, [held for _, _, held in candidates])
    total = sum(weights.values())
    if not candidates or not total:
        return Extraction((), 0.0)
    scored = [
        Sentence(index, span, sum(weights[t] for t in asked & held) / total - 0.02 * index)
        for index, span, held in candidates
    ]
    best = sorted(scored, key=lambda s: -s.score)[:max_sentences]
    held = set[str]().union(
        *(h for i, s, h in candidates if any((i, s) == (b.passage, b.span) for b in best))
    )
    confidence = sum(weights[t] for t in asked & held) / total
    order = {p: i for i, p in enumerate(dict.fromkeys(s.passage for s in best))}
    best.sort(key=lambda s: (order[s.passage], s.span))
    return Extraction(tuple(best), confidence)


def idf(asked: Iterable[str], documents: Sequence[set[str]]) -> dict[str, float]:
    """The weight of each term of `asked`, as in BM25, by how few of `documents` hold it."""
    counts = Counter(term for held in documents for term in held)
    n = len(documents)
    return {t: math.log(1 + (n - counts[t] + 0.5) / (counts[t] + 0.5)) for t in asked}
