"""Places in Markdown source: from line numbers to offsets, without the marks before a content."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import accumulate, pairwise
from typing import Final

from raglan.blocks import Cell

LIST_MARK: Final = re.compile(r"(?:[-*+]|(\d{1,9})[.)])(?=[ \t\n]|$)")
_PREFIX: Final = re.compile(r"[ \t>]*")
_PIPE: Final = re.compile(r"(?<!\\)\|")


class SourceLines:
    r"""A text whose lines end in `\n`, as markdown-it counts them."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._starts = [0, *accumulate(len(line) + 1 for line in text.split("\n"))]

    @property
    def count(self) -> int:
        """Return the number of lines."""
        return len(self._starts) - 1

    def source(self, first: int, end: int) -> str:
        """The lines [first, end) as they are."""
        return self.text[self._starts[first] : self._starts[end]]

    def span(self, first: int, end: int) -> tuple[int, int]:
        """Offsets of the lines [first, end), without blanks at both ends."""
        cell = _stripped(self.text, self._starts[first], min(self._starts[end], len(self.text)))
        return cell.start, cell.end

    def content(self, first: int, end: int, is_item: Callable[[int], bool]) -> tuple[int, int]:
        """Offsets of the lines [first, end) behind quotation marks and list marks.

        Args:
            first: first line.
            end: one past the last line.
            is_item: whether a list item begins at an offset; another mark is text ("-5 degrees").
        """
        start, stop = self.span(first, end)
        start = self.skip_prefix(start)
        while is_item(start) and (mark := LIST_MARK.match(self.text, start)):
            start = self.skip_prefix(mark.end())
        return start, max(start, stop)

    def skip_prefix(self, start: int) -> int:
        """The first character from `start` on that is neither blank nor a quotation mark."""
        match = _PREFIX.match(self.text, start)
        return match.end() if match else start

    def cells(self, line: int, is_item: Callable[[int], bool]) -> tuple[Cell, ...]:
        """The cells of a table row, by GitHub's rule: split at every pipe that is not escaped."""
        start, end = self.content(line, line + 1, is_item)
        if self.text[start : start + 1] == "|":
            start += 1
        pipes = [match.start() for match in _PIPE.finditer(self.text, start, end)]
        if pipes and pipes[-1] == end - 1:
            end = pipes.pop()
        return tuple(
            _stripped(self.text, left + 1, right)
            for left, right in pairwise([start - 1, *pipes, end])
        )


def _stripped(text: str, start: int, end: int) -> Cell:
    piece = text[start:end]
    left = start + len(piece) - len(piece.lstrip())
    return Cell(left, max(left, end - (len(piece) - len(piece.rstrip()))))
