"""CSV and TSV: each row a block of "column: value" lines, so that a chunk reads by itself."""

from __future__ import annotations

import csv
import io
from pathlib import PurePosixPath
from typing import Final

from raglan_ingester.parsers.decoding import decode
from raglan_ingester.parsers.parsed import ParsedDocument, Source, TextBuilder, Unparsable

_SAMPLE_CHARS: Final = 64 * 1024
_MAX_FIELD_CHARS: Final = 64 * 1024 * 1024


def parse(source: Source) -> ParsedDocument:
    text = decode(source.data)
    csv.field_size_limit(_MAX_FIELD_CHARS)
    builder = TextBuilder()
    try:
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text, source))
        columns = [column.strip() for column in next(rows, [])]
        for row in rows:
            builder.add(_row_text(columns, row))
    except csv.Error as error:
        raise Unparsable(f"The file is not valid CSV: {error}.") from None
    parsed = builder.build()
    # A header and nothing else, or a list without columns: the lines themselves.
    return parsed if parsed.text else ParsedDocument("", text)


def _delimiter(text: str, source: Source) -> str:
    if PurePosixPath(source.filename).suffix.lower() == ".tsv" or "tab-sep" in source.media_type:
        return "\t"
    try:
        return csv.Sniffer().sniff(text[:_SAMPLE_CHARS].partition("\n")[0], ",;\t|").delimiter
    except csv.Error:
        return ","


def _row_text(columns: list[str], row: list[str]) -> str:
    lines = []
    for place, value in enumerate(row):
        if value.strip():
            name = columns[place] if place < len(columns) else ""
            lines.append(f"{name}: {value.strip()}" if name else value.strip())
    return "\n".join(lines)
