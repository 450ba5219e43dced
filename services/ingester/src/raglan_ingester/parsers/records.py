"""Records (of JSON, JSON Lines, CSV, spreadsheets) as text: a "field: value" line each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from raglan_ingester.parsers.parsed import MAX_TABLE_CELLS
from raglan_ingester.parsers.table_headers import first_row_is_header
from raglan_ingester.parsers.text_builder import TextBuilder

_NAMES: Final = ("title", "name", "heading", "subject", "question", "id", "_id", "key")
"""Fields that say what a record is about, the most telling first."""
_MAX_NAME_CHARS: Final = 200
_LONG_RECORD_CHARS: Final = 600
"""A record that may be cut into several chunks gets a section of its own, named after it."""
_SMALL_RECORD_CHARS: Final = 200
"""JSON records below this share chunks: a chunk of a few words says little, and costs as much."""
_LONG_ROW_CHARS: Final = 1000
"""A row longer than this is no row of a table to read."""


def add_records(builder: TextBuilder, records: Iterable[Any]) -> None:
    """Append records of JSON, a paragraph each; one that is not small is a section of its own.

    Beyond `MAX_TABLE_CELLS` values in all, records are left out with a warning.
    """
    values = 0
    for number, record in enumerate(records, 1):
        if values >= MAX_TABLE_CELLS:
            builder.warnings.append(f"Only the first {number - 1:,} records of the file were read.")
            return
        text = text_of(record)
        values += 1 + text.count("\n")
        is_small = len(text) < _SMALL_RECORD_CHARS
        if not is_small:
            builder.section(1, name_of(record) or f"Record {number}")
        builder.paragraph(text)
        if not is_small:
            builder.end_section(1)


def add_rows(builder: TextBuilder, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Append each row as a record of "column: value" lines.

    Args:
        builder: where to.
        columns: the names of the columns.
        rows: their values.
    """
    for row in rows:
        text = "\n".join(_row_lines(columns, row))
        is_long = len(text) > _LONG_RECORD_CHARS
        if is_long:
            builder.section(1, _row_name(columns, row))
        builder.paragraph(text)
        if is_long:
            builder.end_section(1)


def add_table(builder: TextBuilder, rows: Sequence[Sequence[str]]) -> None:
    """Append rows of a spreadsheet: as a table, or as records where cells hold long texts."""
    has_header = first_row_is_header(rows, is_usual=True)
    if any(sum(map(len, row)) > _LONG_ROW_CHARS for row in rows):
        if has_header:
            add_rows(builder, rows[0], rows[1:])
        else:
            add_rows(builder, (), rows)
    else:
        builder.table(rows, has_header=has_header)


def text_of(record: Any) -> str:
    """A record of JSON as lines of text."""
    if isinstance(record, str):
        return record
    return "\n".join(f"{path}: {value}" if path else value for path, value in _fields(record, ""))


def name_of(record: Any) -> str:
    """Return the record's own name; empty if it has no such field."""
    if isinstance(record, dict):
        for field in _NAMES:
            value = record.get(field)
            if isinstance(value, str | int) and str(value).strip():
                return str(value)[:_MAX_NAME_CHARS]
    return ""


def _row_lines(columns: Sequence[str], row: Sequence[str]) -> Iterator[str]:
    for place, value in enumerate(row):
        if value.strip():
            name = columns[place].strip() if place < len(columns) else ""
            yield f"{name}: {value.strip()}" if name else value.strip()


def _row_name(columns: Sequence[str], row: Sequence[str]) -> str:
    """The field that names a row, else its first field: "id: 7"."""
    fields = {name.strip().lower(): value for name, value in zip(columns, row, strict=False)}
    if named := name_of({name: fields[name] for name in _NAMES[:5] if name in fields}):
        return named
    return next(_row_lines(columns, [value[:_MAX_NAME_CHARS] for value in row]), "")


def _fields(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """(path, value) of every leaf; lists of plain values stay on one line."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _fields(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        if all(not isinstance(inner, dict | list) for inner in value):
            yield path, ", ".join(_plain(inner) for inner in value)
        else:
            for number, inner in enumerate(value, 1):
                yield from _fields(inner, f"{path}[{number}]")
    else:
        yield path, _plain(value)


def _plain(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
