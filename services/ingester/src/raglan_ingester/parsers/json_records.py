"""JSON: a list of objects is a list of records, anything else is one; fields by their path."""

from __future__ import annotations

import json

from raglan_ingester.parsers.decoding import decode_text
from raglan_ingester.parsers.parsed import ParsedDocument, Source, Unparsable
from raglan_ingester.parsers.records import add_records, name_of, text_of
from raglan_ingester.parsers.text_builder import TextBuilder


def parse(source: Source) -> ParsedDocument:
    """Read a JSON file.

    Raises:
        Unparsable: it is empty, no text, or no JSON.
    """
    decoded = decode_text(source.data)
    try:
        value = json.loads(decoded.text)
    except json.JSONDecodeError as error:
        raise Unparsable(
            f"The file is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        ) from None
    builder = TextBuilder()
    builder.warnings += decoded.warnings
    if isinstance(value, list) and any(isinstance(record, dict) for record in value):
        add_records(builder, value)
        return builder.build()
    builder.paragraph(text_of(value))
    return builder.build(name_of(value))
