"""JSON: a list of objects is a list of records, anything else is one; fields by their path."""

from __future__ import annotations

import json

from raglan_ingester.parsers.decoding import decode
from raglan_ingester.parsers.parsed import ParsedDocument, Source, TextBuilder, Unparsable
from raglan_ingester.parsers.records import add_record, name_of, text_of


def parse(source: Source) -> ParsedDocument:
    try:
        value = json.loads(decode(source.data))
    except json.JSONDecodeError as error:
        raise Unparsable(
            f"The file is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        ) from None
    builder = TextBuilder()
    if isinstance(value, list) and any(isinstance(record, dict) for record in value):
        for number, record in enumerate(value, 1):
            add_record(builder, record, number)
        return builder.build()
    builder.add(text_of(value))
    return builder.build(name_of(value))
