"""A table of HTML as a grid: spanning cells stand in every row that they cover."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from selectolax.lexbor import LexborNode

from raglan_ingester.parsers.parsed import MAX_TABLE_CELLS, one_line
from raglan_ingester.parsers.table_headers import merge_header_rows

_MAX_COLUMNS: Final = 1000
_MAX_ROW_SPAN: Final = 65534
"""HTML's own limit."""


@dataclass(frozen=True, slots=True)
class HtmlTable:
    """A table with its spanning cells repeated."""

    rows: list[list[str]]
    has_header: bool
    caption: str


def read_table(
    node: LexborNode,
    text_of: Callable[[LexborNode], str],
    is_hidden: Callable[[LexborNode], bool],
) -> HtmlTable:
    """The cells of a `<table>`, row by row.

    A cell over several rows is repeated in each, one over several columns of the header too; in
    the body it stands in the first of its columns.
    """
    rows: list[list[str]] = []
    header_rows = laid_out = 0
    carried: dict[int, tuple[int, str]] = {}
    """Column -> rows still to fill and the text, of cells that span rows."""
    for row, in_head in _rows(node):
        cells = [cell for cell in _children(row, ("td", "th")) if not is_hidden(cell)]
        is_header = in_head or (bool(cells) and all(cell.tag == "th" for cell in cells))
        if is_header and header_rows == len(rows):
            header_rows += 1
        line: list[str] = []
        for cell in cells:
            _fill_carried(line, carried)
            text = one_line(text_of(cell))
            columns = _span(cell, "colspan", _MAX_COLUMNS)
            row_span = _span(cell, "rowspan", _MAX_ROW_SPAN)
            for column in range(min(columns, _MAX_COLUMNS - len(line))):
                shown = text if is_header or not column else ""
                if row_span > 1:
                    carried[len(line)] = (row_span - 1, shown)
                line.append(shown)
        _fill_carried(line, carried)
        if cells:
            rows.append(line)
            laid_out += len(line)
        if laid_out > MAX_TABLE_CELLS:  # the builder says that it is too much
            break
    captions = [child for child in _children(node, ("caption",)) if not is_hidden(child)]
    caption = one_line(text_of(captions[0])) if captions else ""
    merged = merge_header_rows(rows, header_rows)
    return HtmlTable(merged, 0 < header_rows < len(rows), caption)


def _fill_carried(line: list[str], carried: dict[int, tuple[int, str]]) -> None:
    """Place the cells from rows above that cover the next columns of this row."""
    while len(line) in carried:
        column = len(line)
        left, text = carried.pop(column)
        if left > 1:
            carried[column] = (left - 1, text)
        line.append(text)


def _rows(table: LexborNode) -> Iterator[tuple[LexborNode, bool]]:
    """(row, it lies in a `<thead>`)."""
    for child in _children(table, ("tr", "thead", "tbody", "tfoot")):
        if child.tag == "tr":
            yield child, False
        else:
            for row in _children(child, ("tr",)):
                yield row, child.tag == "thead"


def _children(node: LexborNode, tags: tuple[str, ...]) -> Iterator[LexborNode]:
    child = node.child
    while child is not None:
        if child.tag in tags:
            yield child
        child = child.next


def _span(cell: LexborNode, attribute: str, limit: int) -> int:
    value = cell.attributes.get(attribute) or "1"
    return max(1, min(limit, int(value))) if value.isascii() and value.isdigit() else 1
