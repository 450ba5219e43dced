"""What every parser returns: a document's text, its structure, its metadata and warnings."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from typing import Any, Final

from raglan.blocks import Block

_NEWLINES: Final = re.compile(r"\r\n?")
_UNSTORABLE: Final = re.compile(r"[\x00\ufeff]")
_SURROGATES: Final = re.compile(r"[\ud800-\udfff]")
_MAX_NAME_CHARS: Final = 300
"""Of a title or heading: what is longer is a paragraph in disguise."""


class Unparsable(Exception):
    """The document cannot be read; the message tells its owner why."""


@dataclass(frozen=True, slots=True)
class Source:
    """A document as it was submitted."""

    data: bytes
    filename: str = ""
    media_type: str = ""


@dataclass(frozen=True, slots=True)
class Heading:
    offset: int
    """Where its section begins in the text, in characters."""
    level: int
    """1 is outermost."""
    text: str


@dataclass(frozen=True, slots=True)
class ParsedDocument:
    title: str
    """Empty where the document names none."""
    text: str
    """What is stored: offsets of chunks and citations point into it."""
    headings: list[Heading] = field(default_factory=list)
    """The outline, by offset: the headings of the text, or those that the format keeps apart."""
    blocks: list[Block] = field(default_factory=list)
    """The structure of the text, in order."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """What the document says of itself, such as YAML front matter; JSON values."""
    warnings: list[str] = field(default_factory=list)
    """Sentences for the document's owner: what was lost, cut or replaced."""


class TextBuilder:
    """Puts a text together from blocks, with a blank line between, and remembers its headings."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._length = 0
        self._headings: list[Heading] = []

    def add(self, block: str, *, separator: str = "\n\n") -> None:
        """Append a block; an empty one is left out."""
        clean = normalise(block).strip()
        if not clean:
            return
        if self._parts:
            self._append(separator)
        self._append(clean)

    def section(self, level: int, heading: str) -> None:
        """The next block begins a section that is called `heading`."""
        if called := name(heading):
            offset = self._length + (2 if self._parts else 0)
            self._headings.append(Heading(offset, level, called))

    def heading(self, level: int, text: str) -> None:
        """Append a heading that is part of the text."""
        if one_line(text):
            self.section(level, text)
            self.add(one_line(text))

    def build(self, title: str = "") -> ParsedDocument:
        headings = [heading for heading in self._headings if heading.offset < self._length]
        return ParsedDocument(name(title), "".join(self._parts), headings)

    def _append(self, text: str) -> None:
        self._parts.append(text)
        self._length += len(text)


def normalise(text: str) -> str:
    """The one form in which text is stored: NFC, newlines as \\n, nothing a database refuses."""
    text = _UNSTORABLE.sub("", _NEWLINES.sub("\n", text))
    return unicodedata.normalize("NFC", _SURROGATES.sub("\ufffd", text))


def one_line(text: str) -> str:
    """`text` normalised, on one line."""
    return " ".join(normalise(text).split())


def name(text: str) -> str:
    """`text` as a title or heading: on one line, and cut where it is too long for one."""
    line = one_line(text)
    return line if len(line) <= _MAX_NAME_CHARS else line[: _MAX_NAME_CHARS - 1].rstrip() + "…"
