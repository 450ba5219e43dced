"""Org mode: outline, lists, tables and blocks; drawers, keywords and inline markup go."""

from __future__ import annotations

import re
from typing import Final

from raglan_ingester.parsers.decoding import decode_text
from raglan_ingester.parsers.line_markup import LineReader, split_row
from raglan_ingester.parsers.parsed import ParsedDocument, Source

_HEADING: Final = re.compile(
    r"(\*+)[ \t]+(?:(?:TODO|DONE|NEXT|WAITING|CANCELLED)[ \t]+)?(?:\[#[A-Z]\][ \t]*)?"
    r"(.*?)(?:[ \t]+:[\w@#%:]+:)?[ \t]*"
)
_KEYWORD: Final = re.compile(r"[ \t]*#\+(\w+):[ \t]*(.*)")
_BEGIN: Final = re.compile(r"[ \t]*#\+begin_(\w+)[ \t]*(\S*).*", re.IGNORECASE)
_DRAWER: Final = re.compile(r"[ \t]*:(\w[\w-]*):[ \t]*")
_PLANNING: Final = re.compile(r"[ \t]*(?:SCHEDULED|DEADLINE|CLOSED|CLOCK):.*")
_ITEM: Final = re.compile(
    r"([ \t]*)(?:[-+]|(?<=[ \t])\*|(\d+|[a-zA-Z])[.)])[ \t]+(?:\[@\d+\][ \t]*)?(?:\[[ X-]\][ \t]*)?"
    r"(.*)"
)
_TABLE: Final = re.compile(r"[ \t]*\|(.*)")
_RULE: Final = re.compile(r"[ \t]*\|[-+:|]*-[-+:|]*[ \t]*")
_FIXED: Final = re.compile(r"[ \t]*:(?: (.*)|$)")
_LINK: Final = re.compile(r"\[\[([^\]\n]+)\](?:\[([^\]\n]+)\])?\]")
_FOOTNOTE: Final = re.compile(r"\[fn:([\w-]*)\](.*)")
_FOOTNOTE_MARK: Final = re.compile(r"[ \t]?\[fn:[\w-]+\]")
_MARKUP: Final = re.compile(
    r"(?<![\w*/_=~+])([*/_=~+])(?=\S)([^\n]{1,300}?)(?<=\S)\1(?![\w*/_=~+])"
)
_SCRIPT: Final = re.compile(r"[\^_]\{([^{}\n]*)\}")


def parse(source: Source) -> ParsedDocument:
    """Read an Org document.

    Raises:
        Unparsable: it is empty or no text.
    """
    decoded = decode_text(source.data)
    reader = _OrgReader(decoded.text)
    reader.builder.warnings += decoded.warnings
    reader.run()
    return reader.builder.build(reader.title)


class _OrgReader(LineReader):
    """Reads line by line; each kind of line that opens a block has its branch."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.title = ""

    def line(self, line: str) -> None:
        if match := _HEADING.fullmatch(line):
            self.flush()
            self.builder.heading(len(match[1]), plain(match[2]))
        elif match := _BEGIN.fullmatch(line):
            self._block(match[1].lower(), match[2])
        elif match := _KEYWORD.fullmatch(line):
            self._keyword(match[1].lower(), match[2].strip())
        elif match := _DRAWER.fullmatch(line):
            self.flush()
            self.take_until(re.compile(r"[ \t]*:end:[ \t]*", re.IGNORECASE))
        elif _PLANNING.fullmatch(line) or line.startswith("# "):
            return
        elif match := _FOOTNOTE.fullmatch(line):
            self.flush()
            self.paragraph.append(f"Note {match[1]}: {match[2].strip()}")
        elif _TABLE.fullmatch(line):
            self._table(line)
        elif match := _ITEM.fullmatch(line):
            text = match[3].replace(" :: ", ": ")
            self.item(len(match[1].expandtabs()), match[2] or "", text)
        elif match := _FIXED.fullmatch(line):
            self.flush()
            lines = [match[1] or "", *self.take_while(_FIXED)]
            self.builder.code("\n".join(lines))
        else:
            self.text(line)

    def inline(self, text: str) -> str:
        return plain(text)

    def _keyword(self, name: str, value: str) -> None:
        if name == "title":
            self.title = self.title or plain(value)
        elif name in ("author", "date") and value:
            self.builder.metadata[name] = value
        elif name == "caption":
            self.flush()
            self.paragraph.append(value)
            self.flush()

    def _block(self, kind: str, argument: str) -> None:
        self.end_paragraph()
        lines = self.take_until(re.compile(rf"[ \t]*#\+end_{re.escape(kind)}[ \t]*", re.IGNORECASE))
        if kind in ("src", "example"):
            self.builder.code("\n".join(lines), argument if kind == "src" else "")
        elif kind == "comment":
            return
        elif kind == "quote":
            self.flush()
            self.builder.open_quotation()
            for part in re.split(r"\n\s*\n", "\n".join(lines)):
                self.builder.paragraph(plain(" ".join(part.split())))
            self.builder.close_quotation()
        else:
            for line in lines:
                self.text(line)
            self.end_paragraph()

    def _table(self, first: str) -> None:
        self.end_paragraph()
        lines = [first, *self.take_lines(_TABLE)]
        rules = [place for place, line in enumerate(lines) if _RULE.fullmatch(line)]
        rows = [split_row(line) for line in lines if not _RULE.fullmatch(line)]
        rows = [[plain(cell) for cell in row] for row in rows]
        self.builder.table(rows, has_header=1 in rules and len(rows) > 1)


def plain(text: str) -> str:
    """`text` without Org's inline markup."""
    text = _LINK.sub(lambda match: match[2] or match[1], text)
    text = _FOOTNOTE_MARK.sub("", text)
    text = _MARKUP.sub(r"\2", text)
    return _SCRIPT.sub(r"\1", text)
