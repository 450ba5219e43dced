"""From a model's text with `[passage]` markers to answer text, citations and their support.

A model numbers passages; a reader wants to see the sentence. So each marker is mapped to the
passage's sentence that best supports what stands before it, and markers are numbered anew, one
number a sentence quoted. Markers that name nothing are removed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from raglan.grounding import SUPPORTED_SHARE

from raglan_generator.generation import ABSTENTION, Citation, Claim, Delta, Passage
from raglan_generator.markers import Marker, MarkerParser
from raglan_generator.sentences import Span, split
from raglan_generator.terms import grams, grams_of, terms

_SHOWN: Final = re.compile(r"\[\d+\]")


class Citer:
    """Turns one answer's stream into deltas and citations; knows its claims at the end."""

    def __init__(self, passages: Sequence[Passage]) -> None:
        self._passages = passages
        self._parser = MarkerParser(
            len(passages), in_source=lambda text: any(text in each.text for each in passages)
        )
        self._spans: dict[int, list[Span]] = {}
        self._numbers: dict[tuple[int, Span], int] = {}
        self._text = ""
        self._claim_from = 0
        self._claim = ""
        self._cited: list[tuple[int, int, int]] = []
        """Where the text had a marker put in, which, and the passage it cites."""

    def feed(self, text: str) -> Iterator[Delta | Citation]:
        """The events that `text`, the next piece of the model's answer, makes certain."""
        yield from self._read(self._parser.feed(text))

    def flush(self) -> Iterator[Delta | Citation]:
        """What was held back, at the end of the stream."""
        yield from self._read(self._parser.flush())

    def _read(self, pieces: Iterable[str | Marker]) -> Iterator[Delta | Citation]:
        for piece in pieces:
            if isinstance(piece, Marker):
                yield from self._cite(piece)
            else:
                yield self._say(piece)

    @property
    def abstained(self) -> bool:
        """Whether the model said that the documents hold no answer."""
        said = _without_markers(self._text).strip().rstrip(".").casefold()
        return said == ABSTENTION.rstrip(".").casefold()

    @property
    def empty(self) -> bool:
        """Whether there was no text at all."""
        return not self._text.strip()

    def claims(self) -> tuple[Claim, ...]:
        """The answer's sentences with what they cite; none when it abstained."""
        if self.abstained:
            return ()
        sentences = [
            span
            for span in split(self._text)
            if terms(_without_markers(self._text[span.start : span.end]))
        ]
        # A marker may stand after the full stop: it belongs to the sentence before it.
        starts = [*(span.start for span in sentences), len(self._text) + 1]
        return tuple(self._as_claim(*each) for each in zip(sentences, starts[1:], strict=True))

    def _as_claim(self, span: Span, end: int) -> Claim:
        cited = [(shown, index) for at, shown, index in self._cited if span.start < at <= end]
        said = set(terms(_without_markers(self._text[span.start : span.end])))
        held = {term for _, index in cited for term in self._terms_of(index)}
        return Claim(
            start=span.start,
            end=span.end,
            markers=tuple(dict.fromkeys(shown for shown, _ in cited)),
            support=len(said & held) / len(said),
        )

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
            claim = self._claim_terms()
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

    def _claim_terms(self) -> list[str]:
        # Right after another marker there is no new text: the claim is still the same.
        since = self._text[self._claim_from :]
        for span in reversed(split(since)):
            found = terms(since[span.start : span.end])
            if found:
                self._claim = since[span.start : span.end]
                break
        return list(dict.fromkeys(terms(self._claim)))

    def _sentences_of(self, index: int) -> list[Span]:
        if not 0 <= index < len(self._passages):
            return []
        if index not in self._spans:
            self._spans[index] = split(self._passages[index].text)
        return self._spans[index]

    def _best(self, index: int, spans: Sequence[Span], claim: Sequence[str]) -> Span:
        text = self._passages[index].text

        def overlap(span: Span) -> float:
            held = frozenset(terms(text[span.start : span.end]))
            pieces = grams_of(held)
            return sum(
                (term in held) + len(grams(term) & pieces) / len(grams(term)) for term in claim
            )

        return max(spans, key=overlap)

    def _terms_of(self, index: int) -> set[str]:
        passage = self._passages[index]
        return set(terms(" ".join((passage.title, *passage.headings, passage.text))))


def groundedness(claims: Sequence[Claim]) -> float:
    """The share of `claims` that what they cite supports; 0 where nothing is claimed."""
    return (
        sum(claim.support >= SUPPORTED_SHARE for claim in claims) / len(claims) if claims else 0.0
    )


def _without_markers(text: str) -> str:
    return _SHOWN.sub("", text)
