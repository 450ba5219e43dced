"""Plain text: stored as it is; paragraphs, list items and underlined headings are its blocks."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from raglan.blocks import Block, BlockKind

from raglan_ingester.parsers.decoding import declared_in_media_type, decode_text
from raglan_ingester.parsers.parsed import Heading, ParsedDocument, Source, name
from raglan_ingester.parsers.text_builder import MAX_DEPTH

_MARK: Final = re.compile(r"(?:[-*+•◦▪‣]|(\d{1,3}|[a-z])[.)]|\((\d{1,3}|[a-z])\))[ \t]+(?=\S)")
_UNDERLINE: Final = re.compile(r"(={3,}|-{3,}|~{3,})[ \t]*$")
_UNDERLINE_LEVELS: Final = {"=": 1, "-": 2, "~": 3}
_LEAD_IN_CHARS: Final = 300


def parse(source: Source) -> ParsedDocument:
    """Read a plain text.

    Raises:
        Unparsable: it is empty or no text.
    """
    decoded = decode_text(source.data, declared_in_media_type(source.media_type))
    return replace(read_text(decoded.text), warnings=decoded.warnings)


def read_text(text: str) -> ParsedDocument:
    """Find paragraphs, list items and underlined headings in a text that is kept as it is."""
    reader = _Reader(text)
    reader.run()
    title = reader.headings[0].text if reader.headings and reader.headings[0].level == 1 else ""
    return ParsedDocument(title, text, reader.headings, reader.blocks)


class _Reader:
    """One pass over the lines."""

    def __init__(self, text: str) -> None:
        self.blocks: list[Block] = []
        self.headings: list[Heading] = []
        self._text = text
        self._start = self._end = 0
        """Of the paragraph or item that is open; start == end if none is."""
        self._item: tuple[int, int, str] | None = None
        """(offset, depth, label) of the open list item."""
        self._indents: list[int] = []
        """Of the open list items, outermost first."""
        self._parents: list[int] = []
        """Places of the open list items among the blocks, outermost first."""
        self._lead_ins: list[str] = []
        """Of the lists that are open, outermost first."""
        self._last_paragraph = ""

    def run(self) -> None:
        offset = 0
        lines = self._text.split("\n")
        for number, line in enumerate(lines):
            below = lines[number + 1] if number + 1 < len(lines) else ""
            self._line(offset, line, below)
            offset += len(line) + 1
        self._close()

    def _line(self, offset: int, line: str, below: str) -> None:
        stripped = line.strip()
        indent = len(line) - len(line.lstrip())
        if not stripped:
            self._close()
        elif (underline := _UNDERLINE.fullmatch(below.strip())) and self._start == self._end:
            self._heading(offset + indent, stripped, _UNDERLINE_LEVELS[underline[1][0]])
        elif _UNDERLINE.fullmatch(stripped) and self._start == self._end:
            return
        elif mark := _MARK.match(line, indent):
            if self._may_begin_item(stripped, mark):
                self._open_item(offset + indent, indent, mark)
                self._start = offset + mark.end()
            elif self._start == self._end:
                self._start = offset + indent
            self._end = offset + len(line.rstrip())
        else:
            if self._start == self._end:
                self._start = offset + indent
                if indent <= (self._indents[-1] if self._indents else -1):
                    self._end_lists()
            self._end = offset + len(line.rstrip())

    def _may_begin_item(self, line: str, mark: re.Match[str]) -> bool:
        """A dash or number in the middle of a paragraph is none, unless one stands above."""
        is_open_paragraph = self._start < self._end and self._item is None
        before = self._text[self._start : self._end].rstrip()
        return not is_open_paragraph or before.endswith(":") or line.startswith("•")

    def _open_item(self, offset: int, indent: int, mark: re.Match[str]) -> None:
        self._close()
        while self._indents and self._indents[-1] >= indent:
            self._indents.pop()
            self._parents.pop()
        if len(self._indents) == MAX_DEPTH:
            self._indents.pop()
            self._parents.pop()
        self._indents.append(indent)
        depth = len(self._indents)
        if depth > len(self._lead_ins):
            is_introduced = depth > 1 or self._last_paragraph.endswith(":")
            self._lead_ins.append(self._last_paragraph if is_introduced else "")
        del self._lead_ins[depth:]
        self._item = (offset, depth, mark[1] or mark[2] or "")

    def _end_lists(self) -> None:
        self._indents.clear()
        self._parents.clear()
        self._lead_ins.clear()

    def _close(self) -> None:
        """End the open paragraph, and the item that it belongs to."""
        if self._start < self._end:
            if self._item is not None:
                offset, depth, label = self._item
                self.blocks.append(
                    Block(
                        BlockKind.LIST_ITEM,
                        offset,
                        self._end,
                        level=depth,
                        label=label,
                        lead_in=self._lead_ins[-1],
                    )
                )
                self._parents.append(len(self.blocks) - 1)
            self.blocks.append(Block(BlockKind.PARAGRAPH, self._start, self._end))
            # Items cover what is indented below them.
            for parent in self._parents:
                self.blocks[parent] = replace(self.blocks[parent], end=self._end)
            self._last_paragraph = " ".join(self._text[self._start : self._end].split())
            self._last_paragraph = self._last_paragraph[-_LEAD_IN_CHARS:]
        self._item = None
        self._start = self._end

    def _heading(self, offset: int, text: str, level: int) -> None:
        self._end_lists()
        self.blocks.append(Block(BlockKind.HEADING, offset, offset + len(text), level=level))
        self.headings.append(Heading(offset, level, name(text)))
