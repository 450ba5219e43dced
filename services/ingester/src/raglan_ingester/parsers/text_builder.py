"""Builds a document's text and its blocks together, so that every offset is exact."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from raglan.blocks import Block, BlockKind, Cell

from raglan_ingester.parsers.parsed import (
    MAX_TABLE_CELLS,
    MAX_TEXT_CHARS,
    Heading,
    ParsedDocument,
    Unparsable,
    name,
    normalise,
    one_line,
)

_BULLET: Final = "-"
_SENTENCE_END: Final = re.compile(r"[.!?]\s+(?=\S)|[。！？]")  # noqa: RUF001
_LEAD_IN_CHARS: Final = 300
MAX_DEPTH: Final = 20
"""Of lists: deeper ones are read as lists of this depth."""
_BLOCK_ROWS: Final = 200
"""Rows of a table in one block: what works on a block may take time for each of its rows."""
_MAX_LEVEL: Final = 6
_TOO_MANY_CELLS: Final = (
    f"The tables have more than {MAX_TABLE_CELLS:,} cells in all, the limit; the rows beyond it "
    "were left out."
)


@dataclass(slots=True)
class _Container:
    """An open list item or quotation."""

    kind: BlockKind
    mark: str = ""
    label: str = ""
    lead_in: str = ""
    level: int = 1
    index: int = -1
    """Its place among the blocks; -1 until something is written inside it."""


class TextBuilder:
    """Writes blocks one below the other and records where each begins and ends.

    The text reads like Markdown without inline markup: tables as `| a | b |` lines, list items
    behind their number or a dash. Nothing has to parse it again, because the blocks say what
    is what.
    """

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.metadata: dict[str, Any] = {}
        self._parts: list[str] = []
        self._length = 0
        self._cells = 0
        self._headings: list[Heading] = []
        self._blocks: list[Block] = []
        self._pending: list[Heading | int] = []
        """Sections and page numbers that begin with the next block."""
        self._open: list[_Container] = []
        self._lead_ins: list[str] = []
        """Of the lists that are open, outermost first."""
        self._has_item: list[bool] = []
        """True if an item is open, of the same lists."""
        self._is_after_item = False
        """The last thing written is an item of the innermost list, or the text of its parent."""

    @property
    def length(self) -> int:
        """Characters written so far."""
        return self._length

    def heading(self, level: int, text: str) -> None:
        """Append a heading that is part of the text."""
        line = one_line(text)
        if line:
            start = self._begin()
            self._append(line)
            self._headings.append(Heading(start, level, name(line)))
            self._add(BlockKind.HEADING, start, level=min(max(level, 1), _MAX_LEVEL))

    def section(self, level: int, heading: str) -> None:
        """Begin a section whose heading is not part of the text."""
        if called := name(heading):
            self._pending.append(Heading(0, level, called))

    def end_section(self, level: int) -> None:
        """End the section of the last heading of `level` and those below it."""
        self._pending.append(Heading(0, level, ""))

    def paragraph(self, text: str, pages: Mapping[int, int] | None = None) -> None:
        """Append a paragraph; a blank one is left out.

        Args:
            text: its text.
            pages: offset in `text` -> number of the page that begins there.
        """
        clean = normalise(text).strip()
        if clean:
            start = self._begin(same_line=True)
            self._append(self._indented(clean))
            self._add(BlockKind.PARAGRAPH, start)
            for offset, number in (pages or {}).items():
                place = start + min(offset, len(clean))
                self._blocks.append(Block(BlockKind.PAGE_BREAK, place, place, page=number))

    def code(self, text: str, language: str = "") -> None:
        """Append code as it is, without blank lines around it."""
        clean = normalise(text).rstrip()
        while clean.startswith(("\n", " \n", "\t\n")):
            clean = clean[clean.index("\n") + 1 :]
        if clean:
            start = self._begin()
            self._append(self._indented(clean))
            self._add(BlockKind.CODE, start, label=language)

    def table(self, rows: Sequence[Sequence[str]], *, has_header: bool) -> None:
        """Append a table; every row is filled up to the same number of cells.

        Args:
            rows: cell texts; newlines and bars inside a cell are taken care of. Those beyond the
                limit of cells are left out with a warning.
            has_header: the first row names the columns.
        """
        width = max((len(row) for row in rows), default=0)
        rows = self._within_limit(rows, width)
        if not any(cell.strip() for row in rows for cell in row):
            return
        names = tuple(one_line(cell) for cell in rows[0]) if has_header else ()
        start = self._begin()
        indent = "\n" + self._indent()
        placed: list[tuple[Cell, ...]] = []
        for number, row in enumerate(rows):
            if len(placed) == _BLOCK_ROWS:
                self._add_table(start, placed, names, is_first=number == _BLOCK_ROWS)
                placed = []
            if number:
                self._append(indent)
            if not placed:
                start = self._length
            placed.append(self._row([*row, *[""] * (width - len(row))]))
            if has_header and not number:
                self._append(indent + "|" + " --- |" * width)
        self._add_table(start, placed, names, is_first=len(rows) <= _BLOCK_ROWS)

    def _within_limit(self, rows: Sequence[Sequence[str]], width: int) -> Sequence[Sequence[str]]:
        most = (MAX_TABLE_CELLS - self._cells) // max(width, 1)
        self._cells += min(len(rows), most) * width
        if len(rows) > most and _TOO_MANY_CELLS not in self.warnings:
            self.warnings.append(_TOO_MANY_CELLS)
        return rows[:most]

    def _add_table(
        self, start: int, rows: list[tuple[Cell, ...]], names: tuple[str, ...], *, is_first: bool
    ) -> None:
        """Add the block of some rows of a table; those behind the first rows name the columns."""
        has_header = bool(names) and is_first
        columns = () if is_first else names
        self._add(BlockKind.TABLE, start, rows=tuple(rows), has_header=has_header, columns=columns)

    def page(self, number: int) -> None:
        """Begin page `number`."""
        self._pending.append(number)

    def open_list(self) -> None:
        """Begin a list, inside the open item if there is one."""
        self._lead_ins.append(self._lead_in())
        self._has_item.append(False)

    def close_list(self) -> None:
        """End the innermost list."""
        self._lead_ins.pop()
        self._has_item.pop()
        self._is_after_item = bool(self._lead_ins)

    def open_item(self, label: str = "", mark: str = "") -> None:
        """Begin an item of the innermost list.

        Args:
            label: its number without punctuation; empty for a bullet.
            mark: its number as shown; the label and a full stop by default.
        """
        if self._has_item:
            self._has_item[-1] = True
        self._open.append(
            _Container(
                BlockKind.LIST_ITEM,
                mark=mark or (f"{label}." if label else _BULLET),
                label=label,
                lead_in=self._lead_ins[-1] if self._lead_ins else "",
                level=max(1, len(self._lead_ins)),
            )
        )

    def close_item(self) -> None:
        """End the innermost item."""
        if self._has_item:
            self._has_item[-1] = False
        self._close()
        self._is_after_item = True

    def open_quotation(self) -> None:
        """Begin a quotation."""
        depth = sum(container.kind is BlockKind.QUOTATION for container in self._open)
        self._open.append(_Container(BlockKind.QUOTATION, level=depth + 1))

    def close_quotation(self) -> None:
        """End the innermost quotation."""
        self._close()

    def list_item(self, text: str, *, depth: int, label: str = "", mark: str = "") -> None:
        """Append an item given by its depth (from 1), for formats without nested lists.

        The item stays open for deeper items and further paragraphs until `end_lists` or the next
        item that is not deeper.
        """
        depth = min(depth, MAX_DEPTH)
        while len(self._lead_ins) > depth:
            self._close_level()
        if len(self._lead_ins) == depth and self._has_item[-1]:
            self.close_item()
        while len(self._lead_ins) < depth:
            self.open_list()
        self.open_item(label, mark)
        self.paragraph(text)

    def end_lists(self) -> None:
        """Close all lists that `list_item` opened."""
        while self._lead_ins:
            self._close_level()

    def embed(self, parsed: ParsedDocument, level: int) -> None:
        """Append a whole document, such as an attachment; its headings stand below `level`."""
        if not parsed.text.strip():
            return
        self._separate("\n\n")
        self._place_pending()
        offset = self._length
        self._append(parsed.text)
        for heading in parsed.headings:
            moved = (
                min(heading.level + level, _MAX_LEVEL) if heading.text else heading.level + level
            )
            self._headings.append(Heading(heading.offset + offset, moved, heading.text))
        self._blocks += (_moved(block, offset, level) for block in parsed.blocks)

    def build(self, title: str = "") -> ParsedDocument:
        """The document that was written."""
        self._pending = [mark for mark in self._pending if isinstance(mark, int)]
        self._place_pending()
        return ParsedDocument(
            name(title),
            "".join(self._parts),
            self._headings,
            self._blocks,
            self.metadata,
            self.warnings,
        )

    def _close_level(self) -> None:
        if self._has_item[-1]:
            self.close_item()
        self.close_list()

    def _close(self) -> None:
        container = self._open.pop()
        if container.index >= 0:
            block = self._blocks[container.index]
            self._blocks[container.index] = replace(block, end=self._length)

    def _begin(self, *, same_line: bool = False) -> int:
        """Write what stands before a block; returns where the block begins.

        Args:
            same_line: the block may stand behind the mark of an item.
        """
        fresh = [container for container in self._open if container.index < 0]
        for container in fresh:
            self._separate("\n" if container.mark and self._is_after_item else "\n\n")
            self._append(self._indent(container))
            self._place_pending()
            container.index = len(self._blocks)
            self._blocks.append(
                Block(
                    container.kind,
                    self._length,
                    self._length,
                    level=container.level,
                    label=container.label,
                    lead_in=container.lead_in,
                )
            )
            if container.mark:
                self._append(container.mark)
                self._is_after_item = True
        if not fresh or (fresh[-1].mark and not same_line):
            self._separate("\n" if fresh else "\n\n")
            self._append(self._indent())
            self._place_pending()
        elif fresh[-1].mark:
            self._append(" ")
        self._is_after_item = bool(fresh and fresh[-1].mark)
        return self._length

    def _indent(self, before: _Container | None = None) -> str:
        """The blanks that lines inside the open items begin with."""
        width = 0
        for container in self._open:
            if container is before:
                break
            width += len(container.mark) + 1 if container.mark else 0
        return " " * width

    def _indented(self, text: str) -> str:
        indent = self._indent()
        return re.sub(r"\n(?=[^\n])", "\n" + indent, text) if indent else text

    def _separate(self, separator: str) -> None:
        if self._parts:
            self._append(separator)

    def _place_pending(self) -> None:
        for mark in self._pending:
            if isinstance(mark, Heading):
                self._headings.append(replace(mark, offset=self._length))
            else:
                self._blocks.append(
                    Block(BlockKind.PAGE_BREAK, self._length, self._length, page=mark)
                )
        self._pending.clear()

    def _row(self, cells: Sequence[str]) -> tuple[Cell, ...]:
        placed = []
        self._append("|")
        for cell in cells:
            text = one_line(cell).replace("|", "\\|")
            self._append(" ")
            placed.append(Cell(self._length, self._length + len(text)))
            self._append(f"{text} |")
        return tuple(placed)

    def _lead_in(self) -> str:
        """The sentence that introduces a list; of a nested list, the text of its item."""
        last = self._blocks[-1] if self._blocks else None
        if last is None or last.kind is not BlockKind.PARAGRAPH:
            return ""
        parts = self._tail(last.end - last.start)
        sentence = " ".join(_SENTENCE_END.split(parts)[-1].split())
        is_nested = any(c.kind is BlockKind.LIST_ITEM and c.index >= 0 for c in self._open)
        return sentence[:_LEAD_IN_CHARS] if is_nested or sentence.endswith((":", "：")) else ""  # noqa: RUF001

    def _tail(self, length: int) -> str:
        tail = ""
        for part in reversed(self._parts):
            tail = part + tail
            if len(tail) >= length:
                break
        return tail[-length:]

    def _add(self, kind: BlockKind, start: int, **values: Any) -> None:
        self._blocks.append(Block(kind, start, self._length, **values))

    def _append(self, text: str) -> None:
        self._parts.append(text)
        self._length += len(text)
        if self._length > MAX_TEXT_CHARS:
            raise Unparsable(
                f"The document's text is longer than {MAX_TEXT_CHARS:,} characters, the limit; "
                "split the document, or look for table cells that span or repeat thousands of "
                "times."
            )


def _moved(block: Block, offset: int, level: int) -> Block:
    """`block` of a text that now begins at `offset`."""
    if block.kind is BlockKind.HEADING:
        block = replace(block, level=min(block.level + level, _MAX_LEVEL))
    rows = tuple(
        tuple(Cell(cell.start + offset, cell.end + offset) for cell in row) for row in block.rows
    )
    return replace(block, start=block.start + offset, end=block.end + offset, rows=rows)
