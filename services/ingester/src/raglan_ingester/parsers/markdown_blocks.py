"""Blocks of Markdown source, with offsets, from the tokens of markdown-it-py."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from markdown_it import MarkdownIt
from markdown_it.token import Token
from mdit_py_plugins.admon import admon_plugin
from mdit_py_plugins.colon_fence import colon_fence_plugin
from mdit_py_plugins.deflist import deflist_plugin
from raglan.blocks import Block, BlockKind, Cell

from raglan_ingester.parsers.content_tabs import content_tabs_plugin
from raglan_ingester.parsers.parsed import Heading, name
from raglan_ingester.parsers.shown_text import ShownText
from raglan_ingester.parsers.source_lines import LIST_MARK, SourceLines

_TITLE: Final = re.compile(r'"(.+)"')
_SENTENCE_END: Final = re.compile(r"[.!?]\s+(?=\S)")
_LEAD_IN_CHARS: Final = 300
_PROSE_DIRECTIVE: Final = re.compile(
    r"\{(?:note|warning|tip|hint|important|attention|caution|danger|error|admonition|seealso"
    r"|versionadded|versionchanged|deprecated|dropdown|margin|sidebar|tab-item)\}"
)
_MAX_NESTING: Final = 8
"""Directives inside directives."""


def read_markdown(text: str, first_line: int = 0) -> tuple[list[Block], list[Heading]]:
    r"""The blocks and the outline of Markdown `text`.

    Args:
        text: with newlines as `\n`.
        first_line: lines before it are no Markdown (front matter).

    Returns:
        Blocks in order with offsets into `text`, and the headings by offset. Titles of content
        tabs and admonitions are part of the outline, one level below the heading above them; a
        Heading with an empty text ends their section.
    """
    document = _Document(SourceLines(text))
    _read(document, first_line, document.lines.count, nesting=0)
    return document.blocks, document.headings


@dataclass(slots=True)
class _Document:
    """State of the document read so far."""

    lines: SourceLines
    blocks: list[Block] = field(default_factory=list)
    headings: list[Heading] = field(default_factory=list)
    items: set[int] = field(default_factory=set)
    """Offsets of list items."""
    inline: MarkdownIt = field(default_factory=lambda: MarkdownIt("commonmark"))


def _read(document: _Document, first_line: int, end_line: int, *, nesting: int) -> None:
    """Add the blocks of lines [first_line, end_line) to `document`."""
    parser = MarkdownIt("commonmark").enable("table")
    for plugin in (deflist_plugin, admon_plugin, content_tabs_plugin, colon_fence_plugin):
        parser.use(plugin)
    # Only headings need their inline markup taken out; leaving the rest saves a third of the time.
    parser.disable("inline")
    tokens = parser.parse(document.lines.source(first_line, end_line))
    _Walk(document, tokens, first_line, nesting).run()


class _Walk:
    """One pass over tokens; each kind of token that opens a block has its method.

    Args:
        base: line of the document that the tokens' line 0 is.
        nesting: how many directives the tokens lie in.
    """

    def __init__(
        self, document: _Document, tokens: Sequence[Token], base: int, nesting: int
    ) -> None:
        self._document = document
        self._lines = document.lines
        self._tokens = tokens
        self._base = base
        self._nesting = nesting
        self._lead_ins: list[str] = []
        """Of the lists that are open, outermost first."""
        self._titled: list[int] = []
        """Levels of the titles of open tabs and admonitions; 0 for one without."""
        self._quotations = 0

    def run(self) -> None:
        for at, token in enumerate(self._tokens):
            if handle := _HANDLERS.get(token.type):
                handle(self, at)

    def heading(self, at: int) -> None:
        token = self._tokens[at]
        start, end = self._content(at)
        level = int(token.tag[1:])
        self._add(BlockKind.HEADING, start, end, level=level)
        inline = self._document.inline.parseInline(self._tokens[at + 1].content)[0]
        if called := name(_plain(inline)):
            self._document.headings.append(Heading(start, level, called))

    def paragraph(self, at: int) -> None:
        self._add(BlockKind.PARAGRAPH, *self._content(at))

    def open_list(self, at: int) -> None:
        """Remember the sentence that introduces the list; of a nested one, the item's own text."""
        before = self._document.blocks[-1] if self._document.blocks else None
        lead_in = ""
        if before is not None and before.kind is BlockKind.PARAGRAPH:
            text = self._lines.text[before.start : before.end]
            sentence = " ".join(_SENTENCE_END.split(text)[-1].split())
            if self._lead_ins or sentence.rstrip(" *_").endswith(":"):
                lead_in = sentence[:_LEAD_IN_CHARS]
        self._lead_ins.append(lead_in)

    def close_list(self, _: int) -> None:
        self._lead_ins.pop()

    def item(self, at: int) -> None:
        first, last = self._map(at)
        if self._tokens[at].type == "dt_open":
            last = self._definition_end(at)
        start, end = self._lines.span(first, last)
        start = self._lines.skip_prefix(start)
        # `- - nested`: the inner item begins behind the mark of the outer one.
        while start in self._document.items and (mark := LIST_MARK.match(self._lines.text, start)):
            start = self._lines.skip_prefix(mark.end())
        self._document.items.add(start)
        mark = LIST_MARK.match(self._lines.text, start)
        self._document.blocks.append(
            Block(
                BlockKind.LIST_ITEM,
                start,
                max(start, end),
                level=len(self._lead_ins),
                label=(mark[1] or "") if mark else "",
                lead_in=self._lead_ins[-1],
            )
        )

    def open_quotation(self, at: int) -> None:
        self._quotations += 1
        start, end = self._lines.span(*self._map(at))
        self._add(BlockKind.QUOTATION, start, end, level=self._quotations)

    def close_quotation(self, _: int) -> None:
        self._quotations -= 1

    def code(self, at: int) -> None:
        token = self._tokens[at]
        first, last = self._map(at)
        start, end = self._lines.span(first, last)
        text = self._lines.text
        if token.markup and _PROSE_DIRECTIVE.match(token.info.strip()):
            closed = text[start:end].rstrip().endswith("\n" + token.markup)
            if self._nesting < _MAX_NESTING:
                last -= closed
                _read(self._document, first + 1, max(first + 1, last), nesting=self._nesting + 1)
                return
        if token.markup:
            # Behind quotation marks and a list mark on the line of the fence.
            start = max(start, text.find(token.markup, start, end))
        if token.content.strip():
            label = token.info.split()[0].strip("{}") if token.info.strip() else ""
            self._document.blocks.append(Block(BlockKind.CODE, start, end, label=label))

    def table(self, at: int) -> None:
        rows: list[tuple[Cell, ...]] = []
        for inner in range(at, len(self._tokens)):
            if self._tokens[inner].type == "table_close":
                break
            if self._tokens[inner].type == "tr_open":
                line = self._map(inner)[0]
                rows.append(self._lines.cells(line, self._document.items.__contains__))
        start, end = self._content(at)
        width = len(rows[0])
        self._document.blocks.append(
            Block(
                BlockKind.TABLE,
                start,
                end,
                rows=tuple(row[:width] for row in rows),
                has_header=True,
            )
        )

    def html(self, at: int) -> None:
        """A heading, or a paragraph where a browser would show text."""
        start, end = self._lines.span(*self._map(at))
        shown = ShownText(self._tokens[at].content)
        if not shown.text:
            return
        if shown.heading:
            self._add(BlockKind.HEADING, start, end, level=shown.heading)
            self._document.headings.append(Heading(start, shown.heading, name(shown.text)))
        else:
            self._add(BlockKind.PARAGRAPH, start, end)

    def open_titled(self, at: int) -> None:
        """Begin a content tab or an admonition; one with a title of its own is a section."""
        line = self._map(at)[0]
        start, end = self._lines.span(line, line + 1)
        title = _TITLE.search(self._lines.text, start, end)
        level = 0
        if title is not None:
            level = self._level() + 1
            self._add(BlockKind.HEADING, *title.span(1), level=min(6, level))
            self._document.headings.append(Heading(start, level, name(title[1])))
        self._titled.append(level)

    def close_titled(self, at: int) -> None:
        """End the section of a tab, so that what follows does not stand under its title."""
        level = self._titled.pop()
        following = next((i for i in range(at + 1, len(self._tokens)) if self._tokens[i].map), None)
        if level and following is not None:
            line = self._map(following)[0]
            offset = self._lines.span(line, line + 1)[0]
            self._document.headings.append(Heading(offset, level, ""))

    def _add(self, kind: BlockKind, start: int, end: int, *, level: int = 0) -> None:
        if start < end:
            self._document.blocks.append(Block(kind, start, end, level=level))

    def _map(self, at: int) -> tuple[int, int]:
        """The lines [first, end) of the document that token `at` covers."""
        first, end = self._tokens[at].map or (0, 0)
        return first + self._base, end + self._base

    def _content(self, at: int) -> tuple[int, int]:
        return self._lines.content(*self._map(at), self._document.items.__contains__)

    def _definition_end(self, at: int) -> int:
        """The line after the last definition of the term that opens at token `at`."""
        end = self._map(at)[1]
        for inner in range(at + 1, len(self._tokens)):
            if self._tokens[inner].type in ("dt_open", "dl_close"):
                break
            if self._tokens[inner].map:
                end = max(end, self._map(inner)[1])
        return end

    def _level(self) -> int:
        """The level of the heading that the present place stands under; 0 for none."""
        if not self._document.headings:
            return 0
        last = self._document.headings[-1]
        return last.level if last.text else last.level - 1


_HANDLERS: Final[dict[str, Callable[[_Walk, int], None]]] = {
    "heading_open": _Walk.heading,
    "paragraph_open": _Walk.paragraph,
    "bullet_list_open": _Walk.open_list,
    "bullet_list_close": _Walk.close_list,
    "ordered_list_open": _Walk.open_list,
    "ordered_list_close": _Walk.close_list,
    "dl_open": _Walk.open_list,
    "dl_close": _Walk.close_list,
    "list_item_open": _Walk.item,
    "dt_open": _Walk.item,
    "blockquote_open": _Walk.open_quotation,
    "blockquote_close": _Walk.close_quotation,
    "fence": _Walk.code,
    "code_block": _Walk.code,
    "colon_fence": _Walk.code,
    "table_open": _Walk.table,
    "html_block": _Walk.html,
    "admonition_open": _Walk.open_titled,
    "admonition_close": _Walk.close_titled,
    "content_tab_open": _Walk.open_titled,
    "content_tab_close": _Walk.close_titled,
}


def _plain(inline: Token) -> str:
    """The words of a heading without its markup."""
    return "".join(
        " " if child.type in ("softbreak", "hardbreak") else child.content
        for child in inline.children or ()
        if child.type != "html_inline"
    )
