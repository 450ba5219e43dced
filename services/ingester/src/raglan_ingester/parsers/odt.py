"""OpenDocument text: headings, lists with their numbers, tables, notes, text boxes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Final

from raglan_ingester.parsers.archives import open_archive, read_entry
from raglan_ingester.parsers.list_numbers import item_number
from raglan_ingester.parsers.parsed import (
    MAX_TABLE_CELLS,
    ParsedDocument,
    Source,
    Unparsable,
    one_line,
)
from raglan_ingester.parsers.table_headers import first_row_is_header, merge_header_rows
from raglan_ingester.parsers.text_builder import TextBuilder
from raglan_ingester.parsers.xml_trees import parse_xml

_KIND: Final = "an OpenDocument text (odt)"
_OASIS: Final = "urn:oasis:names:tc:opendocument:xmlns:"
TEXT: Final = f"{{{_OASIS}text:1.0}}"
_TABLE: Final = f"{{{_OASIS}table:1.0}}"
_OFFICE: Final = f"{{{_OASIS}office:1.0}}"
_STYLE: Final = f"{{{_OASIS}style:1.0}}"
_DRAW: Final = f"{{{_OASIS}drawing:1.0}}"
_DUBLIN: Final = "{http://purl.org/dc/elements/1.1/}"
_SKIPPED: Final = frozenset(
    (
        *(f"{TEXT}{name}" for name in ("tracked-changes", "note-citation", "ruby-text")),
        *(f"{_OFFICE}{name}" for name in ("annotation", "annotation-end", "forms")),
        *(f"{TEXT}{name}" for name in ("sequence-decls", "variable-decls", "user-field-decls")),
    )
)
_ATTACHED: Final = (f"{TEXT}note", f"{_DRAW}text-box")
_CELLS: Final = (f"{_TABLE}table-cell", f"{_TABLE}covered-table-cell")
_MAX_COLUMNS: Final = 500
_CODE: Final = re.compile(r"preformatted|source.?(?:code|text)|\bcode\b", re.IGNORECASE)
_QUOTATION: Final = re.compile(r"quotation|\bquote", re.IGNORECASE)
_MAX_ROWS: Final = 20_000


def parse(source: Source) -> ParsedDocument:
    """Read an OpenDocument text.

    Raises:
        Unparsable: it is no odt file, broken, encrypted, or a zip bomb.
    """
    with open_archive(source.data, _KIND) as archive:
        content = parse_xml(read_entry(archive, "content.xml"))
        styles = parse_xml(read_entry(archive, "styles.xml"))
        meta = parse_xml(read_entry(archive, "meta.xml"))
        manifest = read_entry(archive, "META-INF/manifest.xml")
    body = content.find(f"{_OFFICE}body/{_OFFICE}text") if content is not None else None
    if body is None:
        if b"encryption-data" in manifest:
            raise Unparsable("The file is encrypted; remove its password and submit it again.")
        raise Unparsable(f"The file is not {_KIND}, or it is broken.")
    walker = _Walker(ListStyles(content, styles), _style_names(content, styles))
    walker.walk(body)
    walker.headers_and_footers(styles)
    stated = {} if meta is None else {e.tag: e.text or "" for e in meta.iter(f"{_DUBLIN}*")}
    if author := one_line(stated.get(f"{_DUBLIN}creator", "")):
        walker.builder.metadata["author"] = author
    return walker.builder.build(stated.get(f"{_DUBLIN}title", ""))


def _style_names(*roots: Any) -> dict[str, str]:
    """Name of a style -> its own name and that of the style that it is based on."""
    return {
        style.get(f"{_STYLE}name", ""): " ".join(
            (style.get(f"{_STYLE}name", ""), style.get(f"{_STYLE}parent-style-name", ""))
        )
        for root in roots
        if root is not None
        for style in root.iter(f"{_STYLE}style")
    }


class ListStyles:
    """Numbering of list levels."""

    def __init__(self, *roots: Any) -> None:
        self._levels = {
            (style.get(f"{_STYLE}name"), level.get(f"{TEXT}level")): level
            for root in roots
            if root is not None
            for style in root.iter(f"{TEXT}list-style")
            for level in style.iterfind(f"{TEXT}list-level-style-number")
        }

    def number(self, style: str, depth: int, count: int) -> tuple[str, str]:
        """(label, mark) of item `count` (from 1) of a list; empty for a bullet."""
        level = self._levels.get((style, str(depth)))
        if level is None or not (form := level.get(f"{_STYLE}num-format", "")):
            return "", ""
        label = item_number(count, form)
        prefix, suffix = (level.get(f"{_STYLE}num-{end}", "") for end in ("prefix", "suffix"))
        return label, f"{prefix}{label}{suffix}".strip()

    def start(self, style: str, depth: int) -> int:
        """Return the first number of a list style at `depth`."""
        level = self._levels.get((style, str(depth)))
        value = level.get(f"{TEXT}start-value", "1") if level is not None else "1"
        return int(value) if value.isdigit() else 1


class _Walker:
    """One pass over the blocks of a document.

    Args:
        lists: how lists are numbered.
        styles: name of a paragraph style -> its name and that of its parent.
    """

    def __init__(self, lists: ListStyles, styles: dict[str, str]) -> None:
        self.builder = TextBuilder()
        self._styles = styles
        self._code: list[str] = []
        self._lists = lists
        self._counts: dict[str, int] = {}
        """Of list id -> the last number, for lists that are continued."""
        self._notes = 0

    def walk(self, container: Any, depth: int = 0, style: str = "") -> None:
        """Append the blocks of a body, a section, a cell or a list item.

        Args:
            container: an element.
            depth: of the list that it lies in; 0 for none.
            style: the name of that list's style.
        """
        for element in container:
            tag = element.tag
            if tag != f"{TEXT}p":
                self._end_code()
            if tag == f"{TEXT}h":
                text = self._text(element)
                self.builder.heading(int(element.get(f"{TEXT}outline-level", "1")), text)
                self._attachments(element)
            elif tag == f"{TEXT}p":
                self._paragraph(element)
            elif tag == f"{TEXT}list":
                self._list(element, depth + 1, style)
            elif tag == f"{_TABLE}table":
                self._table(element)
            elif tag not in _SKIPPED and isinstance(tag, str):
                self.walk(element, depth, style)
        self._end_code()

    def _paragraph(self, element: Any) -> None:
        text = self._text(element)
        style = self._styles.get(element.get(f"{TEXT}style-name", ""), "")
        if _CODE.search(style):
            self._code.append(text)
            return
        self._end_code()
        if _QUOTATION.search(style) and text.strip():
            self.builder.open_quotation()
            self.builder.paragraph(text)
            self.builder.close_quotation()
        else:
            self.builder.paragraph(text)
        self._attachments(element)

    def _end_code(self) -> None:
        if self._code:
            self.builder.code("\n".join(self._code))
            self._code.clear()

    def headers_and_footers(self, styles: Any) -> None:
        """Append each text of page headers and footers once, under no heading."""
        seen: set[str] = set()
        for master in styles.iter(f"{_STYLE}master-page") if styles is not None else ():
            for part in master:
                if isinstance(part.tag, str) and part.tag.startswith(
                    (f"{_STYLE}header", f"{_STYLE}footer")
                ):
                    for paragraph in part.iter(f"{TEXT}p"):
                        text = one_line(self._text(paragraph))
                        if any(map(str.isalpha, text)) and text not in seen:
                            if not seen:
                                self.builder.end_section(1)
                            seen.add(text)
                            self.builder.paragraph(text)

    def _list(self, element: Any, depth: int, inherited: str) -> None:
        style = element.get(f"{TEXT}style-name") or inherited
        count = self._lists.start(style, depth) - 1
        continued = element.get(f"{TEXT}continue-list") or (
            style if element.get(f"{TEXT}continue-numbering") == "true" else ""
        )
        count = self._counts.get(continued, count)
        self.builder.open_list()
        for item in element:
            if item.tag not in (f"{TEXT}list-item", f"{TEXT}list-header"):
                continue
            value = item.get(f"{TEXT}start-value", "")
            count = int(value) if value.isdigit() else count + 1
            label, mark = self._lists.number(style, depth, count)
            self.builder.open_item(label, mark)
            self.walk(item, depth, style)
            self.builder.close_item()
        self.builder.close_list()
        for name in (style, element.get("{http://www.w3.org/XML/1998/namespace}id", "")):
            if name and depth == 1:
                self._counts[name] = count

    def _table(self, table: Any) -> None:
        rows, header_rows, cells = _grid(table, self._text)
        if not header_rows and first_row_is_header(rows):
            header_rows = 1
        if max(map(len, rows), default=0) > 1:
            merged = merge_header_rows(rows, header_rows)
            self.builder.table(merged, has_header=0 < header_rows < len(rows))
        else:
            for row in rows:
                self.builder.paragraph("".join(row))
        for cell in cells:
            for paragraph in _paragraphs(cell):
                self._attachments(paragraph)

    def _attachments(self, paragraph: Any) -> None:
        """Append text boxes and notes behind the paragraph that holds them."""
        for box in paragraph.iter(f"{_DRAW}text-box"):
            self.walk(box)
        for body in paragraph.iter(f"{TEXT}note-body"):
            self._notes += 1
            note = " ".join(self._text(inner) for inner in _paragraphs(body))
            self.builder.paragraph(f"Note {self._notes}: {note}")

    def _text(self, element: Any) -> str:
        return "".join(_pieces(element))


def _grid(table: Any, text_of: Callable[[Any], str]) -> tuple[list[list[str]], int, list[Any]]:
    """(cell texts by row, number of header rows, the cells themselves).

    A cell over several rows is repeated in each, one over several columns stands in the first.
    """
    rows: list[list[str]] = []
    carried: dict[int, tuple[int, str]] = {}
    header_rows = laid_out = 0
    cells: list[Any] = []
    for row, is_header in _rows(table):
        if is_header and header_rows == len(rows):
            header_rows += 1
        line: list[str] = []
        for cell in row.iterchildren(*_CELLS):
            left, text = carried.pop(len(line), (0, ""))
            if left and cell.tag == _CELLS[1]:
                if left > 1:
                    carried[len(line)] = (left - 1, text)
            else:
                text = one_line(" ".join(text_of(paragraph) for paragraph in _paragraphs(cell)))
                cells.append(cell)
                span = int(cell.get(f"{_TABLE}number-rows-spanned", "1"))
                if span > 1:
                    carried[len(line)] = (span - 1, text)
            repeat = int(cell.get(f"{_TABLE}number-columns-repeated", "1"))
            line += [text] * min(repeat, _MAX_COLUMNS - len(line))
        while line and not line[-1] and len(line) > max(map(len, rows), default=0):
            line.pop()
        rows.append(line)
        laid_out += len(line)
        if len(rows) >= _MAX_ROWS or laid_out > MAX_TABLE_CELLS:
            break
    return rows, header_rows, cells


def _pieces(root: Any) -> Iterator[str]:
    """The text of a paragraph, without notes and text boxes."""
    stack: list[Any] = [root]
    while stack:
        element = stack.pop()
        if isinstance(element, str):
            yield element
            continue
        tag = element.tag
        if element is not root and element.tail:
            stack.append(element.tail)
        if tag == f"{TEXT}s":
            yield " " * min(int(element.get(f"{TEXT}c", "1")), 1000)
        elif tag == f"{TEXT}tab":
            yield "\t"
        elif tag == f"{TEXT}line-break":
            yield "\n"
        elif isinstance(tag, str) and tag not in _SKIPPED and tag not in _ATTACHED:
            stack.extend(reversed(element))
            if element.text:
                stack.append(element.text)


def _rows(table: Any) -> Iterator[tuple[Any, bool]]:
    """(row, it is a header) with repeated rows that hold text repeated."""
    stack = [(child, False) for child in reversed(table)]
    while stack:
        element, is_header = stack.pop()
        if element.tag == f"{_TABLE}table-row":
            repeat = int(element.get(f"{_TABLE}number-rows-repeated", "1"))
            has_text = any(True for _ in _paragraphs(element))
            for _ in range(min(repeat, _MAX_ROWS) if has_text else 1):
                yield element, is_header
        elif element.tag == f"{_TABLE}table-header-rows":
            stack.extend((child, True) for child in reversed(element))
        elif element.tag in (f"{_TABLE}table-row-group", f"{_TABLE}table-rows"):
            stack.extend((child, is_header) for child in reversed(element))


def _paragraphs(container: Any) -> Iterator[Any]:
    yield from container.iter(f"{TEXT}p", f"{TEXT}h")
