"""HTML: what a reader sees of the page, block by block; menus and scripts are left out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final

from selectolax.lexbor import LexborHTMLParser, LexborNode

from raglan_ingester.parsers.decoding import declared_in_html, decode_text
from raglan_ingester.parsers.html_tables import read_table
from raglan_ingester.parsers.list_numbers import item_number
from raglan_ingester.parsers.parsed import ParsedDocument, Source, Unparsable, one_line
from raglan_ingester.parsers.text_builder import MAX_DEPTH, TextBuilder

_DROPPED_NAMES: Final = """
audio canvas datalist dialog head iframe map nav noscript object rp rt script style svg template
video
"""
_DROPPED: Final = frozenset(_DROPPED_NAMES.split())
_INLINE_NAMES: Final = """
a abbr acronym b bdi bdo big button cite code data del dfn em font i img input ins kbd label mark
math meter output progress q rb ruby s samp select small span strike strong sub sup textarea time
tt u var wbr
"""
_INLINE: Final = frozenset(_INLINE_NAMES.split())
_LAYOUT: Final = "table, h1, h2, h3, pre"
"""Selector of elements that a table of data does not contain; a table with one is layout."""
_HEADING: Final = re.compile(r"h([1-6])")
_LANGUAGE: Final = re.compile(r"\b(?:language|lang|highlight|brush:)[-_ ]?([\w+#.-]+)")
_HIDDEN_STYLE: Final = re.compile(
    r"(?:^|[;\s])(?:display\s*:\s*none|visibility\s*:\s*hidden)\b", re.IGNORECASE
)
_SPACE: Final = re.compile(r"[ \t\n\r\f]+")
_SHOWN_INPUTS: Final = frozenset(("", "text", "search", "email", "tel", "url", "number", "date"))
_MAX_NESTING: Final = 60_000
_MAX_CONTAINERS: Final = 5_000
"""Lists, tables and quotations inside each other: each costs more than another element."""
_TAG: Final = re.compile(r"<(/?)([a-zA-Z][^\s/>]*)")
_CONTAINERS: Final = frozenset(("table", "ul", "ol", "dl", "blockquote"))
_UNCOUNTED_TAGS: Final = frozenset(
    (
        # Without an end
        *("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param"),
        *("source", "track", "wbr"),
        # With an end that may be left out
        *("html", "head", "body", "p", "li", "dt", "dd", "option", "optgroup", "colgroup"),
        *("caption", "thead", "tbody", "tfoot", "tr", "td", "th", "rb", "rt", "rtc", "rp"),
    )
)
_BUTTON_INPUTS: Final = frozenset(("submit", "button", "reset"))


def parse(source: Source) -> ParsedDocument:
    """Read an HTML page.

    Raises:
        Unparsable: it is empty or no text.
    """
    decoded = decode_text(source.data, declared_in_html(source.data, source.media_type))
    builder = TextBuilder()
    title = read_html(decoded.text, builder)
    builder.warnings += decoded.warnings
    return builder.build(title)


def read_html(page: str, builder: TextBuilder) -> str:
    """Append what a reader sees of `page`; returns its title, or its first heading.

    Raises:
        Unparsable: its elements are nested too deeply.
    """
    _check_nesting(page)
    tree = LexborHTMLParser(page)
    titles = tree.css("head > title")
    title = one_line(titles[0].text()) if titles else ""
    author = tree.css_first('meta[name="author" i]')
    if author is not None and (content := one_line(author.attributes.get("content") or "")):
        builder.metadata.setdefault("author", content)
    walker = HtmlWalker(builder)
    if tree.body is not None:
        walker.walk(tree.body)
    return title or walker.first_heading


def _check_nesting(page: str) -> None:
    """Refuse very deep nesting before it is parsed: that takes time quadratic in the depth.

    Elements whose end is implied, and those without one, are not counted. The rest may come out
    too deep where a page forgets end tags, and no page forgets so many.
    """
    depth = containers = 0
    for match in _TAG.finditer(page):
        tag, step = match[2].lower(), -1 if match[1] else 1
        if tag in _UNCOUNTED_TAGS:
            continue
        depth = max(0, depth + step)
        if tag in _CONTAINERS:
            containers = max(0, containers + step)
        if depth > _MAX_NESTING or containers > _MAX_CONTAINERS:
            limit = _MAX_NESTING if depth > _MAX_NESTING else _MAX_CONTAINERS
            raise Unparsable(
                f"The page nests more than {limit:,} elements inside each other, the limit."
            )


class HtmlWalker:
    """Walks the tree and hands each paragraph, item, table and code block to the builder."""

    def __init__(self, builder: TextBuilder) -> None:
        self.first_heading = ""
        self._builder = builder
        self._running: list[str] = []
        self._lists: list[Iterator[str] | None] = []
        """Numbers of the items of the open lists; None for bullets."""
        self._quotations = 0
        self._items = 0
        """List items that are open."""
        self._stack: list[LexborNode | Callable[[], None]] = []

    def walk(self, root: LexborNode) -> None:
        """Append everything below `root`."""
        # A stack, not recursion: generated pages nest deeper than Python's limit.
        self._push_children(root)
        while self._stack:
            step = self._stack.pop()
            if isinstance(step, LexborNode):
                self._visit(step)
            else:
                step()
        self.flush()

    def flush(self) -> None:
        """End the paragraph."""
        text = "".join(self._running)
        self._running.clear()
        self._builder.paragraph("\n".join(" ".join(line.split()) for line in text.split("\n")))

    def _visit(self, node: LexborNode) -> None:
        tag = node.tag
        if tag == "-text":
            self._running.append(_SPACE.sub(" ", node.text_content or ""))
        elif tag is None or tag.startswith(("-", "_", "!")) or is_hidden(node):
            return
        elif tag == "br":
            self._running.append("\n")
        elif tag == "ruby":
            self._running.append(ruby_text(node))
        elif tag in ("input", "select", "textarea"):
            self._running.append(f" {control_text(node)} ")
        elif tag in _INLINE:
            self._push_children(node)
        elif match := _HEADING.fullmatch(tag):
            self._heading(int(match[1]), node)
        elif handle := _BLOCKS.get(tag):
            self.flush()
            handle(self, node)
        else:
            self.flush()
            self._inside(node, self.flush)

    def _heading(self, level: int, node: LexborNode) -> None:
        self.flush()
        text = one_line(visible_text(node))
        self.first_heading = self.first_heading or text
        self._builder.heading(level, text)

    def _code(self, node: LexborNode) -> None:
        classes = " ".join(
            part.attributes.get("class") or ""
            for part in (node.css_first("code"), node, node.parent)
            if part is not None
        )
        match = _LANGUAGE.search(classes)
        self._builder.code(visible_text(node, keep_space=True), match[1] if match else "")

    def _table(self, node: LexborNode) -> None:
        if any(inner.mem_id != node.mem_id for inner in node.css(_LAYOUT)):
            # A table that lays out the page, not one of data.
            self._inside(node, self.flush)
            return
        table = read_table(node, visible_text, is_hidden)
        if table.caption:
            self._builder.paragraph(table.caption)
        if max((len(row) for row in table.rows), default=0) < 2:
            for row in table.rows:
                self._builder.paragraph(" ".join(row))
        else:
            self._builder.table(table.rows, has_header=table.has_header)

    def _list(self, node: LexborNode) -> None:
        if len(self._lists) >= MAX_DEPTH:
            self._inside(node, self.flush)
            return
        numbers = _numbers(node) if node.tag == "ol" else None
        self._lists.append(numbers)
        self._builder.open_list()
        self._inside(node, self._close_list)

    def _close_list(self) -> None:
        self.flush()
        self._lists.pop()
        self._builder.close_list()

    def _item(self, node: LexborNode) -> None:
        if not self._lists or self._items >= MAX_DEPTH:
            self._inside(node, self.flush)
            return
        numbers = self._lists[-1]
        own = node.attributes.get("value") or ""
        label = "" if numbers is None else (own if own.isdigit() else next(numbers))
        self._items += 1
        self._builder.open_item(label)
        self._inside(node, self._close_item)

    def _close_item(self) -> None:
        self._items -= 1
        self.flush()
        self._builder.close_item()

    def _open_term(self) -> None:
        self._items += 1
        self._builder.open_item()

    def _quotation(self, node: LexborNode) -> None:
        if self._quotations >= MAX_DEPTH:
            self._inside(node, self.flush)
            return
        self._quotations += 1
        self._builder.open_quotation()
        self._inside(node, self._close_quotation)

    def _close_quotation(self) -> None:
        self.flush()
        self._quotations -= 1
        self._builder.close_quotation()

    def _definitions(self, node: LexborNode) -> None:
        """A definition list: each term an item, with its definitions inside."""
        if self._items >= MAX_DEPTH:
            self._inside(node, self.flush)
            return
        self._builder.open_list()
        steps: list[LexborNode | Callable[[], None]] = []
        is_open = False
        for child in _definition_parts(node):
            if child.tag == "dt":
                if is_open:
                    steps.append(self._close_item)
                steps.append(self._open_term)
                is_open = True
            steps += [self.flush, child, self.flush]
        if is_open:
            steps.append(self._close_item)
        self._stack.append(self._builder.close_list)
        self._stack.extend(reversed(steps))

    def _inside(self, node: LexborNode, after: Callable[[], None]) -> None:
        self._stack.append(after)
        self._push_children(node)

    def _push_children(self, node: LexborNode) -> None:
        child = node.last_child
        while child is not None:
            self._stack.append(child)
            child = child.prev


_BLOCKS: Final[dict[str, Callable[[HtmlWalker, LexborNode], None]]] = {
    "pre": HtmlWalker._code,
    "table": HtmlWalker._table,
    "ul": HtmlWalker._list,
    "ol": HtmlWalker._list,
    "menu": HtmlWalker._list,
    "li": HtmlWalker._item,
    "dl": HtmlWalker._definitions,
    "blockquote": HtmlWalker._quotation,
}


def is_hidden(node: LexborNode) -> bool:
    """Return whether a browser hides the element, or it is not part of the page's content."""
    attributes = node.attributes
    if node.tag in _DROPPED or "hidden" in attributes:
        return not (node.tag == "dialog" and "open" in attributes and "hidden" not in attributes)
    return bool(
        attributes.get("role") == "navigation"
        or _HIDDEN_STYLE.search(attributes.get("style") or "")
    )


def visible_text(root: LexborNode, *, keep_space: bool = False) -> str:
    """The text below `root` as one run; the ends of blocks become blanks.

    Args:
        root: an element.
        keep_space: blanks and newlines are part of the text, as in `<pre>`.
    """
    parts: list[str] = []
    stack: list[LexborNode | str] = [root]
    while stack:
        node = stack.pop()
        if isinstance(node, str):
            parts.append(node)
            continue
        tag = node.tag
        if tag == "-text":
            text = node.text_content or ""
            parts.append(text if keep_space else _SPACE.sub(" ", text))
        elif tag == "br":
            parts.append("\n")
        elif tag == "ruby":
            parts.append(ruby_text(node))
        elif tag in ("input", "select", "textarea"):
            parts.append(control_text(node))
        elif tag is not None and not tag.startswith(("-", "_", "!")) and not is_hidden(node):
            if tag not in _INLINE and not keep_space:
                parts.append(" ")
                stack.append(" ")
            child = node.last_child
            while child is not None:
                stack.append(child)
                child = child.prev
    return "".join(parts)


def ruby_text(ruby: LexborNode) -> str:
    """Base text, then the reading in brackets: the base stays one word."""
    base: list[str] = []
    reading: list[str] = []
    stack: list[tuple[LexborNode, bool]] = [(ruby, False)]
    while stack:
        node, is_reading = stack.pop()
        if node.tag == "-text":
            (reading if is_reading else base).append("".join((node.text_content or "").split()))
        elif node.tag != "rp":
            child = node.last_child
            while child is not None:
                stack.append((child, is_reading or node.tag in ("rt", "rtc")))
                child = child.prev
    shown = "".join(reading)
    return f"{''.join(base)}({shown})" if shown else "".join(base)


def control_text(node: LexborNode) -> str:
    """Return the text that a form control shows: its value, or the selected option."""
    attributes = node.attributes
    if node.tag == "textarea":
        return node.text() or ""
    if node.tag == "select":
        chosen = node.css_first("option[selected]") or node.css_first("option")
        return (chosen.text() or "").strip() if chosen is not None else ""
    kind = (attributes.get("type") or "").lower()
    return (attributes.get("value") or "") if kind in _SHOWN_INPUTS | _BUTTON_INPUTS else ""


def _numbers(node: LexborNode) -> Iterator[str]:
    start = node.attributes.get("start") or "1"
    number = int(start) if re.fullmatch(r"-?\d{1,9}", start) else 1
    style = node.attributes.get("type") or "1"
    while True:
        yield item_number(number, style)
        number += 1


def _definition_parts(node: LexborNode) -> Iterator[LexborNode]:
    child = node.child
    while child is not None:
        if child.tag == "div":
            yield from _definition_parts(child)
        elif child.tag in ("dt", "dd"):
            yield child
        child = child.next
