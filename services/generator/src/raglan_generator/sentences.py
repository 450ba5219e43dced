"""A text as sentences with exact character offsets.

The boundaries come from sentencex (rules of some 300 languages, 16 us a passage of 700 characters).
What is no prose - tables, code, logs - has no full stops, so long spans are cut at whitespace.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import sentencex

MAX_CHARS = 400
"""No sentence is longer: a quote should fit in a glance."""

_SPACE = re.compile(r"\s")
_WORD = re.compile(r"\S+")


class Span(NamedTuple):
    """`text[start:end]`, without white space at its ends, never empty."""

    start: int
    end: int


def split(text: str, *, language: str = "en", max_chars: int = MAX_CHARS) -> list[Span]:
    """The sentences of `text`, in order, none longer than `max_chars`."""
    spans: list[Span] = []
    for boundary in sentencex.get_sentence_boundaries(language, text):
        span = trimmed(text, boundary["start_index"], boundary["end_index"])
        if span is not None:
            spans.extend(_bounded(text, span, max_chars))
    return spans


def trimmed(text: str, start: int, end: int) -> Span | None:
    """`text[start:end]` without white space at its ends, or None if nothing is left."""
    piece = text[start:end]
    start += len(piece) - len(piece.lstrip())
    end -= len(piece) - len(piece.rstrip())
    return Span(start, end) if start < end else None


def _bounded(text: str, span: Span, max_chars: int) -> Iterator[Span]:
    start, end = span
    while end - start > max_chars:
        cut = start + max_chars
        spaces = [match.start() for match in _SPACE.finditer(text, start + max_chars // 2, cut + 1)]
        if spaces:
            cut = spaces[-1]
        if piece := trimmed(text, start, cut):
            yield piece
        start = cut
    if piece := trimmed(text, start, end):
        yield piece


def first_words(text: str, span: Span, count: int) -> Span | None:
    """`span` cut after its first `count` words; None when `count` is 0."""
    if count <= 0:
        return None
    ends = [match.end() for match in _WORD.finditer(text, span.start, span.end)]
    return Span(span.start, ends[count - 1]) if count < len(ends) else span
