"""From a model's text with `[passage]` markers to answer text, citations and their support.

A model numbers passages; a reader wants to see the sentence. So each marker is mapped to the
passage's sentence that best supports what stands before it, and markers are numbered anew, one
number a sentence quoted. Markers that name nothing are removed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from raglan import conflicts, grounding, language
from raglan.terms import terms

from raglan_generator.generation import ABSTENTION, Citation, Claim, Delta, Passage
from raglan_generator.markers import Marker, MarkerParser
from raglan_generator.sentences import Span, split
from raglan_generator.terms import grams, grams_of

_SHOWN: Final = re.compile(r" ?\[\d+\]")
_FENCED: Final = re.compile(r"^[ \t]*(```|~~~).*?(?:^[ \t]*\1|\Z)", re.MULTILINE | re.DOTALL)
_ITEM: Final = re.compile(r"[-*+\u2022]\s|\d{1,3}[.)]\s|\|")
_DEFAULT_LANGUAGE: Final = "en"


class Citer:
    """Turns one answer's stream into deltas and citations; knows its claims at the end."""

    def __init__(self, passages: Sequence[Passage]) -> None:
        self._passages = passages
        self._parser = MarkerParser(
            len(passages), in_source=lambda text: any(text in each.text for each in passages)
        )
        self._spans: dict[int, list[Span]] = {}
        self._sources: dict[int, conflicts.Source] = {}
        self._numbers: dict[tuple[int, Span], int] = {}
        self._text = ""
        self._claim_from = 0
        self._claim = ""
        self._cited: list[tuple[int, int, int]] = []
        """Position of each inserted marker, its number and the cited passage."""

    def feed(self, text: str) -> Iterator[Delta | Citation]:
        """The events that `text`, the next piece of the model's answer, makes certain."""
        yield from self._read(self._parser.feed(text))

    def flush(self) -> Iterator[Delta | Citation]:
        """Release the text that was held back, at the end of the stream."""
        yield from self._read(self._parser.flush())

    def _read(self, pieces: Iterable[str | Marker]) -> Iterator[Delta | Citation]:
        for piece in pieces:
            if isinstance(piece, Marker):
                yield from self._cite(piece)
            else:
                yield self._say(piece)

    @property
    def abstained(self) -> bool:
        """True if the model said that the documents hold no answer."""
        said = _without_markers(self._text).strip("\"'*_`.\u201c\u201d \n").casefold()
        abstention = ABSTENTION.rstrip(".").casefold()
        return said == abstention or (not self._cited and said.startswith(f"{abstention}."))

    @property
    def empty(self) -> bool:
        """True if there was no text at all."""
        return not self._text.strip()

    def claims(self) -> tuple[Claim, ...]:
        """The answer's sentences that state something, with what they cite; none if it abstained.

        Items of a list that cite nothing have the citations of its lead-in.
        """
        if self.abstained:
            return ()
        answer_language = self._answer_language()
        fenced = [match.span() for match in _FENCED.finditer(self._text)]
        sentences = [
            span
            for span in split(self._text, language=answer_language)
            if not any(start <= span.start < end for start, end in fenced)
        ]
        # A marker may stand after the full stop: it belongs to the sentence before it.
        starts = [*(span.start for span in sentences), len(self._text) + 1]
        claims, inherited = [], list[tuple[int, int]]()
        for span, end in zip(sentences, starts[1:], strict=True):
            cited = [(shown, index) for at, shown, index in self._cited if span.start < at <= end]
            text = _without_markers(self._text[span.start : span.end])
            if not _ITEM.match(text):
                inherited = []
            if grounding.makes_claim(text):
                claims.append(self._as_claim(span, text, cited or inherited, answer_language))
            elif grounding.is_lead_in(text):
                inherited = cited
        return tuple(claims)

    def _as_claim(
        self, span: Span, text: str, cited: Sequence[tuple[int, int]], answer_language: str
    ) -> Claim:
        indices = list(dict.fromkeys(index for _, index in cited))
        said = self._terms_said(text, indices, answer_language)
        held = {term for index in indices for term in self._terms_of(index)}
        return Claim(
            start=span.start,
            end=span.end,
            markers=tuple(dict.fromkeys(shown for shown, _ in cited)),
            support=len(said & held) / len(said) if said else 0.0,
            conflict=conflicts.find_conflict(
                text, [self._source(index) for index in indices], language=answer_language
            ),
        )

    def _source(self, index: int) -> conflicts.Source:
        if index not in self._sources:
            passage = self._passages[index]
            self._sources[index] = conflicts.Source(
                [passage.text[span.start : span.end] for span in self._sentences_of(index)],
                language=self._language_of(index),
                context=" \u00b7 ".join((passage.title, *passage.headings)),
            )
        return self._sources[index]

    def _answer_language(self) -> str:
        """Of the answer, else of what it cites."""
        cited = [self._passages[index].language for _, _, index in self._cited]
        found = language.detect(_without_markers(self._text))
        return found or next(filter(None, cited), _DEFAULT_LANGUAGE)

    def _terms_said(self, text: str, indices: Sequence[int], answer_language: str) -> set[str]:
        """Terms by the analysis of the passages: a stem of one language is none of another."""
        languages = {self._language_of(index) for index in indices} or {answer_language}
        return set(terms(text, languages.pop() if len(languages) == 1 else answer_language))

    def _language_of(self, index: int) -> str:
        return self._passages[index].language or _DEFAULT_LANGUAGE

    def _say(self, text: str) -> Delta:
        self._text += text
        return Delta(text)

    def _cite(self, marker: Marker) -> Iterator[Delta | Citation]:
        space = marker.space
        for number in dict.fromkeys(marker.numbers):
            index = number - 1
            spans = self._sentences_of(index)
            if not spans:
                continue
            claim = self._claim_terms(index)
            span = self._best(index, spans, claim)
            key = (index, span)
            known = key in self._numbers
            shown = self._numbers.setdefault(key, len(self._numbers) + 1)
            self._cited.append((len(self._text), shown, index))
            yield self._say(f"{space}[{shown}]")
            space = ""
            if not known:
                yield self._citation(shown, index, span)
        self._claim_from = len(self._text)

    def _citation(self, shown: int, index: int, span: Span) -> Citation:
        passage = self._passages[index]
        return Citation(
            marker=shown,
            passage_index=index,
            quote=passage.text[span.start : span.end],
            start=passage.start + span.start,
            end=passage.start + span.end,
        )

    def _claim_terms(self, index: int) -> list[str]:
        # Right after another marker there is no new text: the claim is still the same.
        since = self._text[self._claim_from :]
        for span in reversed(split(since)):
            if any(character.isalnum() for character in since[span.start : span.end]):
                self._claim = since[span.start : span.end]
                break
        return list(dict.fromkeys(terms(self._claim, self._language_of(index))))

    def _sentences_of(self, index: int) -> list[Span]:
        if not 0 <= index < len(self._passages):
            return []
        if index not in self._spans:
            passage = self._passages[index]
            self._spans[index] = split(passage.text, language=self._language_of(index))
        return self._spans[index]

    def _best(self, index: int, spans: Sequence[Span], claim: Sequence[str]) -> Span:
        text = self._passages[index].text

        def overlap(span: Span) -> float:
            held = frozenset(terms(text[span.start : span.end], self._language_of(index)))
            pieces = grams_of(held)
            return sum(
                (term in held) + len(grams(term) & pieces) / len(grams(term)) for term in claim
            )

        return max(spans, key=overlap)

    def _terms_of(self, index: int) -> set[str]:
        passage = self._passages[index]
        text = " ".join((passage.title, *passage.headings, passage.text))
        return set(terms(text, self._language_of(index)))


def groundedness(claims: Sequence[Claim]) -> float:
    """The share of `claims` that what they cite supports; 0 where nothing is claimed."""
    return (
        sum(grounding.is_supported(claim.support, conflict=claim.conflict) for claim in claims)
        / len(claims)
        if claims
        else 0.0
    )


def _without_markers(text: str) -> str:
    return _SHOWN.sub("", text)
