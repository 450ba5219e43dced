"""JSON Lines: each line a record."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from raglan_ingester.parsers.decoding import decode_text
from raglan_ingester.parsers.parsed import ParsedDocument, Source, Unparsable
from raglan_ingester.parsers.records import add_records
from raglan_ingester.parsers.text_builder import TextBuilder


def parse(source: Source) -> ParsedDocument:
    """Read a JSON Lines file.

    Raises:
        Unparsable: it is empty, no text, or a line is no JSON.
    """
    decoded = decode_text(source.data)
    builder = TextBuilder()
    builder.warnings += decoded.warnings
    add_records(builder, _records(decoded.text))
    return builder.build()


def _records(text: str) -> Iterator[Any]:
    # Only \n ends a line here: JSON strings may hold every other separator as it is.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            yield json.loads(line)
        except json.JSONDecodeError as error:
            raise Unparsable(f"Line {number} is not valid JSON: {error.msg}.") from None
