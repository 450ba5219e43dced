"""Plain text and source code: stored as it is."""

from __future__ import annotations

from raglan_ingester.parsers.decoding import decode
from raglan_ingester.parsers.parsed import ParsedDocument, Source


def parse(source: Source) -> ParsedDocument:
    return ParsedDocument(title="", text=decode(source.data))
