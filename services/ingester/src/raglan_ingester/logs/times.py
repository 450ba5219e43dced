"""Times of log entries, of every format to UTC. A time without an offset is taken as UTC."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

_ISO: Final = re.compile(
    r"(\d{4})[-/](\d\d)[-/](\d\d)[T ](\d\d):(\d\d):(\d\d)(?:[.,](\d{1,9}))?\s?"
    r"(Z|UTC|GMT|[+-]\d\d(?::?\d\d)?)?",
    re.ASCII,
)
_NAMED_MONTH: Final = re.compile(
    r"(?P<day>\d{1,2})/(?P<month>[A-Z][a-z]{2})/(?P<year>\d{4}):(?P<clock>\d\d:\d\d:\d\d)"
    r" ?(?P<offset>[+-]\d{4})?"
    r"|(?:[A-Z][a-z]{2} )?(?P<month2>[A-Z][a-z]{2}) +(?P<day2>\d{1,2}) (?P<clock2>\d\d:\d\d:\d\d)"
    r"(?:\.\d+)?(?: (?P<year2>\d{4}))?",
    re.ASCII,
)
_COMPACT: Final = re.compile(
    r"(?P<year>\d\d)[/]?(?P<month>\d\d)[/]?(?P<day>\d\d) "
    r"(?P<hour>\d\d):?(?P<minute>\d\d):?(?P<second>\d\d)",
    re.ASCII,
)
_NO_YEAR: Final = re.compile(
    r"[A-Z]?(?P<month>\d\d)-?(?P<day>\d\d) (?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)",
    re.ASCII,
)
_FIRST_EPOCH_S: Final = 10**9
_LAST_EPOCH_S: Final = 10**10
_EPOCH: Final = re.compile(r"\d{10}(?:\.\d+)?", re.ASCII)
_MONTHS: Final = {
    name: number
    for number, name in enumerate(
        ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"), 1
    )
}


class Clock:
    """Reads times; those without a year are of the last twelve months before `now`."""

    def __init__(self, now: datetime) -> None:
        self._now = now
        self.guessed_year = False
        """True if a time that was read had no year."""

    def read(self, text: str) -> datetime | None:
        """Return the time at the beginning of `text`; None where it is none."""
        try:
            return self._read(text)
        except (ValueError, OverflowError):  # the 30th of February
            return None

    def _read(self, text: str) -> datetime | None:
        if match := _ISO.match(text):
            return _from_iso(match)
        if match := _NAMED_MONTH.match(text):
            return self._from_named_month(match)
        if match := _COMPACT.match(text):
            part = {name: int(value) for name, value in match.groupdict().items()}
            part["year"] += 2000
            return datetime(**part, tzinfo=UTC)
        if match := _NO_YEAR.match(text):
            part = {name: int(value) for name, value in match.groupdict().items()}
            return self._in_last_year(**part)
        if match := _EPOCH.match(text):
            return datetime.fromtimestamp(float(match[0]), UTC)
        return None

    def _from_named_month(self, match: re.Match[str]) -> datetime | None:
        month = _MONTHS.get(match["month"] or match["month2"])
        if month is None:
            return None
        day = int(match["day"] or match["day2"])
        hour, minute, second = map(int, (match["clock"] or match["clock2"]).split(":"))
        year = match["year"] or match["year2"]
        if year is None:
            return self._in_last_year(month=month, day=day, hour=hour, minute=minute, second=second)
        found = datetime(int(year), month, day, hour, minute, second, tzinfo=UTC)
        return found - _offset(match["offset"])

    def _in_last_year(self, **part: int) -> datetime:
        self.guessed_year = True
        found = datetime(self._now.year, tzinfo=UTC, **part)
        # A day ahead may be another time zone.
        if found > self._now + timedelta(days=1):
            found = found.replace(year=found.year - 1)
        return found


def from_epoch(number: float) -> datetime | None:
    """Return the time of a number of seconds, or of thousandths, millionths or billionths of one.

    The size tells them apart; a number that is no time from 2001 to 2286 is none.
    """
    for parts in (1, 10**3, 10**6, 10**9):
        if _FIRST_EPOCH_S * parts <= number < _LAST_EPOCH_S * parts:
            return datetime.fromtimestamp(number / parts, UTC)
    return None


def _from_iso(match: re.Match[str]) -> datetime:
    year, month, day, hour, minute, second = (int(match[group]) for group in range(1, 7))
    micros = int((match[7] or "0")[:6].ljust(6, "0"))
    found = datetime(year, month, day, hour, minute, second, micros, tzinfo=UTC)
    return found - _offset(match[8])


def _offset(text: str | None) -> timedelta:
    if not text or text[0] not in "+-":
        return timedelta()
    digits = text[1:].replace(":", "").ljust(4, "0")
    size = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return -size if text[0] == "-" else size
