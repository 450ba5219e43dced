"""Units that an answer may quote: sentences, list items, lists, table rows, blocks of code.

Units are made from the blocks of a text, so that none is half a row, half a fence or a heading
alone. Each knows what stands above it, because a heading or the sentence that introduces a list
often holds the words of the question.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from raglan.blocks import Block, BlockKind, Cell, body_rows, column_names

from raglan_generator import markdown
from raglan_generator.block_tree import (
    Node,
    code_markdown,
    item_markdown,
    item_start,
    lists_of,
    tree_of,
)
from raglan_generator.generation import Passage
from raglan_generator.joining import Stretch
from raglan_generator.sentences import Span, sentences_of, spans, trimmed

MAX_CHARS: Final = 3_000
"""A longer row, list or code block is not quoted, because it cannot be cut."""

_ITEM_CHARS: Final = 800
"""A longer list item is quoted by its sentences."""

_BOLD_LEVEL: Final = 7
"""A bold line, or a paragraph that is one question, stands for a heading below all others."""

_QUESTION_MARKS: Final = ("?", "\uff1f", "\u061f")

_COLONS: Final = (":", "\uff1a")
_INTRODUCED: Final = (BlockKind.CODE, BlockKind.TABLE, BlockKind.LIST_ITEM)
_WORD: Final = re.compile(r"[^\W_]")
_REFERS_BACK: Final = re.compile(
    r"(this|that|these|those|it|its|they|their|he|his|she|her|such|then|otherwise|however"
    r"|therefore|instead|also|so|but|in (this|that|such|these) cases?|to do (so|this|that))\b",
    re.IGNORECASE,
)
"""Openings of English sentences that cannot be read alone."""

_NOWHERE: Final = Span(0, 0)


class Kind(Enum):
    """Kind of a unit."""

    SENTENCE = "sentence"
    ITEM = "item"
    LIST = "list"
    ROW = "row"
    CODE = "code"


@dataclass(frozen=True, slots=True)
class Unit:
    """A quotable piece of a stretch."""

    kind: Kind
    span: Span
    """The quote, in the text of the stretch."""
    text: str
    """The quote as Markdown: a sentence on one line, a row as "column: value", an item, a list or
    code as lines."""
    headings: tuple[str, ...] = ()
    """Above the unit, outermost first."""
    lead_in: str = ""
    """The sentence that introduces the list, table or code."""
    section: int = 0
    """Units with the same number stand under the same heading."""
    context_start: int = -1
    """Start of the preceding sentence that it refers to ("This is why ..."); -1 for none."""
    place: int = 0
    """Number of units before it in its section."""
    page: int = 0
    """On which it begins, from 1; 0 where there are no pages."""


def units_of(
    stretch: Stretch,
    passages: Sequence[Passage],
    *,
    whole_lists: bool = False,
    checkpoint: Callable[[], None] = lambda: None,
) -> list[Unit]:
    """The units of `stretch`, in the order of its text.

    Args:
        stretch: one or more of `passages`.
        passages: those of the request.
        whole_lists: whether a list is one unit, instead of one for each item.
        checkpoint: called for each unit; raises to stop the work.
    """
    reader = _Reader(stretch, [passages[index] for index in stretch.passages], whole_lists)
    found = []
    for unit in reader.read():
        checkpoint()
        found.append(unit)
    return found


class _Reader:
    """Reads the blocks of one stretch in order and keeps the headings above each."""

    def __init__(self, stretch: Stretch, passages: Sequence[Passage], whole_lists: bool) -> None:
        self._stretch = stretch
        self._text = stretch.text
        self._blocks = stretch.blocks
        self._whole_lists = whole_lists
        self._language = next((each.language for each in passages if each.language), "en")
        self._path: list[tuple[int, str]] = []
        self._ahead = list(zip(stretch.offsets, map(_headings, passages), strict=True))
        breaks = [block for block in self._blocks if block.kind is BlockKind.PAGE_BREAK]
        self._page_starts = [0, *(block.start for block in breaks)]
        self._pages = [passages[0].page, *(block.page for block in breaks)]
        self._section = 0
        self._place = 0

    def read(self) -> Iterator[Unit]:
        self._go_on(0)
        if self._blocks:
            yield from self._siblings(tree_of(self._blocks))
            return
        for span in spans(self._text, language=self._language):
            text = " ".join(markdown.escaped(self._text[span.start : span.end]).split())
            yield self._unit(Kind.SENTENCE, span, text)

    def _siblings(self, nodes: Sequence[Node]) -> Iterator[Unit]:
        at, introduction = 0, _NOWHERE
        while at < len(nodes):
            node = nodes[at]
            block, before = node.block, introduction
            at += 1
            introduction = _NOWHERE
            self._go_on(block.start)
            if block.kind is BlockKind.HEADING:
                self._enter(block.level, markdown.heading_text(self._words(block)))
            elif block.kind is BlockKind.PARAGRAPH:
                found, introduction = self._paragraph(block, nodes[at : at + 1])
                yield from found
            elif block.kind is BlockKind.CODE:
                yield from self._code(block, before)
            elif block.kind is BlockKind.TABLE:
                yield from self._table(block, before)
            elif block.kind is BlockKind.LIST_ITEM:
                items = lists_of(nodes, at - 1)
                at += len(items) - 1
                yield from self._list(items, block.lead_in or self._words(before), before)
            elif node.children:
                yield from self._siblings(node.children)
            else:
                yield from self._paragraph(block, ())[0]

    def _words(self, span: Block | Span) -> str:
        return self._text[span.start : span.end]

    def _go_on(self, at: int) -> None:
        """Take over the headings of the passage that begins at `at` or before it."""
        while self._ahead and self._ahead[0][0] <= at:
            _, headings = self._ahead.pop(0)
            if headings != tuple(text for level, text in self._path if level < _BOLD_LEVEL):
                self._path = [(0, heading) for heading in headings]

    def _enter(self, level: int, heading: str) -> None:
        """Go on below `heading`."""
        if not heading:
            return
        known = [text.casefold() for _, text in self._path]
        if heading.casefold() in known:
            # The path of a passage names the heading that it begins with.
            del self._path[known.index(heading.casefold()) + 1 :]
        else:
            while self._path and self._path[-1][0] >= level:
                self._path.pop()
            self._path.append((level, heading))
        self._section += 1
        self._place = 0

    def _paragraph(self, block: Block, after: Sequence[Node]) -> tuple[list[Unit], Span]:
        """Its sentences, and the last of them if it introduces what comes after it."""
        if bold := markdown.bold_line(self._words(block)):
            self._enter(_BOLD_LEVEL, bold)
            return [], _NOWHERE
        found = self._sentences(block)
        if len(found) == 1 and self._words(found[0]).rstrip("*_").endswith(_QUESTION_MARKS):
            self._enter(_BOLD_LEVEL, markdown.one_line(self._words(found[0])))
            return [], _NOWHERE
        introduction = _NOWHERE
        if found and after and after[0].block.kind in _INTRODUCED:
            introduction = found[-1]
            if _is_quotable_code(after[0].block) or self._words(introduction).endswith(_COLONS):
                found.pop()
        units = []
        for before, span in zip([None, *found], found, strict=False):
            text = markdown.one_line(self._words(span))
            if _WORD.search(text):
                unit = self._unit(Kind.SENTENCE, span, text)
                if before is not None and _REFERS_BACK.match(text):
                    unit = replace(unit, context_start=before.start)
                units.append(unit)
        return units, introduction

    def _sentences(self, block: Block) -> list[Span]:
        """The sentences of a block, none of which ends inside of inline code or emphasis."""
        found: list[Span] = []
        for span in sentences_of(self._text, Span(block.start, block.end), self._language):
            words = self._words(span)
            if found and (markdown.is_open(self._words(found[-1])) or not _WORD.search(words)):
                span = Span(found.pop().start, span.end)
            found.append(span)
        return found

    def _code(self, block: Block, introduction: Span) -> Iterator[Unit]:
        if not _is_quotable_code(block):
            return
        start = introduction.start if introduction.end else block.start
        if not self._stretch.is_exact(start, block.end):
            start = block.start
        lead_in = markdown.one_line(self._words(introduction))
        text = code_markdown(self._text, block)
        yield self._unit(Kind.CODE, Span(start, block.end), text, lead_in)

    def _table(self, block: Block, introduction: Span) -> Iterator[Unit]:
        names = column_names(self._text, block)
        lead_in = markdown.one_line(self._words(introduction))
        for cells in body_rows(block):
            text = markdown.row(names, [self._text[cell.start : cell.end] for cell in cells])
            span = self._row(cells, block)
            if span is not None and len(text) <= MAX_CHARS and _WORD.search(text):
                yield self._unit(Kind.ROW, span, text, lead_in)

    def _row(self, cells: Sequence[Cell], table: Block) -> Span | None:
        """The whole row, with what its line holds beyond the columns; None if a part is missing."""
        start = max(table.start, self._text.rfind("\n", 0, cells[0].start) + 1)
        line_end = self._text.find("\n", cells[-1].end)
        end = table.end if line_end < 0 else min(line_end, table.end)
        span = trimmed(self._text, start, end)
        if table.cut_end and end == len(self._text) and not self._text.rstrip().endswith("|"):
            return None
        return span

    def _list(
        self, items: Sequence[Node], lead_in: str, introduction: Span = _NOWHERE
    ) -> Iterator[Unit]:
        lead_in = markdown.one_line(lead_in)
        first, last = items[0].block, items[-1].block
        if markdown.is_navigation(self._text[first.start : last.end]):
            return
        is_whole = not first.cut_start and not last.cut_end
        is_whole = is_whole and self._stretch.is_exact(first.start, last.end)
        if len(items) > 1 and self._whole_lists and is_whole and last.end - first.start < MAX_CHARS:
            text = "\n".join(item_markdown(self._text, node) for node in items)
            start = introduction.start if introduction.end else first.start
            if not self._stretch.is_exact(start, last.end):
                start = first.start
            yield self._unit(Kind.LIST, Span(start, last.end), text, lead_in)
            return
        for node in items:
            yield from self._item(node, lead_in)

    def _item(self, node: Node, lead_in: str) -> Iterator[Unit]:
        block = node.block
        nested = node.of_kind(BlockKind.LIST_ITEM)
        end = nested[0].block.start if nested else block.end
        span = trimmed(self._text, block.start, end)
        words = trimmed(self._text, min(end, item_start(self._text, block)), end)
        if span is None or words is None:
            return
        is_cut = block.cut_start or (block.cut_end and not nested)
        introduces = nested and self._words(words).endswith(_COLONS)
        if is_cut or span.end - span.start > _ITEM_CHARS:
            inner = [child for child in node.children if child not in nested]
            yield from self._siblings(inner or [Node(Block(BlockKind.PARAGRAPH, *words))])
        elif not introduces:
            text = item_markdown(self._text, node, nested=False)
            if _WORD.search(text):
                yield self._unit(Kind.ITEM, span, text, lead_in)
        if nested:
            yield from self._list(nested, self._words(words))

    def _unit(self, kind: Kind, span: Span, text: str, lead_in: str = "") -> Unit:
        self._place += 1
        return Unit(
            kind=kind,
            span=span,
            text=text,
            headings=tuple(heading for _, heading in self._path),
            lead_in=lead_in,
            section=self._section,
            place=self._place - 1,
            page=self._pages[bisect_right(self._page_starts, span.start) - 1],
        )


def _is_quotable_code(block: Block) -> bool:
    is_whole = not block.cut_start and not block.cut_end
    return block.kind is BlockKind.CODE and is_whole and 0 < block.end - block.start <= MAX_CHARS


def _headings(passage: Passage) -> tuple[str, ...]:
    """Return the headings above a passage, without the chunker's additions.

    Those are the lead-in of a list or the columns of a table cut in two, which the blocks know.
    """
    headings = passage.headings
    for block in passage.blocks:
        if block.start > 0 or not headings:
            break
        continued = block.lead_in or " | ".join(block.columns)
        if continued and continued.startswith(headings[-1].rstrip("\u2026")):
            headings = headings[:-1]
    return headings
