"""AsciiDoc: sections, lists, tables and delimited blocks; attributes and inline markup go."""

from __future__ import annotations

import re
from typing import Final

from raglan_ingester.parsers.decoding import decode_text
from raglan_ingester.parsers.line_markup import LineReader
from raglan_ingester.parsers.parsed import MAX_TABLE_CELLS, ParsedDocument, Source
from raglan_ingester.parsers.table_headers import first_row_is_header

_HEADING: Final = re.compile(r"(={1,6}|#{1,6})[ \t]+(\S.*?)(?:[ \t]+\1)?[ \t]*")
_ATTRIBUTE: Final = re.compile(r":(!?[\w-]+!?):[ \t]*(.*)")
_COMMENT: Final = re.compile(r"//(?!/).*")
_BLOCK_LIST: Final = re.compile(r"\[([^\[\]]*)\][ \t]*")
_ANCHOR: Final = re.compile(r"\[\[[^\]]+\]\][ \t]*")
_TITLE: Final = re.compile(r"\.([^\s.].*)")
_FENCE: Final = re.compile(r"(-{4,}|\.{4,}|_{4,}|={4,}|\*{4,}|\+{4,}|/{4,}|--|```\w*)[ \t]*")
_TABLE: Final = re.compile(r"([|,:!])={3,}[ \t]*")
_ITEM: Final = re.compile(r"[ \t]*(\*{1,5}|-|\.{1,5}|(\d+)\.)[ \t]+(?:\[[ xX*]\][ \t]*)?(\S.*)")
_CALLOUT: Final = re.compile(r"<(\d+|\.)>[ \t]+(.*)")
_TERM: Final = re.compile(r"[ \t]*(\S.*?)(:{2,4}|;;)(?:[ \t]+(.*))?")
_ADMONITION: Final = re.compile(r"(NOTE|TIP|IMPORTANT|WARNING|CAUTION):[ \t]+(.*)")
_DIRECTIVE: Final = re.compile(r"(?:include|image|video|audio|ifdef|ifndef|ifeval|endif|toc)::.*")
_CELL: Final = re.compile(r"(?:^|(?<=\s))(\d*(?:\.\d+)?[+*])?([<^>.]*[aehlmsdv]?)(?<!\\)\|")
_LINK: Final = re.compile(
    r"((?:https?://|ftp://|link:|xref:|mailto:)[^\s\[\]]{1,2000})\[([^\]\n]*)\]"
)
_REFERENCE: Final = re.compile(r"<<([^,>\n]+)(?:,([^>\n]+))?>>")
_ATTRIBUTE_USE: Final = re.compile(r"\{([\w-]+)\}")
_CHARACTERS: Final = {
    "vbar": "|",
    "plus": "+",
    "asterisk": "*",
    "nbsp": " ",
    "sp": " ",
    "empty": "",
    "blank": "",
    "apos": "'",
    "backtick": "`",
    "startsb": "[",
    "endsb": "]",
    "lt": "<",
    "gt": ">",
    "amp": "&",
}
"""Attributes that AsciiDoc itself defines."""
_PASS: Final = re.compile(r"(\+{1,3})(?=\S)([^\n]{1,200}?)(?<=\S)\1")
_FOOTNOTE: Final = re.compile(r"[ \t]*footnote:[\w-]*\[([^\]\n]*)\]")
_MACRO: Final = re.compile(r"(?:image|icon|anchor|indexterm2?):[^\[\s]*\[([^\]\n]*)\]")
_MARKUP: Final = re.compile(
    r"(?<![\w*_`#+])(\*\*|__|``|##|[*_`#+])(?=\S)(.{1,300}?)(?<=\S)\1(?![\w])"
)
_SCRIPT: Final = re.compile(r"([~^])(\S{1,60}?)\1")
_CONTINUATION: Final = "+"
_CODE_FENCES: Final = ("-", ".", "`")
_MAX_SPAN: Final = 1000


def parse(source: Source) -> ParsedDocument:
    """Read an AsciiDoc document.

    Raises:
        Unparsable: it is empty or no text.
    """
    decoded = decode_text(source.data)
    reader = _AsciiDocReader(decoded.text)
    reader.builder.warnings += decoded.warnings
    reader.run()
    return reader.builder.build(reader.title)


class _AsciiDocReader(LineReader):
    """Reads line by line; each kind of line that opens a block has its branch."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.title = ""
        self._attributes: dict[str, str] = dict(_CHARACTERS)
        self._block: list[str] = []
        """The words of the attribute list above the next block."""
        self._marks: list[str] = []
        """Marks of the open lists: a new one is one level deeper."""
        self._counts: dict[int, int] = {}

    def line(self, line: str) -> None:
        if line.strip() == _CONTINUATION:
            self.end_paragraph()
        elif self._is_plumbing(line):
            return
        elif (match := _HEADING.fullmatch(line)) and not self.paragraph:
            self._heading(len(match[1]), self.inline(match[2]))
        elif match := _FENCE.fullmatch(line):
            self._fenced(match[1])
        elif match := _TABLE.fullmatch(line):
            self._table(match[0].strip(), match[1])
        elif (match := _ITEM.fullmatch(line)) and self._may_begin_item():
            self._item(match)
        elif match := _CALLOUT.fullmatch(line):
            self.end_paragraph()
            self.item(0, match[1] if match[1] != "." else "", match[2])
        elif (match := _TERM.fullmatch(line)) and self._may_begin_item():
            self.item(0, "", f"{match[1]}: {match[3] or ''}")
        elif match := _ADMONITION.fullmatch(line):
            self.flush()
            self.paragraph.append(f"{match[1].capitalize()}: {match[2]}")
        else:
            self.text(line.rstrip().removesuffix(" +"))

    def flush(self) -> None:
        super().flush()
        self._marks.clear()
        self._counts.clear()

    def _is_plumbing(self, line: str) -> bool:
        """Take a line that says something about the document or the next block."""
        if _COMMENT.fullmatch(line) or _ANCHOR.fullmatch(line) or _DIRECTIVE.fullmatch(line):
            return True
        if match := _ATTRIBUTE.fullmatch(line):
            self._attributes[match[1]] = match[2]
            if match[1] == "author" and match[2]:
                self.builder.metadata["author"] = match[2]
            return True
        if self.paragraph:
            return False
        if match := _BLOCK_LIST.fullmatch(line):
            self._block = [part.strip() for part in match[1].split(",")]
            return True
        if match := _TITLE.fullmatch(line):
            self.flush()
            self.builder.paragraph(self.inline(match[1]))
            return True
        return False

    def _heading(self, level: int, text: str) -> None:
        self.flush()
        if level == 1 and not self.title:
            self.title = text
        self.builder.heading(level, text)

    def _may_begin_item(self) -> bool:
        return not self.paragraph or self._pending is not None

    def _item(self, match: re.Match[str]) -> None:
        mark = match[1] if match[2] is None else "1."
        if self._has_blank and not self._marks:
            self._counts.clear()
        if mark in self._marks:
            del self._marks[self._marks.index(mark) + 1 :]
        else:
            self._marks.append(mark)
        depth = len(self._marks)
        for deeper in [level for level in self._counts if level > depth]:
            del self._counts[deeper]
        label = match[2] or ""
        if mark.startswith("."):
            self._counts[depth] = self._counts.get(depth, 0) + 1
            label = str(self._counts[depth])
        self.item(depth, label, match[3])

    def _fenced(self, fence: str) -> None:
        self.end_paragraph()
        kind = fence[0]
        end = "```" if kind == "`" else fence
        lines = self.take_until(re.compile(re.escape(end) + r"[ \t]*"))
        words, self._block = self._block, []
        if kind in "/+":
            return
        if kind in _CODE_FENCES and fence != "--":
            stated = words[1] if words[:1] == ["source"] and len(words) > 1 else ""
            language = fence[3:] if kind == "`" else stated
            self.builder.code("\n".join(lines), language)
            return
        if kind == "_":
            self.flush()
            self.builder.open_quotation()
        elif words and words[0] in ("NOTE", "TIP", "IMPORTANT", "WARNING", "CAUTION"):
            self.flush()
            self.builder.paragraph(f"{words[0].capitalize()}:")
        inner = _AsciiDocReader("\n".join(lines))
        inner.builder = self.builder
        inner.run()
        if kind == "_":
            self.builder.close_quotation()

    def _table(self, fence: str, separator: str) -> None:
        self.end_paragraph()
        lines = self.take_until(re.compile(re.escape(fence) + r"[ \t]*"))
        words, self._block = self._block, []
        columns = _column_count(words, lines)
        if separator in ",:":
            rows = [
                [cell.strip() for cell in line.split(separator)] for line in lines if line.strip()
            ]
        else:
            cells = [self.inline(cell) for cell in _cells("\n".join(lines))]
            rows = [cells[at : at + columns] for at in range(0, len(cells), columns)]
        stated = any("header" in word for word in words)
        # A first row on one line with a blank line behind it is the header.
        filled = [place for place, line in enumerate(lines) if line.strip()]
        is_set_off = bool(filled) and lines[filled[0] + 1 : filled[0] + 2] == [""] and len(rows) > 1
        has_header = stated or (is_set_off and lines[filled[0]].count("|") == columns)
        self.builder.table(rows, has_header=has_header or first_row_is_header(rows))

    def inline(self, text: str) -> str:
        """`text` without inline markup, with the document's attributes filled in."""
        text = _ATTRIBUTE_USE.sub(lambda m: self._attributes.get(m[1], m[0]), text)
        text = _PASS.sub(r"\2", text)
        text = _FOOTNOTE.sub(r" (\1)", text)
        text = _REFERENCE.sub(lambda match: match[2] or match[1], text)
        text = _MACRO.sub(r"\1", text)
        text = _LINK.sub(
            lambda match: match[2].partition(",")[0].strip('"^') or _address(match[1]), text
        )
        text = _MARKUP.sub(r"\2", text)
        text = _SCRIPT.sub(r"\2", text)
        return text.replace("\\|", "|")


def _address(link: str) -> str:
    """Return the text shown for a link that has none of its own."""
    return re.sub(r"^(?:link|xref|mailto):", "", link)


def _column_count(words: list[str], lines: list[str]) -> int:
    joined = ",".join(words)
    if match := re.search(r'cols=(?:"([^"]+)"|([\w*]+))', joined):
        stated = match[1] or match[2]
        if repeat := re.fullmatch(r"(\d+)\*.*", stated):
            return max(1, min(int(repeat[1]), _MAX_SPAN))
        return len(re.split(r"[,;]", stated))
    first = next((line for line in lines if line.strip()), "")
    return max(1, len(_cells(first)))


def _cells(text: str) -> list[str]:
    """The cells of a table's source; one that spans columns is followed by empty ones."""
    cells: list[str] = []
    marks = list(_CELL.finditer(text))
    for place, mark in enumerate(marks):
        end = marks[place + 1].start() if place + 1 < len(marks) else len(text)
        content = " ".join(text[mark.end() : end].split())
        span, repeated = 1, False
        if mark[1] and (number := re.match(r"\d+", mark[1])):
            span, repeated = min(int(number[0]), _MAX_SPAN), mark[1].endswith("*")
        cells += [content, *[content if repeated else ""] * (span - 1)]
        if len(cells) > MAX_TABLE_CELLS:  # the builder says that it is too much
            break
    return cells
