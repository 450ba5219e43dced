"""Shared parts of the readers of line-oriented markup (Org, AsciiDoc): lines, paragraphs, lists."""

from __future__ import annotations

import re

from raglan_ingester.parsers.text_builder import TextBuilder


class LineReader:
    """Goes through lines and collects paragraphs; a subclass says what each line is."""

    def __init__(self, text: str) -> None:
        self.builder = TextBuilder()
        self.paragraph: list[str] = []
        """Lines of the paragraph that is open."""
        self._lines = text.split("\n")
        self._at = 0
        self._items: list[int] = []
        """Indents of the open list items, outermost first."""
        self._has_blank = False
        """A blank line stands before the present one."""
        self._pending: tuple[int, str, str] | None = None
        """(depth, label, mark) of the item whose text is being collected."""

    def run(self) -> None:
        """Read all lines."""
        while self._at < len(self._lines):
            line = self._lines[self._at]
            self._at += 1
            if line.strip():
                self.line(line)
                self._has_blank = False
            else:
                self.end_paragraph()
                self._has_blank = True
        self.flush()

    def line(self, line: str) -> None:
        """Take a line that is not blank."""
        raise NotImplementedError

    def inline(self, text: str) -> str:
        """The text of a whole paragraph without inline markup."""
        return text

    def text(self, line: str) -> None:
        """Add a line to the open paragraph; one that is not indented ends the lists."""
        indent = len(line) - len(line.lstrip())
        if not self.paragraph and self._items and indent <= self._items[-1] and self._has_blank:
            self.flush()
        self.paragraph.append(line.strip())

    def item(self, indent: int, label: str, text: str, mark: str = "") -> None:
        """Begin a list item."""
        self.end_paragraph()
        while self._items and self._items[-1] >= indent:
            self._items.pop()
        self._items.append(indent)
        self._pending = (len(self._items), label, mark)
        self.paragraph.append(text.strip())

    def end_paragraph(self) -> None:
        """Write the open paragraph or item; lists stay open."""
        text = self.inline(" ".join(part for part in self.paragraph if part))
        self.paragraph.clear()
        if self._pending is not None:
            depth, label, mark = self._pending
            self._pending = None
            self.builder.list_item(text, depth=depth, label=label, mark=mark)
        elif text:
            self.builder.paragraph(text)

    def flush(self) -> None:
        """Write the open paragraph and end all lists."""
        self.end_paragraph()
        self._items.clear()
        self.builder.end_lists()

    def take_until(self, end: re.Pattern[str]) -> list[str]:
        """The lines up to the one that matches `end`, which is dropped; all if none does."""
        start = self._at
        while self._at < len(self._lines):
            self._at += 1
            if end.fullmatch(self._lines[self._at - 1]):
                return self._lines[start : self._at - 1]
        return self._lines[start:]

    def take_lines(self, pattern: re.Pattern[str]) -> list[str]:
        """The next lines, as long as they match."""
        start = self._at
        while self._at < len(self._lines) and pattern.fullmatch(self._lines[self._at]):
            self._at += 1
        return self._lines[start : self._at]

    def take_while(self, pattern: re.Pattern[str]) -> list[str]:
        """Take the next lines while they match `pattern`; return group 1 of each."""
        found = (pattern.fullmatch(line) for line in self.take_lines(pattern))
        return [match[1] or "" for match in found if match is not None]


def split_row(line: str) -> list[str]:
    """The cells of `| a | b |`."""
    return [cell.strip() for cell in line.strip().strip("|").split("|")]
