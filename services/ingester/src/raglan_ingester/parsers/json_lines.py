"""JSON Lines: each line a record, each record a section."""

from __future__ import annotations

import json

from raglan_ingester.parsers.decoding import decode_text
from raglan_ingester.parsers.parsed import ParsedDocument, Source, Unparsable
from raglan_ingester.parsers.records import add_record
from raglan_ingester.parsers.text_builder import TextBuilder


def parse(source: Source) -> ParsedDocument:
    """Read a JSON Lines file.

    Raises:
        Unparsable: it is empty, no text, or a line is no JSON.
    """
    decoded = decode_text(source.data)
    builder = TextBuilder()
    builder.warnings += decoded.warnings
    # Only \n ends a line here: JSON strings may hold every other separator as it is.
    for number, line in enumerate(decoded.text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise Unparsable(f"Line {number} is not valid JSON: {error.msg}.") from None
        add_record(builder, record, number)
    return builder.build()
