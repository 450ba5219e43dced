"""Markdown: stored as its source; structure from markdown-it-py's tokens and their line maps.

Besides CommonMark and GitHub's tables it reads front matter, definition lists, admonitions and
content tabs of MkDocs (`!!! note`, `=== "Linux"`) and the prose directives of MyST.
"""

from __future__ import annotations

from raglan_ingester.parsers.decoding import declared_in_media_type, decode_text
from raglan_ingester.parsers.front_matter import split_front_matter
from raglan_ingester.parsers.markdown_blocks import read_markdown
from raglan_ingester.parsers.parsed import ParsedDocument, Source, Unparsable, name


def parse(source: Source) -> ParsedDocument:
    """Read a Markdown document.

    Raises:
        Unparsable: it is empty, no text, or holds nothing to read.
    """
    decoded = decode_text(source.data, declared_in_media_type(source.media_type))
    text = decoded.text
    front = split_front_matter(text)
    blocks, headings = read_markdown(text, front.lines)
    if not blocks:
        raise Unparsable("The document holds no text besides front matter, comments and rules.")
    stated = front.metadata.pop("title", None)
    title = name(str(stated)) if isinstance(stated, str | int | float) else ""
    if not title and headings and headings[0].level == 1:
        title = headings[0].text
    return ParsedDocument(
        title,
        text,
        headings,
        blocks,
        metadata=front.metadata,
        warnings=decoded.warnings + front.warnings,
    )
