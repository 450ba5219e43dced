"""Dates and times as texts (RFC 3339), as documents hold them and filters compare them."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

_FORM: Final = re.compile(
    r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d:\d\d)?)?",
    re.ASCII | re.IGNORECASE,
)
_DATE_CHARS: Final = len("2026-11-28")


def moment_of(text: str) -> datetime | None:
    """The moment that `text` names, in UTC; None where it names none.

    A date without a time is its midnight, and a time without an offset is UTC: front matter and
    file formats leave both out.
    """
    if not _FORM.fullmatch(text):
        return None
    try:
        found = datetime.fromisoformat(text.upper())
    except ValueError:  # the 30th of February
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def is_whole_day(text: str) -> bool:
    """Return whether `text`, which names a moment, is a date without a time."""
    return len(text) == _DATE_CHARS
