"""HTML: what a reader sees of the page, block by block; menus and scripts are left out."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Final

from bs4 import BeautifulSoup
from bs4.dammit import EncodingDetector
from bs4.element import NavigableString, PageElement, PreformattedString, Tag

from raglan_ingester.parsers.decoding import decode
from raglan_ingester.parsers.parsed import ParsedDocument, Source, TextBuilder, one_line

_DROPPED: Final = (
    *("script", "style", "noscript", "template", "nav", "iframe", "object", "svg", "canvas"),
    *("form", "button", "select", "head"),
)
_INLINE_NAMES: Final = """
a abbr b bdi bdo cite code data del dfn em font i ins kbd label mark q s samp small span strong sub
sup time tt u var wbr
"""
_INLINE: Final = frozenset(_INLINE_NAMES.split())
_HEADING: Final = re.compile(r"h([1-6])")
_CELLS: Final = frozenset(("td", "th"))


def parse(source: Source) -> ParsedDocument:
    soup = BeautifulSoup(_text_of(source.data), "lxml")
    title = soup.title.get_text(" ") if soup.title else ""
    for tag in soup.find_all(list(_DROPPED)):
        tag.decompose()
    for tag in soup.find_all(None, attrs={"role": "navigation"}):
        tag.decompose()
    page = _Page()
    page.walk(soup.body or soup)
    page.flush()
    if not title and page.first_heading:
        title = page.first_heading
    return page.builder.build(title)


def _text_of(data: bytes) -> str:
    """The page's source: UTF-8 where it is that, else what it declares, else a guess."""
    declared = EncodingDetector.find_declared_encoding(data, is_html=True)
    if declared:
        with suppress(UnicodeDecodeError):
            return decode(data.decode("utf-8").encode())
        with suppress(LookupError, UnicodeDecodeError):
            return decode(data.decode(declared).encode())
    return decode(data)


class _Page:
    """Collects running text until a block ends, and hands it on as one paragraph."""

    def __init__(self) -> None:
        self.builder = TextBuilder()
        self.first_heading = ""
        self._running: list[str] = []
        self._in_list = False

    def walk(self, tag: Tag) -> None:
        # A stack, not recursion: generated pages nest deeper than Python's limit.
        stack: list[PageElement | str] = [tag]
        while stack:
            node = stack.pop()
            if isinstance(node, Tag):
                self._open(node, stack)
            elif isinstance(node, PreformattedString):
                continue
            elif isinstance(node, NavigableString):
                self._running.append(re.sub(r"\s+", " ", node))
            elif node == _END_OF_BLOCK:
                self.flush()
            elif isinstance(node, str):
                self._running.append(node)

    def flush(self) -> None:
        """End the paragraph."""
        text = "\n".join(" ".join(line.split()) for line in "".join(self._running).split("\n"))
        self._running = []
        if text.strip():
            self.builder.add(text, separator="\n" if self._in_list else "\n\n")
            self._in_list = False

    def _open(self, tag: Tag, stack: list[PageElement | str]) -> None:
        name = tag.name
        if match := _HEADING.fullmatch(name):
            self.flush()
            text = one_line(tag.get_text(" "))
            self.first_heading = self.first_heading or text
            self.builder.heading(int(match[1]), text)
        elif name == "pre":
            self.flush()
            self.builder.add(tag.get_text())
        elif name == "br":
            self._running.append("\n")
        elif name in _INLINE:
            stack.extend(reversed(tag.contents))
        elif name in _CELLS:
            stack.append(" | " if tag.find_next_sibling(_CELLS) else "")
            stack.extend(reversed(tag.contents))
        else:
            self.flush()
            if name in ("li", "tr"):
                self._in_list = tag.find_previous_sibling(name) is not None
            stack.append(_END_OF_BLOCK)
            stack.extend(reversed(tag.contents))


_END_OF_BLOCK: Final = "\0"
