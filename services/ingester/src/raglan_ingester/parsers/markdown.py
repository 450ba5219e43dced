"""Markdown: stored as its source, so that code and tables stay readable; headings by CommonMark."""

from __future__ import annotations

from itertools import accumulate, pairwise

from markdown_it import MarkdownIt
from markdown_it.token import Token

from raglan_ingester.parsers.decoding import decode
from raglan_ingester.parsers.parsed import Heading, ParsedDocument, Source, name


def parse(source: Source) -> ParsedDocument:
    text = decode(source.data)
    # markdown-it counts lines by \n only, as `normalise` left them.
    starts = [0, *accumulate(len(line) + 1 for line in text.split("\n"))]
    inline = MarkdownIt("commonmark")
    headings = []
    # Only headings need their markup taken out; leaving the rest alone saves a third of the time.
    tokens = MarkdownIt("commonmark").disable("inline").parse(text)
    for token, content in pairwise(tokens):
        if token.type == "heading_open" and token.map:
            called = name(_plain(inline.parseInline(content.content)[0]))
            headings.append(Heading(starts[token.map[0]], int(token.tag[1:]), called))
    headings = [heading for heading in headings if heading.text]
    title = headings[0].text if headings and headings[0].level == 1 else ""
    return ParsedDocument(title, text, headings)


def _plain(inline: Token) -> str:
    """The words of a heading without its markup."""
    return "".join(
        " " if child.type in ("softbreak", "hardbreak") else child.content
        for child in inline.children or ()
        if child.type != "html_inline"
    )
