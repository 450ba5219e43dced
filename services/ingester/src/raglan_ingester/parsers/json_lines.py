"""JSON Lines: each line a record, each record a section."""

from __future__ import annotations

import json

from raglan_ingester.parsers.decoding import decode
from raglan_ingester.parsers.parsed import ParsedDocument, Source, TextBuilder, Unparsable
from raglan_ingester.parsers.records import add_record


def parse(source: Source) -> ParsedDocument:
    builder = TextBuilder()
    # Only \n ends a line here: JSON strings may hold every other separator as it is.
    for number, line in enumerate(decode(source.data).split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise Unparsable(f"Line {number} is not valid JSON: {error.msg}.") from None
        add_record(builder, record, number)
    return builder.build()
