"""From the lines of a PDF to paragraphs, headings, list items and tables.

A PDF has none of these: they are inferred from gaps, indents, font sizes and marks. Lines come in
the order in which they are drawn, which keeps columns apart; only neighbours are put together.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from raglan_ingester.parsers.pdf_pages import Line
from raglan_ingester.parsers.table_headers import first_row_is_header
from raglan_ingester.parsers.text_builder import TextBuilder

_BULLET: Final = re.compile(r"[•◦▪▫‣●○■□➢➤∙·\ue000-\uf8ff]\s*(?=\S)|[-–—*]\s+(?=\S)")  # noqa: RUF001
_NUMBER: Final = re.compile(r"(\((?:\d{1,3}|[a-z])\)|\d{1,3}[.)]|[a-z]\))\s+(?=\S)")
_SENTENCE_END: Final = re.compile(r"[.!?:;。！？…]['\"”’)\]]*$")  # noqa: RUF001
_CJK: Final = re.compile("[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef]")
_HYPHENS: Final = ("\u00ad", "-", "\u2010")
_HEADING_RATIO: Final = 1.18
"""A line in a font this much larger than the body's is a heading."""
_MAX_HEADING_CHARS: Final = 200
_MAX_CELL_CHARS: Final = 80
"""Mean length above which aligned columns are columns of prose."""
_LEVELS: Final = 3
_MAX_LEVEL: Final = 6
_MAX_HEADING_SHARE: Final = 0.3
"""Of a text's letters: where more stand in larger fonts, the font says nothing."""
_MAX_REST_GAP: Final = 0.3
"""Line heights between two lines of one cell."""
_MIN_GAPS: Final = 6
"""Fewer lines on a page say nothing of the usual distance between lines."""


Titles = dict[int, list[tuple[int, str]]]
"""Page number -> (level, heading)."""


@dataclass(slots=True)
class Item:
    """A block to be: its text with the pages that begin inside it."""

    kind: str
    """`paragraph`, `heading`, `item` or `table`."""
    page: int
    text: str = ""
    lines: list[Line] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    level: int = 0
    label: str = ""
    mark: str = ""
    pages: dict[int, int] = field(default_factory=dict)
    """Offset in the text -> number of the page that begins there."""


class Layout:
    """Puts lines together, page after page.

    Args:
        pages: (number from 1, lines) of each page.
        titles: the outline of the document; entries that are found as a line of their page are
            taken out. Without one, lines in larger fonts are headings.
    """

    def __init__(self, pages: Sequence[tuple[int, Sequence[Line]]], titles: Titles | None) -> None:
        self.items: list[Item] = []
        lines = [line for _, page in pages for line in page]
        self._words = {word for line in lines for word in re.findall(r"[\w-]+", line.text.lower())}
        self._levels = _heading_levels(lines) if titles is None else {}
        self._titles = titles or {}
        for number, page in pages:
            self._read_page(number, list(page))

    def _read_page(self, number: int, lines: list[Line]) -> None:
        gaps = sorted(
            gap
            for above, below in pairwise(lines)
            if -0.5 * below.size < (gap := above.bottom - below.top) < 2 * below.size
        )
        typical = gaps[len(gaps) // 2] if len(gaps) >= _MIN_GAPS else 0.0
        right = max((line.right for line in lines), default=0.0)
        at = 0
        while at < len(lines):
            if (end := _table_end(lines, at)) > at:
                rows = _table_rows(lines[at:end])
                self.items.append(Item("table", number, rows=rows, lines=lines[at:end]))
                at = end
                continue
            self._add_line(number, lines[at], typical, right)
            at += 1

    def _add_line(self, number: int, line: Line, typical: float, right: float) -> None:
        last = self.items[-1] if self.items else None
        level = self._level(number, line)
        mark = None if level else self._mark(line, last)
        if mark is not None:
            text = line.text[mark.end() :]
            label = mark[1].strip("().") if mark.re is _NUMBER else ""
            self.items.append(
                Item("item", number, text, [line], label=label, mark=mark[1] if label else "")
            )
        elif (
            last is not None
            and last.kind != "table"
            and last.lines
            and self._continues(last, number, line, level, typical, right)
        ):
            self._append(last, number, line)
        else:
            kind = "heading" if level else "paragraph"
            self.items.append(Item(kind, number, line.text, [line], level=level))

    def _level(self, number: int, line: Line) -> int:
        """Of a heading 1 to 6, else 0."""
        if titles := self._titles.get(number):
            shape = _title_shape(line.text)
            for title in titles:
                if shape and shape == _title_shape(title[1]):
                    titles.remove(title)
                    return min(title[0], _MAX_LEVEL)
        level = self._levels.get(_font_size(line), 0)
        is_title = len(line.text) <= _MAX_HEADING_CHARS and any(map(str.isalpha, line.text))
        return level if is_title else 0

    def _mark(self, line: Line, last: Item | None) -> re.Match[str] | None:
        """The mark that `line` begins with, if it begins a list item."""
        mark = _BULLET.match(line.text) or _NUMBER.match(line.text)
        if mark is None:
            return None
        # A dash or a number may also begin the next line of a sentence.
        is_plain = mark[0].strip() in ("-", "–", "—", "*") or mark.re is _NUMBER  # noqa: RUF001
        runs_on = last is not None and last.kind == "paragraph" and last.page
        if is_plain and runs_on and last is not None and not _SENTENCE_END.search(last.text):
            below = last.lines[-1].bottom - line.top
            if 0 <= below + line.size < 1.2 * line.size and mark.re is not _NUMBER:
                return None
        return mark

    def _continues(
        self, last: Item, number: int, line: Line, level: int, typical: float, right: float
    ) -> bool:
        """Return whether `line` continues where `last` ends."""
        before = last.lines[-1]
        starts_small = line.text[:1].islower()
        is_open = last.text.endswith(_HYPHENS) or not _SENTENCE_END.search(last.text)
        if level != last.level or abs(line.size - before.size) > 0.15 * before.size:
            return False
        gap = before.bottom - line.top
        if number != max([last.page, *last.pages.values()]):
            return is_open and starts_small and not level
        if gap < -0.9 * line.size:
            # Higher up: the next column, or a line that was drawn out of order.
            return is_open and starts_small
        if gap > min(max(0.35 * line.size, typical + 0.3 * line.size), 1.2 * line.size):
            return is_open and starts_small and gap < 2 * line.size
        if last.kind == "item" and line.left < last.lines[0].left + 0.3 * line.size:
            return is_open and starts_small
        if not is_open:
            is_short = before.right < right - 0.25 * right
            is_indented = line.left > before.left + 0.8 * line.size and last.kind != "item"
            return not (is_short or is_indented)
        return True

    def _append(self, last: Item, number: int, line: Line) -> None:
        text, addition = last.text, line.text
        if text.endswith(_HYPHENS) and addition[:1].isalpha() and text[-2:-1].isalpha():
            text = text[:-1]
            head = re.search(r"[\w-]*$", text)
            tail = re.match(r"\w*", addition)
            compound = f"{head[0] if head else ''}-{tail[0] if tail else ''}".lower()
            if compound in self._words or not addition[0].islower():
                text += "-"
        elif not (_CJK.match(addition) and _CJK.match(text[-1:])):
            text += " "
        if number != max([last.page, *last.pages.values()]):
            last.pages[len(text)] = number
        last.text = text + addition
        last.lines.append(line)


def write_items(items: Sequence[Item], builder: TextBuilder, titles: Titles | None) -> None:
    """Append the blocks, each behind the number of its page.

    Args:
        items: in order.
        builder: where to.
        titles: entries of the outline that are not part of the text.
    """
    page = 0
    indents: list[float] = []
    for item in items:
        while page < item.page:
            page += 1
            builder.page(page)
            for level, heading in (titles or {}).get(page, ()):
                builder.section(level, heading)
        if item.kind != "item":
            builder.end_lists()
            indents.clear()
        if item.kind == "table":
            builder.table(item.rows, has_header=first_row_is_header(item.rows))
        elif item.kind == "heading":
            builder.heading(item.level, _without_soft_hyphens(item.text))
        elif item.kind == "item":
            left = item.lines[0].left
            while indents and indents[-1] > left - 1:
                indents.pop()
            indents.append(left)
            builder.list_item(
                _without_soft_hyphens(item.text),
                depth=len(indents),
                label=item.label,
                mark=item.mark,
            )
        else:
            builder.paragraph(item.text.replace("\u00ad", "-"), pages=item.pages)
        page = max([page, *item.pages.values()])


def _heading_levels(lines: Sequence[Line]) -> dict[float, int]:
    """Font size -> level of the sizes that headings have: larger than the body's, and rare."""
    sizes = Counter[float]()
    for line in lines:
        sizes[_font_size(line)] += sum(map(str.isalpha, line.text))
    if not sizes.total():
        return {}
    body = sizes.most_common(1)[0][0]
    larger = sorted((size for size in sizes if size >= body * _HEADING_RATIO), reverse=True)
    if sum(sizes[size] for size in larger) > _MAX_HEADING_SHARE * sizes.total():
        return {}
    return {size: min(place, _LEVELS) for place, size in enumerate(larger, 1)}


def _font_size(line: Line) -> float:
    return round(2 * line.size) / 2


def _title_shape(text: str) -> str:
    """A heading without its number, blanks and punctuation, to compare it by."""
    return re.sub(r"[\W_]+", "", re.sub(r"^[\d.\s]+", "", text)).lower()


def _without_soft_hyphens(text: str) -> str:
    return text.replace("\u00ad", "-")


def _table_end(lines: Sequence[Line], start: int) -> int:
    """One past the last row of a table that begins at `start`; `start` if none does."""
    end = start
    while end < len(lines) and not _BULLET.match(lines[end].text):
        if end > start and not _follows(lines[end - 1], lines[end]):
            break
        if len(lines[end].cells) < 2 and (end == start or not _is_rest(lines, start, end)):
            break
        end += 1
    while end - start > 1:
        rows = [line for line in lines[start:end] if len(line.cells) > 1]
        columns = _columns(lines[start:end])
        if len(rows) > 1 and len(columns) > 1 and _fits(lines[start:end], columns):
            return end
        end -= 1
    return start


def _is_rest(lines: Sequence[Line], start: int, at: int) -> bool:
    """Return whether the line continues a cell of the row above, in a column after the first."""
    above, line = lines[at - 1], lines[at]
    second = min((row.cells[1].left for row in lines[start:at] if len(row.cells) > 1), default=0.0)
    return line.left > second - 1 and above.bottom - line.top < _MAX_REST_GAP * line.size


def _follows(above: Line, below: Line) -> bool:
    return 0 < above.top - below.top < 5 * max(above.size, below.size)


def _columns(lines: Sequence[Line]) -> list[tuple[float, float]]:
    """The columns: the spans of x that cells cover, those that overlap made into one."""
    columns: list[tuple[float, float]] = []
    for left, right in sorted((cell.left, cell.right) for line in lines for cell in line.cells):
        if columns and left < columns[-1][1]:
            columns[-1] = (columns[-1][0], max(columns[-1][1], right))
        else:
            columns.append((left, right))
    return columns


def _fits(lines: Sequence[Line], columns: list[tuple[float, float]]) -> bool:
    """Return whether each row has at most one cell a column, and the cells are short."""
    cells = [cell for line in lines for cell in line.cells]
    if sum(len(cell.text) for cell in cells) > _MAX_CELL_CHARS * len(cells):
        return False
    return all(
        len({_column(columns, cell.left) for cell in line.cells}) == len(line.cells)
        for line in lines
    )


def _column(columns: list[tuple[float, float]], left: float) -> int:
    return next(place for place, (start, end) in enumerate(columns) if start <= left <= end)


def _table_rows(lines: Sequence[Line]) -> list[list[str]]:
    columns = _columns(lines)
    rows: list[list[str]] = []
    for at, line in enumerate(lines):
        is_rest = len(line.cells) == 1 and bool(rows) and _is_rest(lines, 0, at)
        row = rows[-1] if is_rest else [""] * len(columns)
        for cell in line.cells:
            place = _column(columns, cell.left)
            row[place] = f"{row[place]} {cell.text}".strip().replace("\u00ad", "-")
        if not is_rest:
            rows.append(row)
    return rows
