"""The headings that stand above a place in a text."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import takewhile, zip_longest
from typing import Final

from raglan_ingester.parsers.parsed import Heading

_MAX_DEPTH: Final = 8
"""Headings that a path holds at most, the outermost: deeper ones would fill the model's window."""
_MANY_SECTIONS: Final = 500
_SHORT_SECTION_CHARS: Final = 100
"""In documents of many sections, shorter ones share chunks: 80 KB are not 20,000 chunks."""


class Outline:
    """Answers which headings hold for a piece of the text.

    Args:
        text: the whole text.
        headings: by offset; one with an empty text ends the sections of its level.
    """

    def __init__(self, text: str, headings: Sequence[Heading]) -> None:
        self._headings = headings
        self.offsets = [heading.offset for heading in headings]
        self._paths: list[tuple[str, ...]] = [()]
        self._bare = [False]
        """bare[n]: before the n-th heading (from 0) there is nothing but the one above it."""
        stack: list[Heading] = []
        for heading, after in zip_longest(headings, headings[1:]):
            while stack and stack[-1].level >= heading.level:
                stack.pop()
            if heading.text:
                stack.append(heading)
            self._paths.append(tuple(above.text for above in stack[:_MAX_DEPTH]))
            self._bare.append(after is not None and _is_bare(text, heading, after))

    def path(self, start: int, end: int) -> tuple[str, ...]:
        """The headings that all of text[start:end] stands under, outermost first."""
        first = bisect_right(self.offsets, start)
        last = bisect_right(self.offsets, end - 1)
        while first < last and self._bare[first]:
            first += 1
        common = self._paths[first]
        for path in self._paths[first + 1 : last + 1]:
            pairs = takewhile(lambda pair: pair[0] == pair[1], zip(common, path, strict=False))
            common = tuple(name for name, _ in pairs)
        return common

    def longest_path(self, start: int) -> tuple[str, ...]:
        """The path of the longest piece that begins at `start` and stays in one section."""
        first = bisect_right(self.offsets, start)
        while self._bare[first]:
            first += 1
        return self._paths[first]

    def starts_at(self, offset: int) -> bool:
        """Return whether a section begins at `offset`."""
        at = bisect_left(self.offsets, offset)
        return at < len(self.offsets) and self.offsets[at] == offset

    def between(self, start: int, end: int) -> list[int]:
        """Return the offsets of sections in text[start:end]."""
        return self.offsets[bisect_left(self.offsets, start) : bisect_left(self.offsets, end)]

    def sections(self, length: int) -> Iterator[tuple[int, int]]:
        """The text cut at its top level: the outermost that has more than one heading."""
        levels = [heading.level for heading in self._headings if heading.text]
        several = [level for level in set(levels) if levels.count(level) > 1]
        top = min(several, default=0)
        least = _SHORT_SECTION_CHARS if levels.count(top) > _MANY_SECTIONS else 1
        start = 0
        for number, heading in enumerate(self._headings):
            is_long = heading.offset - start >= least and heading.offset < length
            # A bare heading goes with the section below it.
            if heading.level <= top and not self._bare[number] and is_long:
                yield start, heading.offset
                start = heading.offset
        if start < length:
            yield start, length


def _is_bare(text: str, heading: Heading, after: Heading) -> bool:
    """Return whether a section is only its heading, with a section inside it right below."""
    own = text[heading.offset : after.offset].strip()
    markup = len(heading.text) + 20
    return (
        after.level > heading.level
        and len(own) <= len(heading.text) + markup
        and (own.count("\n") <= 1)
    )
