"""Cuts a document into chunks: whole paragraphs and sentences where they fit, words where not.

A chunk is a span of the stored text, nothing added and nothing changed, so that a citation can
point at it. Sections of the top level are never mixed; within one, chunks come out about equally
long, because a short tail says little by itself and ranks badly.
"""

from __future__ import annotations

import math
import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile, zip_longest
from typing import Final

from raglan_ingester.parsers.parsed import Heading

_PARAGRAPH_END: Final = re.compile(r"\n[^\S\n]*\n\s*")
_SENTENCE_END: Final = re.compile(r"(?<=[.!?…;])[\"'”’)\]]*\s+|(?<=[。！？])|\n")  # noqa: RUF001
_WORD_END: Final = re.compile(r"\s+")
_JOINED_BACK: Final = 8
"""Characters to look back for a place between two letters, not inside one."""


@dataclass(frozen=True, slots=True)
class Span:
    """text[start:end], under these headings, outermost first."""

    start: int
    end: int
    heading_path: tuple[str, ...] = ()


def chunk(
    text: str, headings: Sequence[Heading] = (), *, max_chars: int, overlap_chars: int = 0
) -> list[Span]:
    """Cut `text` into spans of at most `max_chars` that together hold all that is not blank.

    Args:
        headings: by offset.
        overlap_chars: how far a chunk may reach back into the one before it, in the same section;
            at most half of `max_chars`.
    """
    overlap = min(overlap_chars, max_chars // 2)
    outline = _Outline(text, headings)
    spans: list[Span] = []
    for start, end in _sections(len(text), headings, outline):
        units = _units(text, start, end, outline, max_chars - overlap)
        previous: int | None = None
        for first, last in _pack(units, max_chars - overlap, outline):
            begin = first if previous is None else _reach_back(text, previous, first, overlap)
            spans.append(Span(begin, last, outline.path(begin, last)))
            previous = begin
    return spans


class _Outline:
    """The headings that stand above a place in the text."""

    def __init__(self, text: str, headings: Sequence[Heading]) -> None:
        self.offsets = [heading.offset for heading in headings]
        self._paths: list[tuple[str, ...]] = [()]
        self.bare = [False]
        """bare[n]: before the n-th heading (from 0) there is nothing but the one above it."""
        stack: list[Heading] = []
        for heading, after in zip_longest(headings, headings[1:]):
            while stack and stack[-1].level >= heading.level:
                stack.pop()
            stack.append(heading)
            self._paths.append(tuple(above.text for above in stack))
            self.bare.append(after is not None and _is_bare(text, heading, after))

    def path(self, start: int, end: int) -> tuple[str, ...]:
        """The headings that all of text[start:end] stands under."""
        first = bisect_right(self.offsets, start)
        last = bisect_right(self.offsets, end - 1)
        while first < last and self.bare[first]:
            first += 1
        common = self._paths[first]
        for path in self._paths[first + 1 : last + 1]:
            pairs = takewhile(lambda pair: pair[0] == pair[1], zip(common, path, strict=False))
            common = tuple(name for name, _ in pairs)
        return common

    def starts_at(self, start: int, end: int) -> bool:
        """Whether a section begins in text[start:end]."""
        return bisect_right(self.offsets, end - 1) > bisect_right(self.offsets, start - 1)


def _is_bare(text: str, heading: Heading, after: Heading) -> bool:
    """Whether a section is only its heading, with a section inside it right below."""
    own = text[heading.offset : after.offset].strip()
    markup = len(heading.text) + 20
    return (
        after.level > heading.level
        and len(own) <= len(heading.text) + markup
        and (own.count("\n") <= 1)
    )


def _sections(
    length: int, headings: Sequence[Heading], outline: _Outline
) -> Iterator[tuple[int, int]]:
    """The text cut at its top level: the outermost that has more than one heading."""
    levels = [heading.level for heading in headings]
    several = [level for level in set(levels) if levels.count(level) > 1]
    top = min(several, default=0)
    cuts = [
        heading.offset
        for number, heading in enumerate(headings)
        # A bare heading goes with the section below it.
        if heading.level <= top and not outline.bare[number]
    ]
    return _between(0, length, cuts)


def _units(text: str, start: int, end: int, outline: _Outline, limit: int) -> list[tuple[int, int]]:
    """The smallest spans worth keeping whole, none longer than `limit`, none blank."""
    heads = outline.offsets[bisect_left(outline.offsets, start) : bisect_left(outline.offsets, end)]
    ends = [match.end() for match in _PARAGRAPH_END.finditer(text, start, end)]
    units: list[tuple[int, int]] = []
    for paragraph in _between(start, end, sorted({*ends, *heads})):
        units += _split(text, *paragraph, limit, (_SENTENCE_END, _WORD_END))
    return _headings_with_bodies(units, set(heads), limit)


def _split(
    text: str, start: int, end: int, limit: int, patterns: Sequence[re.Pattern[str]]
) -> Iterator[tuple[int, int]]:
    """text[start:end] without the blanks around it, cut by the first pattern that suffices."""
    start, end = _trim(text, start, end)
    if start == end:
        return
    if end - start <= limit:
        yield start, end
    elif patterns:
        cuts = (match.end() for match in patterns[0].finditer(text, start, end))
        for piece in _between(start, end, cuts):
            yield from _split(text, *piece, limit, patterns[1:])
    else:
        while end - start > limit:
            cut = _between_letters(text, start, start + limit)
            yield start, cut
            start = cut
        yield start, end


def _headings_with_bodies(
    units: list[tuple[int, int]], heads: set[int], limit: int
) -> list[tuple[int, int]]:
    """A heading joined to what follows it: alone at the end of a chunk it says nothing."""
    joined: list[tuple[int, int]] = []
    alone = False
    for start, end in units:
        if alone and start not in heads and end - joined[-1][0] <= limit:
            joined[-1] = (joined[-1][0], end)
            alone = False
        else:
            joined.append((start, end))
            alone = start in heads
    return joined


def _pack(
    units: Sequence[tuple[int, int]], limit: int, outline: _Outline
) -> Iterator[tuple[int, int]]:
    """Neighbouring units put together, up to `limit` characters, in about equal parts."""
    at = 0
    while at < len(units):
        start, end = units[at]
        remaining = units[-1][1] - start
        target = remaining / math.ceil(remaining / limit)
        at += 1
        while at < len(units):
            next_start, next_end = units[at]
            length = next_end - start
            overshoots = length > target and length - target > target - (end - start)
            at_heading = outline.starts_at(next_start, next_start + 1)
            if length > limit or overshoots or (at_heading and end - start >= limit / 2):
                break
            end = next_end
            at += 1
        yield start, end


def _reach_back(text: str, previous: int, start: int, overlap: int) -> int:
    """Where a chunk begins that repeats up to `overlap` characters of the one before it."""
    earliest = max(previous + 1, start - overlap)
    if earliest >= start:
        return start
    for pattern in (_SENTENCE_END, _WORD_END):
        match = pattern.search(text, earliest, start)
        if match and match.end() < start:
            return match.end()
    return start


def _between(start: int, end: int, cuts: Iterable[int]) -> Iterator[tuple[int, int]]:
    for cut in cuts:
        if start < cut < end:
            yield start, cut
            start = cut
    if start < end:
        yield start, end


def _trim(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    return start, end


def _between_letters(text: str, start: int, cut: int) -> int:
    """`cut`, or a little before it, so that no letter loses its accent or its joiner."""
    for place in range(cut, max(start, cut - _JOINED_BACK), -1):
        if not unicodedata.category(text[place]).startswith("M") and "\u200d" not in (
            text[place],
            text[place - 1],
        ):
            return place
    return cut
