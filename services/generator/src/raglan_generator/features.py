"""Numeric features of a unit as the answer to a question."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple

from raglan.terms import terms

from raglan_generator.cues import cue_of
from raglan_generator.generation import ABSTENTION, Passage
from raglan_generator.joining import Stretch
from raglan_generator.sentences import Span
from raglan_generator.terms import grams, question_terms
from raglan_generator.units import Kind, Unit, units_of

MAX_TERMS: Final = 64
"""Terms of a question that take part, the rarest first: the cost of a question is bounded."""


USUAL_CHARS: Final = 200
"""Up to this length a unit counts as a sentence."""


class Features(NamedTuple):
    """Features of a unit; also the weights of the features."""

    words: float
    """Share of the question's terms that it holds, rare ones weighing more."""
    pieces: float
    """The same by their four-letter pieces: "invasion" half answers to "invaded"."""
    pairs: float
    """Share of the question's pairs of neighbouring terms that it holds: "steam engine"."""
    before: float
    """Share of the terms that it lacks and the sentence before it holds: "It has 12 floors."; of
    an item, row or code block the sentence that introduces it."""
    context: float
    """Share of the terms that only the headings above it or the title hold."""
    section: float
    """Similarity of the question and the heading right above the unit, for the first units below
    it: the question of a FAQ leads to its answer."""
    matched: float
    """Share of the question's words whose best match in the passage, by meaning, lies in it."""
    cue: float
    """1 if it holds the requested kind of thing: a name, a time, an amount."""
    rank: float
    """Minus the logarithm of its passage's rank."""
    similarity: float
    """Cosine of its passage and the question."""
    length: float
    """Logarithm of its length over that of a usual sentence, where it is longer."""
    whole: float
    """Of a whole list, which is a unit only where the question asks for several things: share of
    the terms in the sentence that introduces it and the heading right above it."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A unit that may answer."""

    unit: Unit
    stretch: Stretch
    passage: int
    """The best ranked passage that holds a part of it."""
    words: tuple[str, ...]
    """Its terms in the order of the text."""
    terms: frozenset[str]
    before: frozenset[str]
    context: frozenset[str]
    heading: frozenset[str]


def candidates_of(
    stretches: Sequence[Stretch],
    passages: Sequence[Passage],
    *,
    language: str = "en",
    whole_lists: bool = False,
    checkpoint: Callable[[], None] = lambda: None,
) -> list[Candidate]:
    """Every unit of the stretches, in order.

    Args:
        stretches: of `passages`.
        passages: those of the request.
        language: in which words are compared, ISO 639-1.
        whole_lists: whether a list is one unit, instead of one for each item.
        checkpoint: called for each unit; raises to stop the work.
    """
    found = []
    known: dict[str, frozenset[str]] = {}

    def held(text: str) -> frozenset[str]:
        if text not in known:
            known[text] = frozenset(terms(text, language))
        return known[text]

    for stretch in stretches:
        title = passages[stretch.passages[0]].title
        last = ""
        units = units_of(stretch, passages, whole_lists=whole_lists, checkpoint=checkpoint)
        for unit in units:
            if unit.text.strip(" *_") == ABSTENTION:
                continue  # quoted, it would read as a refusal
            inside = tuple(terms(unit.text, language))
            follows = unit.place > 0 and unit.kind is Kind.SENTENCE
            found.append(
                Candidate(
                    unit=unit,
                    stretch=stretch,
                    passage=min(stretch.passages_of(*unit.span)),
                    words=inside,
                    terms=frozenset(inside),
                    before=held(unit.lead_in or (last if follows else "")),
                    context=held(" ".join((title, *unit.headings))),
                    heading=held(unit.headings[-1] if unit.headings else ""),
                )
            )
            last = unit.text if unit.kind is Kind.SENTENCE else ""
    return found


def features(
    question: str,
    passages: Sequence[Passage],
    candidates: Sequence[Candidate],
    *,
    language: str = "en",
    checkpoint: Callable[[], None] = lambda: None,
) -> list[Features]:
    """Of each candidate."""
    asked = question_terms(question, language)
    weights = rarities(asked, candidates)
    asked_pairs = frozenset(pairwise(term for term in asked if term in weights))
    by_piece: dict[str, float] = defaultdict(float)
    for term, weight in weights.items():
        for piece in grams(term):
            by_piece[piece] += weight / len(grams(term))
    known = frozenset[str]().union(*(each.terms for each in candidates))
    alike = {term: shared for term in known if (shared := grams(term) & by_piece.keys())}
    cue = cue_of(question)
    matches = _Matches(passages)
    lowest = min((p.similarity for p in passages if p.similarity is not None), default=0.0)
    found = []
    for each in candidates:
        checkpoint()
        passage = passages[each.passage]
        held = weights.keys() & each.terms
        rest = weights.keys() - held
        before = rest & each.before
        pairs = asked_pairs.intersection(pairwise(each.words)) if held else ()
        found.append(
            Features(
                words=_sum(weights, held),
                pieces=_sum(by_piece, _pieces(alike, each.terms)),
                pairs=len(pairs) / (len(asked_pairs) or 1),
                before=_sum(weights, before),
                context=_sum(weights, (rest - before) & each.context),
                section=_agreement(weights, each.heading) / (1 + each.unit.place),
                matched=matches.share(each.stretch, each.unit.span),
                cue=float(cue is not None and cue(shown(each.unit))),
                rank=-math.log(each.passage + 1),
                similarity=lowest if passage.similarity is None else passage.similarity,
                length=math.log(max(1.0, len(each.unit.text) / USUAL_CHARS)),
                whole=_introduced(weights, each) if each.unit.kind is Kind.LIST else 0.0,
            )
        )
    return found


def shown(unit: Unit) -> str:
    """Return the text that an answer shows: the sentence that introduces the unit, and the unit."""
    return f"{unit.lead_in}\n{unit.text}" if unit.lead_in else unit.text


def rarities(asked: Iterable[str], candidates: Sequence[Candidate]) -> dict[str, float]:
    """Return the weight of each question term, 1 in all: BM25's inverse frequency among them."""
    counts = Counter(term for candidate in candidates for term in candidate.terms)
    n = len(candidates)
    weights = {t: math.log(1 + (n - counts[t] + 0.5) / (counts[t] + 0.5)) for t in asked}
    if len(weights) > MAX_TERMS:
        # A term that no candidate holds does not separate them.
        kept = sorted(weights, key=lambda t: (not counts[t], -weights[t]))[:MAX_TERMS]
        weights = {term: weights[term] for term in kept}
    total = sum(weights.values())
    return {term: weight / total for term, weight in weights.items()}


def _sum(weights: Mapping[str, float], keys: Iterable[str]) -> float:
    return sum(map(weights.__getitem__, keys))


def _pieces(alike: Mapping[str, frozenset[str]], held: frozenset[str]) -> Iterable[str]:
    """Return the question's pieces in the terms `held`: those of `alike`, by term."""
    return frozenset[str]().union(*map(alike.__getitem__, alike.keys() & held))


def _agreement(weights: Mapping[str, float], heading: frozenset[str]) -> float:
    """Share of the question in the heading times share of the heading in the question."""
    shared = weights.keys() & heading
    return _sum(weights, shared) * len(shared) / len(heading) if shared else 0.0


def _introduced(weights: Mapping[str, float], each: Candidate) -> float:
    return _sum(weights, weights.keys() & (each.before | each.heading))


class _Matches:
    """Positions of the question's words by passage, as the reranker found them."""

    def __init__(self, passages: Sequence[Passage]) -> None:
        self._places = [sorted(passage.matches) for passage in passages]
        self._most = max(map(len, self._places), default=0) or 1

    def share(self, stretch: Stretch, span: Span) -> float:
        """Of the passage with the most, how many lie in the span."""
        found = 0
        for index, offset in zip(stretch.passages, stretch.offsets, strict=True):
            places = self._places[index]
            start, end = span.start - offset, span.end - offset
            found = max(found, bisect_left(places, end) - bisect_left(places, start))
        return found / self._most
