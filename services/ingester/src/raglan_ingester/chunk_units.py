"""The pieces of a text that a chunk keeps whole: blocks, rows, items, sentences, where they fit.

Everything here works on spans of the text, (start, end) in characters, without blanks at the ends.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import sentencex
from raglan.blocks import Block, BlockKind

Span = tuple[int, int]
Fits = Callable[[int, int], bool]

_PARAGRAPH_END: Final = re.compile(r"\n[^\S\n]*\n\s*")
_LINE_END: Final = re.compile(r"\n")
_WORD_END: Final = re.compile(r"\s+")
_JOINED_BACK: Final = 8
"""Characters to look back for a place between two letters, not inside one."""
_SENTENCE_CHARS: Final = 10_000
"""sentencex holds the interpreter while it works: longer paragraphs are split piece by piece."""


@dataclass(frozen=True, slots=True)
class Splitter:
    """Splits text into units that fit."""

    text: str
    fits: Fits
    """Predicate: text[start:end] may be one chunk."""
    language: str = "en"
    """For the ends of sentences; ISO 639-1."""
    by_sentence: bool = False
    """True if a sentence of prose is a unit, also where its paragraph fits."""
    by_row: bool = False
    """True if a row is a unit, also where its table fits."""

    def units(self, blocks: Sequence[Block], start: int, end: int) -> list[Span]:
        """The units of text[start:end] in order, along the blocks that begin in it.

        Text between blocks (comments, link definitions) belongs to no unit. A text without blocks
        is split at blank lines.
        """
        if not blocks:
            paragraphs = _between(start, end, _ends(_PARAGRAPH_END, self.text, start, end))
            return [unit for span in paragraphs for unit in self._prose(*span)]
        units: list[Span] = []
        for group in _groups(blocks):
            units += self._group(group)
        return units

    def _group(self, group: Sequence[Block]) -> Iterator[Span]:
        """One top-level block, or a list with its lead-in, with all blocks inside."""
        span = self._trimmed(group[0].start, max(block.end for block in group))
        if span is None:
            return
        if self._stays_whole(group) and self.fits(*span):
            yield span
            return
        tops = list(_tops(group))
        if len(tops) > 1:
            for first, after in zip(tops, [*tops[1:], len(group)], strict=True):
                yield from self._group(group[first:after])
        else:
            yield from self._parts(group[0], group[1:])

    def _stays_whole(self, group: Sequence[Block]) -> bool:
        kind = group[0].kind
        if self.by_row and kind is BlockKind.TABLE:
            return False
        return not self.by_sentence or kind in _NO_PROSE

    def _parts(self, block: Block, inside: Sequence[Block]) -> Iterator[Span]:
        """A block that does not fit, in parts."""
        match block.kind:
            case BlockKind.TABLE:
                yield from self._rows(block)
            case BlockKind.CODE:
                yield from self._split(block.start, block.end, _CODE_ENDS)
            case BlockKind.LIST_ITEM | BlockKind.QUOTATION if inside:
                for at, (start, end) in enumerate(self.units(inside, block.start, block.end)):
                    # The first part begins with the mark of the item.
                    marked = at == 0 and self.fits(block.start, end)
                    yield (block.start, end) if marked else (start, end)
            case _:
                yield from self._prose(block.start, block.end)

    def _rows(self, table: Block) -> Iterator[Span]:
        """The rows of a table; its header goes with the first of them."""
        begins = [self._line_start(row[0].start, table.start) for row in table.rows if row]
        if table.has_header and len(begins) > 1:
            begins = [table.start, *begins[2:]]
        for start, end in _between(table.start, table.end, begins):
            yield from self._split(start, end, (_LINE_END, _WORD_END))

    def _line_start(self, offset: int, earliest: int) -> int:
        return max(earliest, self.text.rfind("\n", earliest, offset) + 1)

    def _prose(self, start: int, end: int) -> Iterator[Span]:
        """A paragraph: whole, in sentences, in words, in letters, whichever fits first."""
        span = self._trimmed(start, end)
        if span is None:
            return
        if not self.by_sentence and self.fits(*span):
            yield span
            return
        for sentence in _between(*span, self._sentence_ends(*span)):
            yield from self._split(*sentence, (_WORD_END,))

    def _sentence_ends(self, start: int, end: int) -> Iterator[int]:
        for first, last in _between(start, end, _ends(_LINE_END, self.text, start, end)):
            at = first
            while at < last:
                piece = self.text[at : min(last, at + _SENTENCE_CHARS)]
                for boundary in sentencex.get_sentence_boundaries(self.language, piece):
                    yield at + boundary["end_index"]
                at += len(piece)
            yield last

    def _split(self, start: int, end: int, patterns: Sequence[re.Pattern[str]]) -> Iterator[Span]:
        """text[start:end] cut by the first pattern that suffices, else between letters."""
        span = self._trimmed(start, end)
        if span is None:
            return
        if self.fits(*span):
            yield span
        elif patterns:
            for piece in _between(*span, _ends(patterns[0], self.text, *span)):
                yield from self._split(*piece, patterns[1:])
        else:
            yield from self._letters(*span)

    def _letters(self, start: int, end: int) -> Iterator[Span]:
        while start < end:
            low, high = start + 1, end
            while low < high:  # the longest piece that fits
                middle = (low + high + 1) // 2
                # A piece of a word has more tokens than its share of the word.
                longer = min(end, middle + (middle - start) // 8)
                low, high = (middle, high) if self.fits(start, longer) else (low, middle - 1)
            cut = low if low == end else _between_letters(self.text, start, low)
            yield start, cut
            start = cut

    def _trimmed(self, start: int, end: int) -> Span | None:
        piece = self.text[start:end]
        left = start + len(piece) - len(piece.lstrip())
        right = end - (len(piece) - len(piece.rstrip()))
        return (left, right) if left < right else None


_NO_PROSE: Final = (BlockKind.HEADING, BlockKind.TABLE, BlockKind.CODE)
_CODE_ENDS: Final = (_PARAGRAPH_END, _LINE_END, _WORD_END)


def _groups(blocks: Sequence[Block]) -> Iterator[Sequence[Block]]:
    """Top-level blocks with what is inside them; the items of a list, and its lead-in, together."""
    tops = list(_tops(blocks))
    begun = 0
    for at, (first, after) in enumerate(zip(tops, [*tops[1:], len(blocks)], strict=True)):
        following = blocks[after] if at + 1 < len(tops) else None
        in_list = blocks[first].kind is BlockKind.LIST_ITEM
        leads = (
            blocks[first].kind is BlockKind.PARAGRAPH
            and following is not None
            and following.lead_in
        )
        if following is not None and following.kind is BlockKind.LIST_ITEM and (in_list or leads):
            continue
        yield blocks[begun:after]
        begun = after


def _tops(blocks: Sequence[Block]) -> Iterator[int]:
    """Indexes of the blocks that lie in no other."""
    covered = -1
    for at, block in enumerate(blocks):
        if block.kind is BlockKind.PAGE_BREAK:
            continue
        if block.start >= covered:
            yield at
            covered = block.end


def _ends(pattern: re.Pattern[str], text: str, start: int, end: int) -> Iterator[int]:
    return (match.end() for match in pattern.finditer(text, start, end))


def _between(start: int, end: int, cuts: Iterable[int]) -> Iterator[Span]:
    for cut in cuts:
        if start < cut < end:
            yield start, cut
            start = cut
    if start < end:
        yield start, end


def _between_letters(text: str, start: int, cut: int) -> int:
    """`cut`, or a little before it, so that no letter loses its accent or its joiner."""
    for place in range(cut, max(start, cut - _JOINED_BACK), -1):
        if not unicodedata.category(text[place]).startswith("M") and "\u200d" not in (
            text[place],
            text[place - 1],
        ):
            return place
    return cut
