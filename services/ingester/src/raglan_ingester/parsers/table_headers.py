"""Detection of a header in the first row of a table."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

_SAMPLE_ROWS: Final = 50
_MAX_NAME_CHARS: Final = 80
_VALUE: Final = re.compile(
    r"[\s$€£¥%+-]*[\d.,' \u00a0]*\d[\d.,' \u00a0]*[\s%$€£¥]*(?:[a-zA-Z]{1,4})?"  # 40, 1.50 EUR
    r"|\d{1,4}[-./]\d{1,2}[-./]\d{1,4}(?:[T ].*)?"  # a date
    r"|\d{1,2}:\d{2}(?::\d{2})?"
    r"|\S+@\S+\.\S+|https?://\S+"
    r"|true|false|yes|no|n/?a|null|none",
    re.IGNORECASE,
)


def first_row_is_header(rows: Sequence[Sequence[str]], *, is_usual: bool = False) -> bool:
    """Return whether the first row reads like the names of columns, not like a record.

    Names are short, differ from each other, are no numbers, dates or addresses, and do not occur
    again below as values.

    Args:
        rows: cell texts.
        is_usual: tables of this format usually have a header, so that nothing has to speak for
            it; otherwise the first row must look unlike the others in some column.
    """
    if len(rows) < 2:
        return False
    header = [cell.strip() for cell in rows[0]]
    while header and not header[-1]:
        header.pop()
    named = [cell for cell in header if cell]
    if not named or len(named) < max(1, len(header) - 1):
        return False
    if len(set(named)) < len(named) or any(len(cell) > _MAX_NAME_CHARS for cell in named):
        return False
    if any(_VALUE.fullmatch(cell) for cell in named):
        return False
    columns = [
        [row[place].strip() for row in rows[1 : 1 + _SAMPLE_ROWS] if place < len(row)]
        for place in range(len(header))
    ]
    if any(name and name in values for name, values in zip(header, columns, strict=True)):
        return False
    return is_usual or any(
        name and _looks_unlike(name, values) for name, values in zip(header, columns, strict=True)
    )


def _looks_unlike(name: str, values: Sequence[str]) -> bool:
    filled = [value for value in values if value]
    alike = sum(_shape(value) == _shape(name) for value in filled)
    return 2 * alike < len(filled)


def _shape(text: str) -> tuple[bool, bool, bool, int]:
    """Return the visible shape of a cell."""
    has_digit = any(map(str.isdigit, text))
    return has_digit, text.isupper(), text.islower(), min(len(text.split()), 4)


def merge_header_rows(rows: Sequence[Sequence[str]], count: int) -> list[list[str]]:
    """`rows` with the first `count` made into one: "Price" above "net" gives "Price net"."""
    if count < 2 or count >= len(rows):
        return [list(row) for row in rows]
    width = max(len(row) for row in rows[:count])
    header = []
    for column in range(width):
        parts = [row[column] for row in rows[:count] if column < len(row) and row[column]]
        header.append(" ".join(dict.fromkeys(parts)))
    return [header, *(list(row) for row in rows[count:])]
