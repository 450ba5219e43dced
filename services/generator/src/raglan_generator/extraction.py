"""Picking the sentences that answer a question, by words, neighbours and what other stages found.

A sentence's chance to hold the answer is a softmax over all sentences of the passages
(`features` has what speaks for one), so the best few are also the likeliest to hold it together.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, NamedTuple

from raglan_generator.cues import cue_of, names_of
from raglan_generator.generation import Passage
from raglan_generator.sentences import Span, spans
from raglan_generator.support import Evidence
from raglan_generator.terms import grams, grams_of, terms


class Features(NamedTuple):
    """What speaks for a sentence; also what each of these weighs."""

    words: float
    """Share of the question's terms that it holds, rare ones weighing more."""
    pieces: float
    """The same by their four-letter pieces: "invasion" half answers to "invaded"."""
    pairs: float
    """Share of the question's pairs of neighbouring terms that it holds: "steam engine"."""
    before: float
    """Share of the terms that it lacks and the sentence before it holds: "It has 12 floors."."""
    matched: float
    """Share of the question's words whose best match in the passage, by meaning, lies in it."""
    cue: float
    """1 when it holds the kind of thing that is asked for: a name, a time, an amount."""
    rank: float
    """Minus the logarithm of its passage's rank."""
    similarity: float
    """Cosine of its passage and the question."""


WEIGHTS: Final = Features(
    words=2.1, pieces=5.7, pairs=1.0, before=4.1, matched=4.2, cue=2.4, rank=1.0, similarity=8.6
)
"""Fitted to SQuAD questions 1,001-2,000 by `bench/extraction_weights.py`, which shows what each one
is worth."""

WEIGHTS_UNREAD: Final = Features(
    words=3.7, pieces=6.3, pairs=1.8, before=4.0, matched=0.0, cue=2.7, rank=1.15, similarity=8.1
)
"""Where no reranker has looked at words."""

WEIGHTS_BY_WORDS: Final = Features(
    words=3.3, pieces=6.3, pairs=1.8, before=3.7, matched=0.0, cue=2.7, rank=1.85, similarity=0.0
)
"""Where no embedder has compared question and passages either."""

_TRUSTED: Final = 3
"""Sentences that the confidence is about."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence of a passage and how likely it holds the answer."""

    passage: int
    span: Span
    chance: float
    """In [0, 1], if one of the passages' sentences holds it at all."""


@dataclass(frozen=True, slots=True)
class Extraction:
    """The best sentences and the support they have."""

    sentences: tuple[Sentence, ...]
    """Best first."""
    confidence: float
    """The probability that they hold the answer, in [0, 1]; see `support.Evidence`."""
    answerable: float = 0.0
    """The probability that the passages speak of what is asked, in [0, 1]."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """What the confidence was made from, each in [0, 1]."""

    def in_reading_order(self) -> tuple[Sentence, ...]:
        """Passages by their best sentence; within a passage as the document has them."""
        order = {
            index: i for i, index in enumerate(dict.fromkeys(s.passage for s in self.sentences))
        }
        return tuple(sorted(self.sentences, key=lambda s: (order[s.passage], s.span)))


@dataclass(frozen=True, slots=True)
class Candidate:
    """A sentence that may answer."""

    passage: int
    span: Span
    terms: frozenset[str]
    pairs: frozenset[tuple[str, str]]
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
    candidates = candidates_of(passages, checkpoint)
    found = features(question, passages, candidates, checkpoint)
    if not any(each.words for each in found):
        return Extraction((), 0.0)
    chances = chances_of(candidates, found)
    order = sorted(range(len(candidates)), key=lambda i: -chances[i])
    best = [i for i in order if chances[i] > 0][:max_sentences]
    sentences = [Sentence(candidates[i].passage, candidates[i].span, chances[i]) for i in best]
    evidence = evidence_of(question, passages, candidates, found, chances)
    return Extraction(
        tuple(sentences), evidence.confidence(), evidence.answerable(), evidence.parts()
    )


def candidates_of(
    passages: Sequence[Passage], checkpoint: Callable[[], None] = lambda: None
) -> list[Candidate]:
    """Every sentence of the passages, in order."""
    found = []
    for index, passage in enumerate(passages):
        for span in spans(passage.text):
            checkpoint()
            text = passage.text[span.start : span.end]
            held = terms(text)
            found.append(Candidate(index, span, frozenset(held), frozenset(pairwise(held)), text))
    return found


def features(
    question: str,
    passages: Sequence[Passage],
    candidates: Sequence[Candidate],
    checkpoint: Callable[[], None] = lambda: None,
) -> list[Features]:
    """Of each candidate."""
    asked = terms(question)
    weights, pairs = _rarities(list(dict.fromkeys(asked)), candidates), set(pairwise(asked))
    pieces = {term: grams(term) for term in weights}
    cue = cue_of(question)
    matches = [sorted(passage.matches) for passage in passages]
    matched = max(map(len, matches), default=0) or 1
    lowest = min((p.similarity for p in passages if p.similarity is not None), default=0.0)
    found = []
    for number, each in enumerate(candidates):
        checkpoint()
        held, passage = grams_of(each.terms), passages[each.passage]
        before = candidates[number - 1] if number else None
        near = before.terms if before and before.passage == each.passage else frozenset()
        inside = matches[each.passage]
        here = bisect_left(inside, each.span.end) - bisect_left(inside, each.span.start)
        found.append(
            Features(
                words=sum(w for t, w in weights.items() if t in each.terms),
                pieces=sum(w * len(pieces[t] & held) / len(pieces[t]) for t, w in weights.items()),
                pairs=len(pairs & each.pairs) / (len(pairs) or 1),
                before=sum(w for t, w in weights.items() if t in near and t not in each.terms),
                matched=here / matched,
                cue=float(cue(each.text)),
                rank=-math.log(each.passage + 1),
                similarity=lowest if passage.similarity is None else passage.similarity,
            )
        )
    return found


def evidence_of(
    question: str,
    passages: Sequence[Passage],
    candidates: Sequence[Candidate],
    found: Sequence[Features],
    chances: Sequence[float],
) -> Evidence:
    """What speaks for an answer of three sentences, whatever fewer or more are asked for."""
    order = sorted(range(len(chances)), key=lambda i: -chances[i])[:_TRUSTED]
    held = [set(terms(" ".join((p.title, *p.headings)))) for p in passages]
    for candidate in candidates:
        held[candidate.passage] |= candidate.terms
    coverage = _held({term: float(len(term)) for term in terms(question)}, held)
    names = {term: 1.0 for name in names_of(question) for term in terms(name)}
    return Evidence(
        match=max((found[i].words + found[i].pieces) / 2 for i in order),
        coverage=coverage,
        names=_held(names, held) if names else coverage,
        similarity=max((p.similarity for p in passages if p.similarity is not None), default=None),
        share=sum(chances[i] for i in order),
    )


def _weights(found: Sequence[Features]) -> Features:
    if any(each.matched for each in found):
        return WEIGHTS
    return WEIGHTS_UNREAD if any(each.similarity for each in found) else WEIGHTS_BY_WORDS


def _held(weights: Mapping[str, float], held: Sequence[set[str]]) -> float:
    """The largest share of `weights` whose terms one passage holds."""
    best = max(sum(w for term, w in weights.items() if term in each) for each in held)
    return best / sum(weights.values())


def _rarities(asked: Sequence[str], candidates: Sequence[Candidate]) -> dict[str, float]:
    """What each of the question's terms weighs, 1 in all: BM25's inverse frequency among them."""
    counts = Counter(term for candidate in candidates for term in candidate.terms)
    n = len(candidates)
    weights = {t: math.log(1 + (n - counts[t] + 0.5) / (counts[t] + 0.5)) for t in asked}
    total = sum(weights.values())
    return {t: weight / total for t, weight in weights.items()}


def chances_of(candidates: Sequence[Candidate], found: Sequence[Features]) -> list[float]:
    """Of each sentence to hold the answer, 1 in all; 0 for one that repeats a better one."""
    weights = _weights(found)
    scores = [sum(w * value for w, value in zip(weights, each, strict=True)) for each in found]
    first: dict[str, int] = {}
    for i in sorted(range(len(scores)), key=lambda i: -scores[i]):
        if first.setdefault(" ".join(candidates[i].text.casefold().split()), i) != i:
            scores[i] = -math.inf
    top = max(scores)
    raised = [math.exp(score - top) for score in scores]
    total = sum(raised)
    return [each / total for each in raised]
