"""Passages of one document joined where they touch, so that a block cut between them is whole.

The chunker cuts long code blocks, tables and lists, and code from the sentence that introduces it.
Where the search found the neighbouring chunks as well, their texts are joined again, and so are the
pieces of each block. The chunker trims white space, so a gap of a few characters holds nothing
else. One character between two lines is a line break, and a block cut there is whole again; what a
wider gap holds is not known, and no quote reaches over it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from raglan.block_joining import add_piece, moved
from raglan.blocks import Block, BlockKind

from raglan_generator.generation import Passage

_GAP: Final = 4
"""Characters between two chunks up to which they are neighbours."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """A continuous piece of one document: one passage, or several that touch or overlap."""

    text: str
    start: int
    """Offset of `text` in the document, in characters."""
    blocks: tuple[Block, ...]
    passages: tuple[int, ...]
    """Indexes in the request, in the order of the text."""
    offsets: tuple[int, ...]
    """Offset of each passage in `text`."""
    lengths: tuple[int, ...]
    """Of each of these passages, in characters."""
    seams: tuple[int, ...] = ()
    """Offsets in `text` of white space that the passages lack and that may differ from the
    document's."""

    def is_exact(self, start: int, end: int) -> bool:
        """Return whether `text[start:end]` is certainly the document's."""
        return not any(start < seam < end for seam in self.seams)

    def passage_at(self, offset: int) -> int:
        """Index in the request of the passage that holds the character at `offset`."""
        return self.passages[max(0, bisect_right(self.offsets, offset) - 1)]

    def passages_of(self, start: int, end: int) -> list[int]:
        """Indexes in the request of the passages that hold a part of `text[start:end]`."""
        if len(self.passages) == 1:
            return list(self.passages)
        each = zip(self.passages, self.offsets, self.lengths, strict=True)
        return [index for index, at, length in each if at < end and at + length > start]


def stretches_of(passages: Sequence[Passage]) -> list[Stretch]:
    """Every passage in exactly one stretch; stretches in the order of their best passage."""
    groups: dict[str | int, list[int]] = {}
    for index, passage in enumerate(passages):
        # A passage without a document has no neighbours.
        groups.setdefault(passage.document or index, []).append(index)
    made = [
        _joined(passages, run)
        for indexes in groups.values()
        for run in _touching(passages, sorted(indexes, key=lambda i: passages[i].start))
    ]
    return sorted(made, key=lambda stretch: min(stretch.passages))


def _touching(passages: Sequence[Passage], indexes: Sequence[int]) -> Iterable[list[int]]:
    """`indexes`, ordered by start, cut where two passages do not touch."""
    run: list[int] = []
    end = 0
    for index in indexes:
        if run and not _is_next(passages[run[-1]], end, passages[index]):
            yield run
            run = []
        end = max(end, passages[index].end) if run else passages[index].end
        run.append(index)
    if run:
        yield run


def _is_next(last: Passage, end: int, passage: Passage) -> bool:
    """Return whether `passage` continues where `last`, or one before it, ends."""
    gap = passage.start - end
    if gap <= 0:
        return True
    if gap > _GAP or not last.blocks or not passage.blocks:
        return False
    cut = [block for block in last.blocks if block.cut_end]
    # White space between two words of a sentence may be a blank or a line break.
    return not cut or cut[-1].kind in (BlockKind.CODE, BlockKind.TABLE)


def _joined(passages: Sequence[Passage], run: Sequence[int]) -> Stretch:
    first = passages[run[0]]
    text, blocks, seams = first.text, list(first.blocks), []
    for index in run[1:]:
        passage = passages[index]
        shift = passage.start - first.start
        gap = shift - len(text)
        if gap > 1:
            seams.append(len(text) + 1)
        text += "\n" * gap
        known = len(text)
        text += passage.text[max(0, len(text) - shift) :]
        for block in passage.blocks:
            piece = moved(block, shift)
            if gap <= 1 and (piece.cut_start or piece.start < known):
                add_piece(blocks, piece)
            else:
                blocks.append(piece)
    return Stretch(
        text=text,
        start=first.start,
        blocks=tuple(sorted(blocks, key=lambda block: (block.start, -block.end))),
        passages=tuple(run),
        offsets=tuple(passages[index].start - first.start for index in run),
        lengths=tuple(len(passages[index].text) for index in run),
        seams=tuple(seams),
    )
