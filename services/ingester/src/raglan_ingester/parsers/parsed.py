"""Result of every parser: a document's text, structure, metadata and warnings."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from raglan.blocks import Block

if TYPE_CHECKING:
    from raglan_ingester.logs.entries import Log

MAX_TEXT_CHARS: Final = 64 * 1024 * 1024
"""Of a document: cells that span or repeat make gigabytes of text out of a few kilobytes."""
MAX_TABLE_CELLS: Final = 500_000
"""Of all tables of a document, with the blank cells that make their rows equally long."""

_NEWLINES: Final = re.compile(r"\r\n?")
_UNSTORABLE: Final = re.compile(r"[\x00\ufeff]")
_SURROGATES: Final = re.compile(r"[\ud800-\udfff]")
_MAX_NAME_CHARS: Final = 300
"""Of a title or heading: what is longer is a paragraph in disguise."""


class Unparsable(Exception):
    """The document cannot be read; the message explains why to its owner."""


@dataclass(frozen=True, slots=True)
class Source:
    """A document as it was submitted."""

    data: bytes
    filename: str = ""
    media_type: str = ""


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading with its section's offset."""

    offset: int
    """Offset of its section in the text, in characters."""
    level: int
    """1 is outermost."""
    text: str


@dataclass(frozen=True, slots=True)
class ParsedDocument:
    """Text and structure of a parsed document."""

    title: str
    """Empty where the document names none."""
    text: str
    """The stored text; offsets of chunks and citations refer to it."""
    headings: list[Heading] = field(default_factory=list)
    """The outline, by offset: the headings of the text, or those that the format keeps apart."""
    blocks: list[Block] = field(default_factory=list)
    """The structure of the text, in order."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """Metadata in the document itself, such as YAML front matter; JSON values."""
    warnings: list[str] = field(default_factory=list)
    """Sentences for the document's owner: what was lost, cut or replaced."""
    cuts: list[int] = field(default_factory=list)
    """Offsets of blocks or rows with which a chunk must begin, in order."""
    log: Log | None = None
    """Its entries, where it was read as a log."""


def normalise(text: str) -> str:
    r"""Return `text` in its stored form: NFC, newlines as \n, nothing a database refuses."""
    text = _UNSTORABLE.sub("", _NEWLINES.sub("\n", text))
    return unicodedata.normalize("NFC", _SURROGATES.sub("\ufffd", text))


def one_line(text: str) -> str:
    """`text` normalised, on one line."""
    return " ".join(normalise(text).split())


def name(text: str) -> str:
    """`text` as a title or heading: on one line, and cut where it is too long for one."""
    line = one_line(text)
    return line if len(line) <= _MAX_NAME_CHARS else line[: _MAX_NAME_CHARS - 1].rstrip() + "…"
