"""RTF: paragraphs, headings by style, lists, tables, notes, text boxes, page headers."""

from __future__ import annotations

import re
from typing import Final

from raglan_ingester.parsers.parsed import ParsedDocument, Source, Unparsable, one_line
from raglan_ingester.parsers.rtf_tokens import RtfParagraph, RtfTokens
from raglan_ingester.parsers.table_headers import first_row_is_header
from raglan_ingester.parsers.text_builder import TextBuilder

_MARK: Final = re.compile(
    r"\s*(?:([•◦▪·‣●○■–—*\uf0b7\uf0a7-]|o(?=\t))|(\(?(?:\d{1,3}|[a-zA-Z]{1,5})[.)]))\t\s*"  # noqa: RUF001
)


def parse(source: Source) -> ParsedDocument:
    """Read an RTF document.

    Raises:
        Unparsable: it is empty or no RTF.
    """
    if not source.data.strip():
        raise Unparsable("The file is empty.")
    if not source.data.lstrip().startswith(b"{\\rtf"):
        raise Unparsable("The file is not an RTF document, or it is broken.")
    tokens = RtfTokens(source.data)
    writer = _Writer()
    for paragraph in tokens.paragraphs():
        writer.add(paragraph)
    writer.end()
    if tokens.author:
        writer.builder.metadata["author"] = one_line(tokens.author)
    if tokens.furniture:
        writer.builder.end_section(1)
        for text in dict.fromkeys(map(one_line, tokens.furniture)):
            if any(map(str.isalpha, text)):
                writer.builder.paragraph(text)
    return writer.builder.build(tokens.title)


class _Writer:
    """Hands paragraphs to the builder; those of table cells row by row."""

    def __init__(self) -> None:
        self.builder = TextBuilder()
        self._rows: list[list[str]] = []
        self._indents: list[int] = []
        self._notes = 0
        self._waiting: list[str] = []
        """Notes of the table that is open."""

    def add(self, paragraph: RtfParagraph) -> None:
        """Append a paragraph, or a row of a table."""
        if paragraph.cells is not None:
            self._rows.append([one_line(cell) for cell in paragraph.cells])
            self._waiting += paragraph.notes
            return
        self._end_table()
        text = paragraph.text
        if paragraph.level and text.strip():
            self._end_lists()
            self.builder.heading(paragraph.level, text)
        elif match := _MARK.match(paragraph.mark or text):
            if not paragraph.mark:
                text = text[match.end() :]
            self._item(text, paragraph.indent, match[2] or "")
        elif text.strip():
            self._end_lists()
            self.builder.paragraph(text)
        self._add_notes(paragraph.notes)

    def end(self) -> None:
        """Write what is still open."""
        self._end_table()
        self._end_lists()

    def _item(self, text: str, indent: int, mark: str) -> None:
        while self._indents and self._indents[-1] > indent:
            self._indents.pop()
        if not self._indents or self._indents[-1] < indent:
            self._indents.append(indent)
        label = mark.strip("().")
        self.builder.list_item(text, depth=len(self._indents), label=label, mark=mark)

    def _end_lists(self) -> None:
        self._indents.clear()
        self.builder.end_lists()

    def _end_table(self) -> None:
        if not self._rows:
            return
        self._end_lists()
        if max(map(len, self._rows)) > 1:
            self.builder.table(self._rows, has_header=first_row_is_header(self._rows))
        else:
            for row in self._rows:
                self.builder.paragraph("".join(row))
        self._rows = []
        self._add_notes(self._waiting)
        self._waiting = []

    def _add_notes(self, notes: list[str]) -> None:
        for note in notes:
            self._notes += 1
            self._end_lists()
            self.builder.paragraph(f"Note {self._notes}: {one_line(note)}")
