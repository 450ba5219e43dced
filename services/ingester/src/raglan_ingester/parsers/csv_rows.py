"""CSV and TSV: with a header, each row a block of "column: value" lines; without one, a table."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import PurePosixPath
from typing import Final

from raglan_ingester.parsers.decoding import declared_in_media_type, decode_text
from raglan_ingester.parsers.parsed import MAX_TABLE_CELLS, ParsedDocument, Source, Unparsable
from raglan_ingester.parsers.records import add_rows
from raglan_ingester.parsers.table_headers import first_row_is_header
from raglan_ingester.parsers.text_builder import TextBuilder

_DELIMITERS: Final = ",;\t|"
_SAMPLE_ROWS: Final = 50
_SAMPLE_CHARS: Final = 64 * 1024
_MAX_FIELD_CHARS: Final = 64 * 1024 * 1024
_SEPARATOR_LINE: Final = re.compile(r'"?sep=(.)"?[^\S\n]*\n', re.IGNORECASE)
"""Excel's declaration of the delimiter; other programs do not read it."""


def parse(source: Source) -> ParsedDocument:
    """Read a CSV or TSV file.

    Raises:
        Unparsable: it is empty, no text, or no CSV.
    """
    decoded = decode_text(source.data, declared_in_media_type(source.media_type))
    text, delimiter = decoded.text, ""
    if match := _SEPARATOR_LINE.match(text):
        text, delimiter = text[match.end() :], match[1]
    builder = TextBuilder()
    builder.warnings += decoded.warnings
    csv.field_size_limit(_MAX_FIELD_CHARS)
    try:
        _add(builder, _rows(text, delimiter or _delimiter(text, source)))
    except csv.Error as error:
        raise Unparsable(f"The file is not valid CSV: {error}.") from None
    return builder.build()


def _add(builder: TextBuilder, rows: Iterator[list[str]]) -> None:
    sample = list(islice(rows, _SAMPLE_ROWS))
    if first_row_is_header(sample, is_usual=True):
        columns = [column.strip() for column in sample[0]]
        cells = 0
        for number, row in enumerate(chain(sample[1:], rows)):
            if cells >= MAX_TABLE_CELLS:
                builder.warnings.append(f"Only the first {number:,} rows of the file were read.")
                return
            add_rows(builder, columns, [row])
            cells += len(row)
        return
    kept: list[list[str]] = []
    cells = 0
    for row in chain(sample, rows):
        if cells < MAX_TABLE_CELLS:
            kept.append(row)
            cells += len(row)
        else:
            builder.warnings.append(f"Only the first {len(kept):,} rows of the file were read.")
            break
    if max(map(len, kept), default=0) > 1:
        builder.table(kept, has_header=False)
    else:
        for row in kept:
            builder.paragraph("".join(row))


def _rows(text: str, delimiter: str) -> Iterator[list[str]]:
    """The rows that are not blank."""
    for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter):
        if any(value.strip() for value in row):
            yield row


def _delimiter(text: str, source: Source) -> str:
    """The delimiter that cuts the first rows into the same, largest number of fields."""
    if PurePosixPath(source.filename).suffix.lower() == ".tsv" or "tab-sep" in source.media_type:
        return "\t"
    best, best_score = ",", (0.0, 0)
    for delimiter in _DELIMITERS:
        try:
            widths = [len(row) for row in islice(_rows(text[:_SAMPLE_CHARS], delimiter), 20)]
        except csv.Error:
            continue
        if widths and widths[0] > 1:
            score = (widths.count(widths[0]) / len(widths), widths[0])
            if score > best_score:
                best, best_score = delimiter, score
    return best
