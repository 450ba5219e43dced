"""The structure of a text: headings, paragraphs, list items, tables, code, quotations, pages.

Parsers make blocks, the chunker cuts along them, the index carries them with each passage, and the
generator builds its units of quotation from them. Offsets are characters of one text, so that
`text[block.start : block.end]` is the block as stored. Blocks come in order of their start; a block
inside another (a list item of a list item, code in a list item) comes after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import NamedTuple

from google.protobuf.message import DecodeError

from raglan.v1 import common_pb2


class BlockKind(IntEnum):
    """Kind of a block; the numbers are those of `raglan.v1.BlockKind`."""

    HEADING = common_pb2.BLOCK_KIND_HEADING
    PARAGRAPH = common_pb2.BLOCK_KIND_PARAGRAPH
    LIST_ITEM = common_pb2.BLOCK_KIND_LIST_ITEM
    """Covers everything inside the item, nested lists included; the blocks inside follow."""
    TABLE = common_pb2.BLOCK_KIND_TABLE
    CODE = common_pb2.BLOCK_KIND_CODE
    """With its fence, where the text has one."""
    QUOTATION = common_pb2.BLOCK_KIND_QUOTATION
    """Covers the whole quotation; the blocks inside follow."""
    PAGE_BREAK = common_pb2.BLOCK_KIND_PAGE_BREAK
    """Empty (start == end): page number `page` begins here."""


class Cell(NamedTuple):
    """The content of a table cell, without the blanks around it; may be empty."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Block:
    """One block of a text, `text[start:end]`."""

    kind: BlockKind
    start: int
    end: int
    level: int = 0
    """Of a heading 1 to 6; of a list item or quotation its depth of nesting, from 1; else 0."""
    label: str = ""
    """Of a list item its number as written, without punctuation; of code its language."""
    rows: tuple[tuple[Cell, ...], ...] = ()
    """Of a table, the header among them if `has_header`."""
    has_header: bool = False
    """Of a table: its first row names the columns."""
    columns: tuple[str, ...] = ()
    """Of a table whose header lies outside the text: the names of its columns."""
    lead_in: str = ""
    """Of a list item: the sentence that introduces its list, such as "To delete a document:"."""
    page: int = 0
    """Of a page break: the number of the page that begins here, from 1."""
    cut_start: bool = False
    """The block begins before the text does."""
    cut_end: bool = False
    """True if the block continues after the text ends."""


def column_names(text: str, table: Block) -> tuple[str, ...]:
    """The names of a table's columns; empty for a table without header."""
    if table.has_header:
        return tuple(text[cell.start : cell.end] for cell in table.rows[0])
    return table.columns


def body_rows(table: Block) -> tuple[tuple[Cell, ...], ...]:
    """A table's rows without its header."""
    return table.rows[1:] if table.has_header else table.rows


def clip(text: str, blocks: Iterable[Block], start: int, end: int) -> list[Block]:
    """The blocks of `text[start:end]`, with offsets into that piece.

    A block that lies partly outside is cut and says so. A table keeps the rows that lie inside
    whole, and the names of its columns where its header does not.

    Args:
        text: the whole text that `blocks` describe.
        blocks: in order.
        start: first character of the piece.
        end: one past its last character.
    """
    return list(_clipped(text, blocks, start, end))


def _clipped(text: str, blocks: Iterable[Block], start: int, end: int) -> Iterator[Block]:
    for block in blocks:
        if block.start >= end:
            break
        inside = start <= block.start if block.start == block.end else block.end > start
        if not inside:
            continue
        piece = replace(
            block,
            start=max(block.start, start) - start,
            end=min(block.end, end) - start,
            cut_start=block.cut_start or block.start < start,
            cut_end=block.cut_end or block.end > end,
        )
        if block.kind is BlockKind.TABLE:
            piece = _clip_table(text, block, piece, start, end)
        yield piece


def _clip_table(text: str, table: Block, piece: Block, start: int, end: int) -> Block:
    kept = [row for row in table.rows if row and start <= row[0].start and row[-1].end <= end]
    has_header = table.has_header and bool(kept) and kept[0] is table.rows[0]
    rows = tuple(tuple(Cell(c.start - start, c.end - start) for c in row) for row in kept)
    columns = () if has_header else column_names(text, table)
    return replace(piece, rows=rows, has_header=has_header, columns=columns)


def to_bytes(blocks: Sequence[Block]) -> bytes:
    """`blocks` as a serialized `raglan.v1.Structure`; empty for none."""
    message = common_pb2.Structure()
    indexes: dict[str, int] = {}

    def index(string: str) -> int:
        if string not in indexes:
            indexes[string] = len(message.strings)
            message.strings.append(string)
        return indexes[string]

    for block in blocks:
        names = block.columns or ((block.lead_in,) if block.lead_in else ())
        message.blocks.add(
            kind=common_pb2.BlockKind.ValueType(block.kind),
            start=block.start,
            end=block.end,
            level=block.level,
            label=block.label,
            rows=[len(row) for row in block.rows],
            cells=[offset for row in block.rows for cell in row for offset in cell],
            has_header=block.has_header,
            context=[index(name) for name in names],
            cut_start=block.cut_start,
            cut_end=block.cut_end,
            page=block.page,
        )
    return message.SerializeToString()


def from_bytes(structure: bytes) -> tuple[Block, ...]:
    """The blocks that `to_bytes` packed.

    Raises:
        ValueError: the bytes are no `raglan.v1.Structure`, or one that contradicts itself.
    """
    message = common_pb2.Structure()
    try:
        message.ParseFromString(structure)
        return tuple(_block(packed, message.strings) for packed in message.blocks)
    except (DecodeError, ValueError, IndexError, StopIteration) as error:
        raise ValueError(f"The structure of a text cannot be read: {error}") from None


def _block(packed: common_pb2.Block, strings: Sequence[str]) -> Block:
    kind = BlockKind(packed.kind)
    names = tuple(strings[index] for index in packed.context)
    is_item = kind is BlockKind.LIST_ITEM
    return Block(
        kind=kind,
        start=packed.start,
        end=packed.end,
        level=packed.level,
        label=packed.label,
        rows=_rows(packed),
        has_header=packed.has_header,
        columns=() if is_item else names,
        lead_in=names[0] if is_item and names else "",
        page=packed.page,
        cut_start=packed.cut_start,
        cut_end=packed.cut_end,
    )


def _rows(packed: common_pb2.Block) -> tuple[tuple[Cell, ...], ...]:
    offsets = list(packed.cells)
    if len(offsets) != 2 * sum(packed.rows):
        raise ValueError(f"{len(offsets)} offsets for {sum(packed.rows)} cells")
    cells = iter(zip(offsets[::2], offsets[1::2], strict=True))
    return tuple(tuple(Cell(*next(cells)) for _ in range(length)) for length in packed.rows)
