"""Records (of JSON, JSON Lines, CSV) as text: a "field: value" line each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from raglan_ingester.parsers.parsed import TextBuilder

_NAMES: Final = ("title", "name", "heading", "subject", "question", "id", "_id", "key")
"""Fields that say what a record is about, the most telling first."""
_MAX_NAME_CHARS: Final = 200


def add_record(builder: TextBuilder, record: Any, number: int) -> None:
    """Append a record as a section of its own, under its name or its number."""
    builder.section(1, name_of(record) or f"Record {number}")
    builder.add(text_of(record))


def text_of(record: Any) -> str:
    if isinstance(record, str):
        return record
    return "\n".join(f"{path}: {value}" if path else value for path, value in _fields(record, ""))


def name_of(record: Any) -> str:
    if isinstance(record, dict):
        for field in _NAMES:
            value = record.get(field)
            if isinstance(value, str | int) and str(value).strip():
                return str(value)[:_MAX_NAME_CHARS]
    return ""


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
