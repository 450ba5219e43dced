"""A text as sentences with exact character offsets.

The boundaries come from sentencex (rules of some 300 languages, 16 us a passage of 700 characters).
What is no prose has no full stops: a heading, a row of a table and an item of a list each stand
alone, and what is still long (code, logs) is cut at whitespace.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import sentencex

MAX_CHARS = 400
"""Longest sentence in characters: a quote should fit in a glance."""

_BLOCK_CHARS = 10_000

_LAYOUT = re.compile(
    r"(?P<alone>^[ \t]*(?:\||\#{1,6}[ ]).*$)"  # a row of a table, a heading
    r"|\n[ \t]*(?=\n)"  # the end of a paragraph
    r"|\n(?=[ \t]*(?:[-*+>]|\d+[.)])[ \t])",  # the beginning of an item
    re.MULTILINE,
)
_SPACE = re.compile(r"\s")
_WORD_CHARACTER = re.compile(r"[^\W_]")
_WORD = re.compile(r"\S+")


class Span(NamedTuple):
    """`text[start:end]`, without white space at its ends, never empty."""

    start: int
    end: int


def split(text: str, *, language: str = "en", max_chars: int = MAX_CHARS) -> list[Span]:
    """The sentences of `text`, in order, none longer than `max_chars`."""
    return list(spans(text, language=language, max_chars=max_chars))


def spans(text: str, *, language: str = "en", max_chars: int = MAX_CHARS) -> Iterator[Span]:
    """Like `split`, one by one: a huge text can be left in the middle."""
    for part in _parts(text):
        yield from sentences_of(text, part, language, max_chars=max_chars)


def sentences_of(
    text: str, part: Span, language: str = "en", *, max_chars: int = MAX_CHARS
) -> Iterator[Span]:
    """The sentences of one paragraph, `text[part.start:part.end]`, in offsets of `text`."""
    for block in _blocks(text, part):
        piece = text[block.start : block.end]
        for boundary in sentencex.get_sentence_boundaries(language, piece):
            start, end = boundary["start_index"], boundary["end_index"]
            span = trimmed(text, block.start + start, block.start + end)
            if span is not None and span.end - span.start > max_chars:
                yield from _bounded(text, span, max_chars)
            elif span is not None:
                yield span


def _parts(text: str) -> Iterator[Span]:
    """Paragraphs, headings, rows and items; what holds no letter or digit is left out."""
    begin = 0
    for match in _LAYOUT.finditer(text):
        yield from _worded(text, begin, match.start())
        if match["alone"]:
            yield from _worded(text, *match.span())
        begin = match.end()
    yield from _worded(text, begin, len(text))


def _worded(text: str, start: int, end: int) -> Iterator[Span]:
    if _WORD_CHARACTER.search(text, start, end):
        yield Span(start, end)


def _blocks(text: str, part: Span) -> Iterator[Span]:
    # sentencex holds the interpreter while it works: so, a block at a time.
    start = part.start
    while part.end - start > _BLOCK_CHARS:
        cut = text.rfind("\n", start + 1, start + _BLOCK_CHARS) + 1 or start + _BLOCK_CHARS
        yield Span(start, cut)
        start = cut
    yield Span(start, part.end)


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
