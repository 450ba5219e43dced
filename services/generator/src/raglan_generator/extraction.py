"""Picking the units that answer a question, by words, neighbours and what other stages found.

A unit's chance to hold the answer is a softmax over all units of the passages (`features` has what
speaks for one), so the best few are also the likeliest to hold it together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import mul
from typing import Final

from raglan.language import detect
from raglan.terms import terms

from raglan_generator import markdown
from raglan_generator.cues import asks_for_list, holds_version, version_of
from raglan_generator.features import Candidate, Features, candidates_of, features, shown
from raglan_generator.generation import Passage
from raglan_generator.joining import Stretch, stretches_of
from raglan_generator.sentences import Span
from raglan_generator.specifics import Likeness, Specific, specifics_of
from raglan_generator.support import Evidence
from raglan_generator.terms import question_terms
from raglan_generator.units import Kind, Unit

WEIGHTS: Final = Features(
    words=2.8,
    pieces=4.4,
    pairs=1.1,
    before=3.4,
    context=1.8,
    section=0.4,
    matched=3.3,
    cue=2.1,
    rank=1.3,
    similarity=4.4,
    length=-0.8,
    whole=12.8,
)
"""Fitted to SQuAD questions 1,001-2,000 by `bench/extraction_weights.py`, which shows what each one
is worth; `whole` is chosen by the questions of docs_qa that a list answers."""

WEIGHTS_UNREAD: Final = Features(
    words=3.9,
    pieces=5.2,
    pairs=1.6,
    before=3.5,
    context=1.5,
    section=0.4,
    matched=0.0,
    cue=2.3,
    rank=1.4,
    similarity=4.3,
    length=-0.2,
    whole=11.2,
)
"""Weights where no reranker has matched words."""

WEIGHTS_BY_WORDS: Final = Features(
    words=3.8,
    pieces=5.1,
    pairs=1.6,
    before=3.4,
    context=1.5,
    section=0.4,
    matched=0.0,
    cue=2.3,
    rank=1.8,
    similarity=0.0,
    length=-0.3,
    whole=10.8,
)
"""Weights where no embedder has compared question and passages either."""

CUT_OFF: Final = 0.035
"""A unit with a smaller share of the best one's chance is not quoted."""

ROW_CUT_OFF: Final = 0.4
"""Nor is a row that holds a smaller share of what the best unit holds of the question."""

_NO_VERSION: Final = 1.0
"""Log-odds subtracted when a version is asked for and no unit names one."""

_TRUSTED: Final = 4
"""Units that the confidence is about."""


@dataclass(frozen=True, slots=True)
class Quote:
    """A unit of the passages and how likely it holds the answer."""

    unit: Unit
    text: str
    """The document's text: `document[start:end]`."""
    start: int
    end: int
    passage: int
    """Index of the passage in which it begins."""
    chance: float
    """In [0, 1], if one of the passages' units holds the answer at all."""


@dataclass(frozen=True, slots=True)
class Extraction:
    """The best units and the support they have."""

    quotes: tuple[Quote, ...]
    """Best first."""
    confidence: float
    """The probability that they hold the answer, in [0, 1]; see `support.Evidence`."""
    answerable: float = 0.0
    """Probability that the passages are about the question, in [0, 1]."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """Components of the confidence, each in [0, 1]."""

    def in_reading_order(self) -> tuple[Quote, ...]:
        """Passages by their best quote; within a passage as the document has them."""
        order = {index: i for i, index in enumerate(dict.fromkeys(q.passage for q in self.quotes))}
        return tuple(sorted(self.quotes, key=lambda quote: (order[quote.passage], quote.start)))


def extract(
    question: str,
    passages: Sequence[Passage],
    *,
    max_sentences: int = 4,
    checkpoint: Callable[[], None] = lambda: None,
) -> Extraction:
    """The best units of `passages` for `question`; none when no unit shares a word with it.

    Takes about 3 ms for 10 passages of 700 characters, and grows with their length.

    Args:
        question: as asked; beyond `MAX_TERMS` terms the rarest count.
        passages: best first.
        max_sentences: most units.
        checkpoint: called for each unit; raises to stop the work.
    """
    language = language_of(question, passages)
    candidates = candidates_of(
        stretches_of(passages),
        passages,
        language=language,
        whole_lists=asks_for_list(question),
        checkpoint=checkpoint,
    )
    found = features(question, passages, candidates, language=language, checkpoint=checkpoint)
    if not any(each.words or each.section for each in found):
        return Extraction((), 0.0)
    chances = chances_of(candidates, found)
    likely = _best(candidates, found, chances, max_sentences)
    best = _completed(likely, candidates, max_sentences)
    quotes = tuple(_quotes([candidates[i] for i in best], [chances[i] for i in best]))
    evidence = evidence_of(question, passages, candidates, found, chances, language)
    return Extraction(quotes, evidence.confidence(), evidence.answerable(), evidence.parts())


def language_of(question: str, passages: Sequence[Passage]) -> str:
    """In which words are compared: that of the best passage that has one, or the question's."""
    return next((each.language for each in passages if each.language), "") or detect(question)


def _best(
    candidates: Sequence[Candidate],
    found: Sequence[Features],
    chances: Sequence[float],
    most: int,
) -> list[int]:
    """The likeliest candidates, none inside another, none far less likely than the first."""
    order = sorted(range(len(candidates)), key=lambda i: -chances[i])
    picked: list[int] = []
    for i in order:
        if len(picked) == most or chances[i] <= CUT_OFF * chances[order[0]]:
            break
        # All rows of a table share what speaks for their passage.
        is_row = candidates[i].unit.kind is Kind.ROW
        if is_row and picked and _held(found[i]) < ROW_CUT_OFF * _held(found[picked[0]]):
            continue
        if not any(_overlap(candidates[i], candidates[j]) for j in picked):
            picked.append(i)
    return picked


def _held(found: Features) -> float:
    """Return the share of the question that a unit holds itself."""
    return found.words + found.pieces


def _completed(picked: list[int], candidates: Sequence[Candidate], most: int) -> list[int]:
    """Extend `picked`, if a list leads it, by the units that follow under its heading.

    The steps after the list belong to the same task.
    """
    best = candidates[picked[0]] if picked else None
    if best is None or best.unit.kind is not Kind.LIST:
        return picked
    found = list(picked)
    for i, each in enumerate(candidates):
        if len(found) >= most:
            break
        follows = (
            each.stretch is best.stretch
            and each.unit.section == best.unit.section
            and each.unit.place > best.unit.place
            and not _is_question(each)
        )
        if follows and not any(_overlap(each, candidates[j]) for j in found):
            found.append(i)
    return found


def _overlap(one: Candidate, other: Candidate) -> bool:
    if one.stretch is not other.stretch:
        return False
    return one.unit.span.start < other.unit.span.end and other.unit.span.start < one.unit.span.end


def _quotes(picked: Sequence[Candidate], chances: Sequence[float]) -> Iterator[Quote]:
    taken = {(id(each.stretch), each.unit.span.start) for each in picked}
    for candidate, chance in zip(picked, chances, strict=True):
        stretch, unit = candidate.stretch, candidate.unit
        start, end = unit.span
        if unit.context_start >= 0 and (id(stretch), unit.context_start) not in taken:
            start = unit.context_start
            unit = replace(unit, text=markdown.one_line(stretch.text[start:end]))
        yield quote_of(unit, stretch, Span(start, end), chance)


def quote_of(unit: Unit, stretch: Stretch, span: Span, chance: float) -> Quote:
    """The quote of `stretch.text[span.start:span.end]`, shown as `unit`."""
    return Quote(
        unit=unit,
        text=stretch.text[span.start : span.end],
        start=stretch.start + span.start,
        end=stretch.start + span.end,
        passage=stretch.passage_at(span.start),
        chance=chance,
    )


def evidence_of(
    question: str,
    passages: Sequence[Passage],
    candidates: Sequence[Candidate],
    found: Sequence[Features],
    chances: Sequence[float],
    language: str = "en",
) -> Evidence:
    """Collect the evidence for an answer of three units, however many were requested."""
    order = sorted(range(len(chances)), key=lambda i: -chances[i])[:_TRUSTED]
    picked = [candidates[i] for i in order if chances[i] >= 0.3 * chances[order[0]]]
    held = [set(terms(" ".join((p.title, *p.headings)), language)) for p in passages]
    for candidate in candidates:
        held[candidate.passage] |= candidate.terms | candidate.before | candidate.context
    asked = specifics_of(question, language)
    # A heading that says what the question says vouches for all that is right below it.
    vouched = found[order[0]].section * (1 + candidates[order[0]].unit.place)
    return Evidence(
        match=max(max((f.words + f.pieces) / 2, f.section) for f in (found[i] for i in order)),
        coverage=_coverage(question, language, asked, held),
        similarity=max((p.similarity for p in passages if p.similarity is not None), default=None),
        specifics=_specifics(question, passages, language, asked, picked, held),
        share=max(vouched, sum(chances[i] for i in order)),
    )


def _share_without(specific: Specific, held: Sequence[set[str]]) -> float:
    """Compute the squared share of passages without a word.

    A word that most have, such as the name of the product, need not be in each; a number or a
    name in code must.
    """
    if specific.likeness is not Likeness.WORD:
        return 1.0
    return (1 - sum(map(specific.is_in, held)) / len(held)) ** 2


def _specifics(
    question: str,
    passages: Sequence[Passage],
    language: str,
    asked: Sequence[Specific],
    picked: Sequence[Candidate],
    held: Sequence[set[str]],
) -> float:
    """Return the best coverage of the question's specific terms by a picked unit's passage."""
    # Terms that most passages have, such as the product's name, need not be in each.
    weights = [each.weight * _share_without(each, held) for each in asked]
    least = math.inf
    for index in {candidate.passage for candidate in picked}:
        passage = passages[index]
        text = " ".join((passage.title, *passage.headings, passage.text))
        inside = held[index].union(terms(text, language))
        lack = sum(
            w for each, w in zip(asked, weights, strict=True) if not each.is_alike_in(inside)
        )
        least = min(least, lack)
    if (name := version_of(question)) and not any(
        holds_version(shown(each.unit), name) for each in picked
    ):
        least += _NO_VERSION
    return math.exp(-least)


def weights_of(found: Sequence[Features]) -> Features:
    """The weights for what the stages before have found."""
    if any(each.matched for each in found):
        return WEIGHTS
    return WEIGHTS_UNREAD if any(each.similarity for each in found) else WEIGHTS_BY_WORDS


def _coverage(
    question: str, language: str, asked: Sequence[Specific], held: Sequence[set[str]]
) -> float:
    """Compute the largest share of the question that one passage holds.

    By its words or, where it names something particular, by that.
    """
    words = {term: float(len(term)) for term in question_terms(question, language)}
    by_words = max(sum(w for t, w in words.items() if t in each) for each in held)
    coverage = by_words / (sum(words.values()) or 1)
    told = sum(each.weight for each in asked)
    if told < 1:
        return coverage
    particular = max(sum(each.weight for each in asked if each.is_in(inside)) for inside in held)
    return max(coverage, particular / told)


def _is_question(candidate: Candidate) -> bool:
    unit = candidate.unit
    return unit.kind is Kind.SENTENCE and unit.text.endswith(("?", "\uff1f", "\u061f"))


def chances_of(candidates: Sequence[Candidate], found: Sequence[Features]) -> list[float]:
    """Of each unit to hold the answer, 1 in all; 0 for one that repeats a better one."""
    weights = weights_of(found)
    scores = [sum(map(mul, weights, each)) for each in found]
    if not all(map(_is_question, candidates)):
        # A question of the document is no answer to one; the sentence after it may be.
        scores = [
            -math.inf if _is_question(each) else score
            for each, score in zip(candidates, scores, strict=True)
        ]
    first: dict[str, int] = {}
    for i in sorted(range(len(scores)), key=lambda i: -scores[i]):
        if first.setdefault(" ".join(candidates[i].unit.text.casefold().split()), i) != i:
            scores[i] = -math.inf
    top = max(scores)
    raised = [math.exp(score - top) for score in scores]
    total = sum(raised)
    return [each / total for each in raised]
