"""Cuts a document into chunks along its blocks, none longer than the embedding model reads.

A chunk is a span of the stored text, nothing added and nothing changed, so that a citation can
point at it. Sections of the top level are never mixed; within one, chunks come out about equally
long, because a short tail says little by itself and ranks badly. A chunk that begins inside a
table or list has the table's column names, or the list's lead-in, as the last of its headings.
"""

from __future__ import annotations

import itertools
import math
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from raglan.blocks import Block, BlockKind, clip, column_names
from raglan.chunk_text import in_context
from raglan.chunking_strategy import STRUCTURE, ChunkingStrategy

from raglan_ingester.chunk_units import Span, Splitter
from raglan_ingester.outline import Outline
from raglan_ingester.parsers.parsed import ParsedDocument, Unparsable
from raglan_ingester.token_index import TokenIndex

if TYPE_CHECKING:
    from raglan_ingester.logs.entries import Log

_SENTENCE_END: Final = re.compile(r"(?<=[.!?…;])[\"'”’)\]]*\s+|(?<=[。！？])|\n")  # noqa: RUF001
_WORD_END: Final = re.compile(r"\s+")
_CONTEXT_CHARS: Final = 200
"""Longest heading made from a table's columns or a list's lead-in."""
_LEAST_SHARE: Final = 0.5
"""Of the model's tokens that the text keeps, however long title and headings are."""


_BY_SENTENCE: Final = frozenset({ChunkingStrategy.SENTENCES, ChunkingStrategy.SEMANTIC})
_CHILDREN: Final = 4
"""Chunks that a full section of `ChunkingStrategy.PARENT` is cut into."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Size limits of a chunk."""

    max_chars: int
    overlap_chars: int = 0
    """Characters of overlap with the chunk before it, in the same section; at most half of
    `max_chars`."""
    max_tokens: int = 0
    """Of the embedding model, for title, headings and text together; 0 where it is unknown."""
    max_chunks: int = 0
    """Of one document; 0 is no limit."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """`text[start:end]`, under these headings, outermost first."""

    start: int
    end: int
    heading_path: tuple[str, ...] = ()
    page: int = 0
    """The page on which it begins, from 1; 0 where the format has no pages."""
    blocks: list[Block] = field(default_factory=list)
    """Its structure, with offsets into the chunk."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """Besides that of the document; JSON values."""
    section: int | None = None
    """Number of its section within the document; None where it has none."""


def chunk(
    document: ParsedDocument,
    sizes: Sizes,
    tokens: TokenIndex | None = None,
    language: str = "",
    strategy: str = STRUCTURE,
) -> list[Chunk]:
    """Cut a document into chunks that together hold all of its blocks.

    Args:
        document: the text with its structure.
        sizes: the limits.
        tokens: of the document's text; None measures in characters alone.
        language: of the text, ISO 639-1; decides where sentences end.
        strategy: one of `raglan.chunking_strategy`.

    Returns:
        Chunks in order, each within the limits. What a title and headings of more than half of
        `max_tokens` take beyond that is not taken off: the embedder reports what it cut.

    Raises:
        Unparsable: there would be more than `sizes.max_chunks`.
    """
    pieces = _Chunking(document, sizes, tokens, language or "en", strategy).run()
    if not sizes.max_chunks:
        return list(pieces)
    chunks = list(islice(pieces, sizes.max_chunks + 1))
    if len(chunks) > sizes.max_chunks:
        raise Unparsable(
            f"The document makes more than {sizes.max_chunks:,} chunks, the limit "
            "(RAGLAN_INGESTER_MAX_CHUNKS_PER_DOCUMENT); split it into several documents."
        )
    return chunks


def find_units(
    document: ParsedDocument,
    sizes: Sizes,
    tokens: TokenIndex | None = None,
    language: str = "",
    strategy: str = STRUCTURE,
) -> list[Chunk]:
    """Return the first `sizes.max_chunks` of the units that `chunk` puts together."""
    units = _Chunking(document, sizes, tokens, language or "en", strategy).units()
    return list(islice(units, sizes.max_chunks or None))


class _Chunking:
    """One document being cut."""

    def __init__(
        self,
        document: ParsedDocument,
        sizes: Sizes,
        tokens: TokenIndex | None,
        language: str,
        strategy: str,
    ) -> None:
        self._document = document
        self._text = document.text
        self._section_chars = sizes.max_chars if strategy == ChunkingStrategy.PARENT else 0
        """Size of a section; 0 where chunks have none."""
        if self._section_chars:
            sizes = replace(sizes, max_chars=sizes.max_chars // _CHILDREN)
        self._sizes = sizes
        self._tokens = tokens if sizes.max_tokens else None
        self._overlap = min(sizes.overlap_chars, sizes.max_chars // 2)
        self._outline = Outline(document.text, document.headings)
        self._blocks = _Blocks(document.text, document.blocks)
        self._splitter = Splitter(
            document.text,
            self._fits,
            language,
            by_sentence=strategy in _BY_SENTENCE,
            by_row=strategy == ChunkingStrategy.TABLE,
        )
        self._budgets: dict[int, int] = {}
        """Tokens that title and headings leave for a chunk, by where it begins."""

    def run(self) -> Iterator[Chunk]:
        if self._document.log is not None:
            return self._of_entries(self._document.log)
        return self._of_blocks()

    def _of_entries(self, log: Log) -> Iterator[Chunk]:
        from raglan_ingester.logs.chunks import group  # 0.3 s that only logs pay

        for entries, metadata in group(log, self._load):
            start, end = entries[0].start, entries[-1].end
            blocks = [Block(BlockKind.CODE, each.start, each.end) for each in entries]
            yield Chunk(start, end, blocks=clip(self._text, blocks, start, end), metadata=metadata)

    def units(self) -> Iterator[Chunk]:
        for units in self._sections():
            yield from (Chunk(start, end) for start, end in units)

    def _of_blocks(self) -> Iterator[Chunk]:
        number = itertools.count()
        for units in self._sections():
            for run in self._runs(units):
                if not self._section_chars:
                    yield from self._of_units(run)
                    continue
                for start, end in self._pack(run, self._section_load):
                    children = [unit for unit in run if start <= unit[0] < end]
                    section = next(number)
                    for child in self._of_units(children):
                        yield replace(child, section=section)

    def _sections(self) -> Iterator[list[Span]]:
        """The units of each section. A heading inside a block, as in a quotation, begins none."""
        covered = 0
        for first, end in self._outline.sections(len(self._text)):
            start = max(first, covered)
            blocks = self._blocks.beginning_in(start, end)
            if self._document.blocks and not blocks:
                continue
            covered = max((block.end for block in blocks), default=covered)
            units = self._splitter.units(blocks, start, end)
            yield self._with_headings(self._cut_at_headings(units))

    def _runs(self, units: Sequence[Span]) -> Iterator[Sequence[Span]]:
        """The units between places where a chunk must begin."""
        cuts = set(self._document.cuts)
        begins = [at for at, (start, _) in enumerate(units) if start in cuts and at > 0]
        for first, after in itertools.pairwise([0, *begins, len(units)]):
            yield units[first:after]

    def _of_units(self, units: Sequence[Span]) -> Iterator[Chunk]:
        previous: int | None = None
        for first, last in self._pack(units, self._load):
            begin = first if previous is None else self._reach_back(previous, first, last)
            yield self._chunk(begin, last)
            previous = begin

    def _chunk(self, start: int, end: int) -> Chunk:
        return Chunk(
            start,
            end,
            self._path(start, end),
            self._blocks.page(start),
            clip(self._text, self._blocks.overlapping(start, end), start, end),
        )

    def _path(self, start: int, end: int) -> tuple[str, ...]:
        path = self._outline.path(start, end)
        continued = self._blocks.continued(start)
        return (*path, continued) if continued else path

    def _load(self, start: int, end: int) -> float:
        """Return the share of a chunk that text[start:end] takes; 1 is a full one."""
        allowed = self._sizes.max_chars - self._overlap
        load = (end - start) / allowed
        if self._tokens is None:
            return load
        room = self._budget(start) * allowed / self._sizes.max_chars
        return max(load, self._tokens.count(start, end) / room)

    def _section_load(self, start: int, end: int) -> float:
        """Return the share of a section that text[start:end] takes."""
        return (end - start) / self._section_chars

    def _fits(self, start: int, end: int) -> bool:
        return self._load(start, end) <= 1

    def _budget(self, start: int) -> int:
        """Tokens that title and headings leave for a chunk that begins at `start`."""
        if start not in self._budgets:
            assert self._tokens is not None
            continued = self._blocks.continued(start)
            path = (*self._outline.longest_path(start), *([continued] if continued else []))
            above = self._tokens.count_text(in_context(self._document.title, path, ""))
            least = int(self._sizes.max_tokens * _LEAST_SHARE)
            self._budgets[start] = max(least, self._sizes.max_tokens - above)
        return self._budgets[start]

    def _cut_at_headings(self, units: Sequence[Span]) -> Iterator[Span]:
        """Units of a text without blocks, cut where its outline has a heading."""
        for start, end in units:
            begun = start
            for offset in self._outline.between(start + 1, end):
                if not self._document.blocks and (piece := self._text[begun:offset].rstrip()):
                    yield begun, begun + len(piece)
                    begun = offset
            yield begun, end

    def _with_headings(self, units: Iterator[Span]) -> list[Span]:
        """A heading joined to what follows it: alone at the end of a chunk it says nothing."""
        joined: list[Span] = []
        alone = False
        for start, end in units:
            is_heading = self._outline.starts_at(start)
            if alone and not is_heading and self._fits(joined[-1][0], end):
                joined[-1] = (joined[-1][0], end)
                alone = False
            else:
                joined.append((start, end))
                alone = is_heading
        return joined

    def _pack(self, units: Sequence[Span], load_of: Callable[[int, int], float]) -> Iterator[Span]:
        """Neighbouring units put together, up to a full chunk, in about equal parts."""
        at = 0
        while at < len(units):
            start, end = units[at]
            remaining = load_of(start, units[-1][1])
            target = remaining / math.ceil(remaining)
            at += 1
            while at < len(units):
                next_start, next_end = units[at]
                held, load = load_of(start, end), load_of(start, next_end)
                overshoots = load > target and load - target > target - held
                at_heading = self._outline.starts_at(next_start)
                if load > 1 or overshoots or (at_heading and held >= 0.5):
                    break
                end = next_end
                at += 1
            yield start, end

    def _reach_back(self, previous: int, start: int, end: int) -> int:
        """Return the start of a chunk that repeats up to the overlap of the previous one."""
        earliest = max(previous + 1, start - self._overlap)
        if earliest >= start:
            return start
        for pattern in (_SENTENCE_END, _WORD_END):
            match = pattern.search(self._text, earliest, start)
            if match and match.end() < start and self._is_whole(match.end(), end):
                return match.end()
        return start

    def _is_whole(self, start: int, end: int) -> bool:
        """Return whether the model reads all of text[start:end] below its title and headings."""
        if self._tokens is None:
            return True
        return self._tokens.count(start, end) <= self._budget(start)


class _Blocks:
    """The blocks of a text, looked up by place."""

    def __init__(self, text: str, blocks: Sequence[Block]) -> None:
        self._text = text
        self._blocks = blocks
        self._starts = [block.start for block in blocks]
        self._pages = [block for block in blocks if block.kind is BlockKind.PAGE_BREAK]
        self._page_starts = [block.start for block in self._pages]
        self._tops: list[int] = []
        """Indexes of the blocks that lie in no other."""
        covered = -1
        for at, block in enumerate(blocks):
            if block.start >= covered:
                self._tops.append(at)
                covered = max(covered, block.end)
        self._top_starts = [blocks[at].start for at in self._tops]

    def beginning_in(self, start: int, end: int) -> Sequence[Block]:
        """The blocks whose start lies in [start, end)."""
        first = bisect_right(self._starts, start - 1)
        return self._blocks[first : bisect_right(self._starts, end - 1)]

    def overlapping(self, start: int, end: int) -> Sequence[Block]:
        """All blocks that may share a character with [start, end), and some before."""
        top = max(0, bisect_right(self._top_starts, start) - 1)
        first = self._tops[top] if self._tops else 0
        return self._blocks[first : bisect_right(self._starts, end - 1)]

    def page(self, start: int) -> int:
        """The page that `start` lies on; 0 in a text without pages."""
        at = bisect_right(self._page_starts, start) - 1
        return self._pages[max(at, 0)].page if self._pages else 0

    def continued(self, start: int) -> str:
        """Return the context of a piece at `start`: columns of a table, lead-in of a list."""
        for block in self.overlapping(start, start + 1):
            if block.end <= start:
                continue
            said = ""
            if block.kind is BlockKind.TABLE and block.start < start:
                said = " | ".join(column_names(self._text, block))
            elif block.kind is BlockKind.LIST_ITEM:
                said = block.lead_in
            if said:
                return said if len(said) <= _CONTEXT_CHARS else f"{said[:_CONTEXT_CHARS]}…"
        return ""
