"""Word documents: everything that Word shows, in its order.

python-docx opens the package; its paragraphs and cells leave out content controls, insertions,
text boxes, fields, notes and list numbers, so the XML is walked here.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import Any, Final

from docx import Document
from docx.opc.constants import RELATIONSHIP_TYPE
from docx.opc.exceptions import OpcError
from lxml import etree

from raglan_ingester.parsers.archives import open_archive
from raglan_ingester.parsers.docx_styles import Numbering, Styles
from raglan_ingester.parsers.docx_text import WORD, ParagraphText, attribute, is_on, read_paragraph
from raglan_ingester.parsers.parsed import (
    MAX_TABLE_CELLS,
    ParsedDocument,
    Source,
    Unparsable,
    one_line,
)
from raglan_ingester.parsers.table_headers import first_row_is_header, merge_header_rows
from raglan_ingester.parsers.text_builder import TextBuilder

_KIND: Final = "a Word document (docx)"
_MAX_COLUMNS: Final = 500
_PAGE_NUMBER: Final = re.compile(r"\W*(?:\w+\W+)?\d*(?:\W+(?:\w+\W+)?\d*)?\W*")
_HEADER_PARTS: Final = (RELATIONSHIP_TYPE.HEADER, RELATIONSHIP_TYPE.FOOTER)
_TITLE_PLACEHOLDERS: Final = ("word document", "untitled", "unbenannt")


def parse(source: Source) -> ParsedDocument:
    """Read a Word document.

    Raises:
        Unparsable: it is no docx file, broken, or a zip bomb.
    """
    open_archive(source.data, _KIND).close()
    try:
        document = Document(io.BytesIO(source.data))
    except (OpcError, KeyError, ValueError, etree.XMLSyntaxError):
        raise Unparsable(f"The file is not {_KIND}, or it is broken.") from None
    walker = _Walker(document.part)
    walker.walk(document.element.body)
    walker.headers_and_footers()
    properties = document.core_properties
    if properties.author and properties.author != "python-docx":
        walker.builder.metadata["author"] = properties.author
    title = one_line(properties.title or "")
    return walker.builder.build("" if title.lower() in _TITLE_PLACEHOLDERS else title)


class _Walker:
    """One pass over the blocks of a document."""

    def __init__(self, part: Any) -> None:
        self.builder = TextBuilder()
        self._part = part
        self._styles = Styles(_root(part, RELATIONSHIP_TYPE.STYLES))
        self._numbering = Numbering(_root(part, RELATIONSHIP_TYPE.NUMBERING))
        self._notes = {
            **_notes(_root(part, RELATIONSHIP_TYPE.FOOTNOTES), "footnote"),
            **_notes(_root(part, RELATIONSHIP_TYPE.ENDNOTES), "endnote"),
        }
        self._note_count = 0
        self._code: list[str] = []
        self._list_id = ""
        """Of the last item of depth 1."""

    def walk(self, container: Any) -> None:
        """Append the blocks of a body, a cell, a text box or a note."""
        for block in _blocks(container):
            if block.tag == f"{WORD}tbl":
                self._end_run()
                self._table(block)
            else:
                self._paragraph(block)
        self._end_run()

    def headers_and_footers(self) -> None:
        """Append each text of page headers and footers once, under no heading."""
        seen: set[str] = set()
        for relation in self._part.rels.values():
            if relation.reltype in _HEADER_PARTS and not relation.is_external:
                for block in _blocks(etree.fromstring(relation.target_part.blob)):
                    text = one_line(_flat_text(block))
                    if text and text not in seen and not _PAGE_NUMBER.fullmatch(text):
                        if not seen:
                            self.builder.end_section(1)
                        seen.add(text)
                        self.builder.paragraph(text)

    def _paragraph(self, paragraph: Any) -> None:
        found = read_paragraph(paragraph)
        chain = self._styles.chain(paragraph)
        if self._styles.is_code(chain) and found.text:
            self.builder.end_lists()
            self._code.append(found.text)
            return
        level = self._styles.heading_level(chain)
        number = self._numbering.number(chain) if found.text.strip() else None
        if level or number is None:
            self._end_run()
        if level:
            mark = f"{number.mark} " if number and number.mark else ""
            self.builder.heading(level, mark + found.text)
        elif number is not None:
            self._end_code()
            if number.depth == 1 and number.list_id != self._list_id:
                self.builder.end_lists()
                self._list_id = number.list_id
            self.builder.list_item(
                found.text, depth=number.depth, label=number.label, mark=number.mark
            )
        elif self._styles.is_quotation(chain):
            self.builder.open_quotation()
            self.builder.paragraph(found.text)
            self.builder.close_quotation()
        else:
            self.builder.paragraph(found.text)
        self._attachments(found)

    def _attachments(self, found: ParagraphText) -> None:
        """Append text boxes and notes behind the paragraph that holds them."""
        if found.boxes or found.notes:
            self._end_run()
        for box in found.boxes:
            self.walk(box)
        for note in found.notes:
            if text := self._notes.pop(note, ""):
                self._note_count += 1
                self.builder.paragraph(f"Note {self._note_count}: {text}")

    def _table(self, table: Any) -> None:
        rows = list(_rows(table))
        is_layout = table.find(f".//{WORD}tc//{WORD}tbl") is not None
        if is_layout or max((len(row) for row, _ in rows), default=0) < 2:
            for row, _ in rows:
                for cell in row:
                    self.walk(cell)
            return
        grid, header_rows, found = _grid(rows)
        has_style_header = attribute(table.find(f"{WORD}tblPr/{WORD}tblLook"), "firstRow") != "0"
        if not header_rows and has_style_header and first_row_is_header(grid):
            header_rows = 1
        self.builder.table(
            merge_header_rows(grid, header_rows), has_header=0 < header_rows < len(grid)
        )
        for paragraph in found:
            self._attachments(paragraph)

    def _end_run(self) -> None:
        self._end_code()
        self.builder.end_lists()

    def _end_code(self) -> None:
        if self._code:
            self.builder.code("\n".join(self._code))
            self._code.clear()


def _blocks(container: Any) -> Iterator[Any]:
    """Paragraphs and tables of a container, those in content controls and insertions too."""
    stack = list(reversed(container))
    while stack:
        element = stack.pop()
        if element.tag in (f"{WORD}p", f"{WORD}tbl"):
            yield element
        elif element.tag in (f"{WORD}sdt", f"{WORD}sdtContent", f"{WORD}customXml", f"{WORD}ins"):
            stack.extend(reversed(element))


def _rows(table: Any) -> Iterator[tuple[list[Any], bool]]:
    """(cells, the row is a header) of each row."""
    for row in _inside(table, "tr"):
        if row.find(f"{WORD}trPr/{WORD}del") is None:
            is_header = is_on(row.find(f"{WORD}trPr/{WORD}tblHeader"))
            yield list(_inside(row, "tc")), is_header


def _inside(element: Any, name: str) -> Iterator[Any]:
    """Children of that name, those in content controls too."""
    stack = list(reversed(element))
    while stack:
        child = stack.pop()
        if child.tag == WORD + name:
            yield child
        elif child.tag in (f"{WORD}sdt", f"{WORD}sdtContent", f"{WORD}customXml"):
            stack.extend(reversed(child))


def _grid(rows: list[tuple[list[Any], bool]]) -> tuple[list[list[str]], int, list[ParagraphText]]:
    """(cell texts by row, number of header rows, what hangs on the paragraphs).

    A cell merged over rows is repeated in each; one merged over columns stands in the first, in
    a header in all.
    """
    grid: list[list[str]] = []
    header_rows = laid_out = 0
    found: list[ParagraphText] = []
    for cells, is_header in rows:
        if is_header and header_rows == len(grid):
            header_rows += 1
        line: list[str] = []
        for cell in cells:
            text = _cell_text(cell, found)
            merged = cell.find(f"{WORD}tcPr/{WORD}vMerge")
            if merged is not None and attribute(merged, "val") != "restart" and grid:
                text = grid[-1][len(line)] if len(line) < len(grid[-1]) else ""
            span = attribute(cell.find(f"{WORD}tcPr/{WORD}gridSpan"), "val")
            columns = min(int(span), _MAX_COLUMNS) if span.isdigit() else 1
            line += [text, *[text if is_header else ""] * (columns - 1)]
        grid.append(line[:_MAX_COLUMNS])
        laid_out += len(grid[-1])
        if laid_out > MAX_TABLE_CELLS:  # the builder says that it is too much
            break
    return grid, header_rows, found


def _cell_text(cell: Any, found: list[ParagraphText]) -> str:
    texts = []
    for block in _blocks(cell):
        paragraph = read_paragraph(block)
        found.append(paragraph)
        texts.append(paragraph.text)
    return one_line(" ".join(texts))


def _flat_text(block: Any) -> str:
    if block.tag == f"{WORD}p":
        paragraph = read_paragraph(block)
        boxes = (_flat_text(inner) for box in paragraph.boxes for inner in _blocks(box))
        return " ".join([paragraph.text, *boxes])
    return " ".join(read_paragraph(paragraph).text for paragraph in block.iter(f"{WORD}p"))


def _notes(root: Any, kind: str) -> dict[tuple[str, str], str]:
    if root is None:
        return {}
    return {
        (kind, attribute(note, "id")): one_line(" ".join(map(_flat_text, _blocks(note))))
        for note in root.iterfind(WORD + kind)
        if attribute(note, "type") in ("", "normal")
    }


def _root(part: Any, reltype: str) -> Any:
    """The XML of the part that `part` names by this kind of relation; None if there is none."""
    for relation in part.rels.values():
        if relation.reltype == reltype and not relation.is_external:
            try:
                return etree.fromstring(relation.target_part.blob)
            except etree.XMLSyntaxError:
                return None
    return None
