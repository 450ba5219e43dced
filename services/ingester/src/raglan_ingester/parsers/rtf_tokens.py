"""The control words of RTF, read into paragraphs and table rows with what is known of each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final

_TOKEN: Final = re.compile(
    rb"\\'([0-9a-fA-F]{2})|\\([a-zA-Z]{1,32})(-?\d{1,10})? ?|\\([^a-zA-Z'])|([{}])|([^\\{}\r\n]+)"
)
_CHARACTERS: Final = {
    "emdash": "—",
    "endash": "–",  # noqa: RUF001
    "lquote": "‘",  # noqa: RUF001
    "rquote": "’",  # noqa: RUF001
    "ldblquote": "“",
    "rdblquote": "”",
    "bullet": "•",
    "tab": "\t",
    "line": "\n",
    "emspace": " ",
    "enspace": " ",
    "qmspace": " ",
}
_SYMBOLS: Final = {"~": " ", "_": "-", "\n": "\n", "\r": "\n"}
_LITERAL: Final = "\\{}"
_CHARSETS: Final = {
    77: "mac-roman",
    128: "cp932",
    129: "cp949",
    130: "johab",
    134: "gb18030",
    136: "big5",
    161: "cp1253",
    162: "cp1254",
    163: "cp1258",
    177: "cp1255",
    178: "cp1256",
    186: "cp1257",
    204: "cp1251",
    222: "cp874",
    238: "cp1250",
}
_DESTINATIONS: Final = {
    "fonttbl": "fonttbl",
    "stylesheet": "stylesheet",
    "info": "info",
    "title": "title",
    "author": "author",
    "footnote": "footnote",
    "listtext": "listtext",
    "pntext": "listtext",
    "shptxt": "body",
    "shppict": "optional",
    "shpinst": "optional",
}
_SKIPPED_NAMES: Final = """
aftnsep aftnsepc annotation atnauthor atnid atrfend atrfstart bkmkend bkmkstart colorschememapping
colortbl datastore docvar filetbl fldinst ftnsep ftnsepc generator latentstyles listoverridetable
listtable nonshppict objdata object pgptbl pict private revtbl rsidtbl sp tc template themedata
userprops wgrffmtfilter xe xmlnstbl
"""
_SKIPPED: Final = frozenset(_SKIPPED_NAMES.split())
_FURNITURE: Final = frozenset(
    f"{name}{pages}" for name in ("header", "footer") for pages in ("", "l", "r", "f")
)
_HEADING: Final = re.compile(r"heading (\d)", re.IGNORECASE)
_MAX_DEPTH: Final = 2000


@dataclass(slots=True)
class RtfParagraph:
    """A paragraph, or a row of a table."""

    text: str = ""
    cells: list[str] | None = None
    """Of a row of a table."""
    level: int = 0
    """Of a heading 1 to 9."""
    mark: str = ""
    """The number or bullet of a list item, with a tab behind it."""
    indent: int = 0
    """In twips."""
    notes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _State:
    """State that a group inherits and may change."""

    destination: str = "body"
    encoding: str = "cp1252"
    unicode_skip: int = 1
    is_hidden: bool = False
    is_deleted: bool = False


class RtfTokens:
    """Goes once through the tokens of a file."""

    def __init__(self, data: bytes) -> None:
        self.title = ""
        self.author = ""
        self.furniture: list[str] = []
        """The texts of page headers and footers."""
        self._data = data
        self._encoding = "cp1252"
        self._state = _State()
        self._stack: list[_State] = []
        self._texts: dict[str, list[str]] = {}
        self._bytes = bytearray()
        """Of the text that is not decoded yet."""
        self._fonts: dict[int, str] = {}
        self._font = 0
        self._styles: dict[int, int] = {}
        """Style number -> level of heading."""
        self._style = 0
        self._skip = 0
        """Characters left to skip behind a Unicode character."""
        self._current = RtfParagraph()
        self._cells: list[str] = []
        self._in_table = False

    def paragraphs(self) -> Iterator[RtfParagraph]:
        """The paragraphs and rows of the body, text boxes among them."""
        for token in _TOKEN.finditer(self._data):
            code, word, number, symbol, brace, text = token.groups()
            if text is not None:
                self._add_bytes(text)
            elif code is not None:
                self._add_bytes(bytes((int(code, 16),)))
            elif brace == b"{":
                self._open()
            elif brace == b"}":
                self._close()
            elif symbol is not None:
                self._symbol(symbol.decode("latin-1"))
            elif word is not None:
                value = int(number) if number else None
                yield from self._word(word.decode("ascii"), value)
        yield from self._end_paragraph()

    def _open(self) -> None:
        self._decode()
        if len(self._stack) < _MAX_DEPTH:
            self._stack.append(self._state)
            self._state = replace(self._state)

    def _close(self) -> None:
        self._decode()
        if not self._stack:
            return
        ended, self._state = self._state, self._stack.pop()
        if ended.destination == self._state.destination:
            return
        text = "".join(self._texts.pop(ended.destination, ()))
        if ended.destination == "footnote":
            self._current.notes.append(text)
        elif ended.destination == "listtext":
            self._current.mark = text if text.endswith("\t") else f"{text}\t"
        elif ended.destination == "furniture":
            self.furniture.append(text)
        elif ended.destination == "title":
            self.title = text
        elif ended.destination == "author":
            self.author = text
        elif ended.destination == "style" and (match := _HEADING.search(text)):
            self._styles[self._style] = int(match[1])

    def _symbol(self, symbol: str) -> None:
        if symbol == "*":
            # A destination that old readers may skip: known ones change this by their name.
            self._state.destination = "optional"
        elif symbol in _LITERAL:
            self._add_bytes(symbol.encode())
        elif symbol in _SYMBOLS:
            self._add(_SYMBOLS[symbol])

    def _word(self, word: str, value: int | None) -> Iterator[RtfParagraph]:
        self._decode()
        if word == "u" and value is not None:
            self._add(chr(value % 0x10000))
            self._skip = self._state.unicode_skip
        elif word in _CHARACTERS:
            self._add(_CHARACTERS[word])
        elif word in ("par", "sect", "page") and self._state.destination == "body":
            yield from self._end_paragraph()
        elif word in ("cell", "nestcell", "row", "nestrow") and self._state.destination == "body":
            yield from self._table(word)
        elif word == "par":
            self._add("\n")
        else:
            self._property(word, value)
            self._destination(word)

    def _table(self, word: str) -> Iterator[RtfParagraph]:
        if word.endswith("cell"):
            texts = self._texts.pop("body", [])
            self._cells.append(" ".join([*self._texts.pop("cell", []), "".join(texts)]))
        elif self._cells:
            row = RtfParagraph(cells=self._cells, notes=self._current.notes)
            self._cells, self._current = [], RtfParagraph()
            yield row

    def _end_paragraph(self) -> Iterator[RtfParagraph]:
        self._decode()
        text = "".join(self._texts.pop("body", ()))
        if self._in_table:
            self._texts.setdefault("cell", []).append(text)
            return
        current, self._current = self._current, RtfParagraph()
        self._current.level, self._current.indent = current.level, current.indent
        current.text = text
        yield current

    def _property(self, word: str, value: int | None) -> None:
        state = self._state
        if word == "s" and value is not None:
            self._style = value
            if state.destination == "body":
                self._current.level = self._styles.get(value, 0)
            elif state.destination in ("stylesheet", "style"):
                state.destination = "style"
        elif word in ("v", "plain"):
            state.is_hidden = word == "v" and value != 0
        elif word == "deleted":
            state.is_deleted = value != 0
        elif word == "uc":
            state.unicode_skip = max(0, value or 0)
        else:
            self._paragraph_property(word, value)
            self._encoding_property(word, value)

    def _paragraph_property(self, word: str, value: int | None) -> None:
        if word == "pard":
            self._in_table = False
            self._current.level = self._current.indent = 0
        elif word in ("intbl", "itap"):
            self._in_table = value != 0
        elif word == "outlinelevel" and value is not None:
            self._current.level = value + 1 if value < 9 else 0
        elif word == "li":
            self._current.indent = value or 0

    def _encoding_property(self, word: str, value: int | None) -> None:
        state = self._state
        if word == "ansicpg" and value:
            state.encoding = self._encoding = _known(f"cp{value}")
        elif word == "mac":
            state.encoding = self._encoding = "mac-roman"
        elif word == "f" and value is not None:
            self._font = value
            if state.destination != "fonttbl":
                state.encoding = self._fonts.get(value) or self._encoding
        elif word == "fcharset" and state.destination == "fonttbl":
            self._fonts[self._font] = _CHARSETS.get(value or 0, "")

    def _destination(self, word: str) -> None:
        state = self._state
        if state.destination == "skip":
            return
        if word in _SKIPPED:
            state.destination = "skip"
        elif word in _FURNITURE:
            state.destination = "furniture"
        elif word not in ("title", "author") or state.destination == "info":
            state.destination = _DESTINATIONS.get(word, state.destination)

    def _add_bytes(self, data: bytes) -> None:
        if self._skip:
            dropped = min(self._skip, len(data))
            self._skip -= dropped
            data = data[dropped:]
        self._bytes += data

    def _decode(self) -> None:
        if self._bytes:
            data, self._bytes = bytes(self._bytes), bytearray()
            self._add(data.decode(self._state.encoding, errors="replace"))

    def _add(self, text: str) -> None:
        state = self._state
        if self._bytes:
            self._decode()
        if state.is_hidden or state.is_deleted:
            return
        if state.destination not in ("skip", "optional", "fonttbl", "stylesheet", "info"):
            self._texts.setdefault(state.destination, []).append(text)


def _known(encoding: str) -> str:
    try:
        "".encode(encoding)
    except LookupError:
        return "cp1252"
    return encoding
