"""Forms of the line that begins a log entry; the file's own form is found by counting."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

HEAD_CHARS: Final = 2_000
"""Of a line that are looked at."""
SAMPLE_LINES: Final = 2_000
_LEAST_SHARE: Final = 0.2
"""Entries of a second form, as a share of those of the most frequent one, that count as entries;
fewer may be lines inside of entries."""

_ISO: Final = (
    r"\d{4}[-/]\d\d[-/]\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:\s?(?:Z|UTC|GMT|[+-]\d\d:?\d\d))?"
)
_MONTH: Final = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
_LEVEL: Final = r"(?:TRACE|DEBUG|INFO|NOTICE|WARN(?:ING)?|ERROR|SEVERE|CRITICAL|FATAL|PANIC)"


@dataclass(frozen=True, slots=True)
class LogFormat:
    """A form of log entries.

    The pattern matches at the beginning of an entry's first line and ends where the message
    begins. Its groups `time`, `level` and `status` are optional.
    """

    name: str
    pattern: re.Pattern[str]
    heads_every_line: bool = False
    """True if each line of a stack trace has a head of its own."""
    is_json: bool = False


def _format(name: str, pattern: str, **options: bool) -> LogFormat:
    return LogFormat(name, re.compile(pattern, re.ASCII), **options)


FORMATS: Final = (
    _format("json", r"\{(?=\s*(?:\"|$))", is_json=True, heads_every_line=True),
    _format("cri", rf"(?P<time>{_ISO}) (?:stdout|stderr) [FP] ", heads_every_line=True),
    _format(
        "syslog5424", rf"<(?P<priority>\d{{1,3}})>\d{{1,2}} (?P<time>{_ISO}|-) \S+ \S+ \S+ \S+ "
    ),
    _format(
        "syslog",
        rf"(?:<(?P<priority>\d{{1,3}})>)?(?P<time>{_MONTH} [ \d]\d \d\d:\d\d:\d\d) \S+ "
        r"(?:[^\s:\[]+(?:\[\d+\])?: )?",
    ),
    _format(
        "access",
        rf"\S+ \S+ \S+ \[(?P<time>\d\d/{_MONTH}/\d{{4}}:\d\d:\d\d:\d\d [+-]\d{{4}})\] "
        r"(?=\"[^\"]*\" (?P<status>\d{3}) )",
    ),
    _format(
        "apache_error",
        rf"\[(?P<time>[A-Z][a-z]{{2}} {_MONTH} \d\d \d\d:\d\d:\d\d(?:\.\d+)? \d{{4}})\] ",
    ),
    _format("klog", r"(?P<level>[IWEF])(?P<time>\d{4} \d\d:\d\d:\d\d)\.\d+ +\d+ [^\s\]]+\] "),
    _format(
        "logcat",
        r"(?P<time>\d\d-\d\d \d\d:\d\d:\d\d)\.\d{3} +\d+ +\d+ (?P<level>[VDIWEF]) [^:]+: ",
    ),
    _format("logfmt", r"(?=(?:ts|t|time|timestamp|level|lvl)=\S)(?=.*\blevel=|.*\bmsg=)"),
    _format("brackets", rf"\[(?P<time>{_ISO})\]\s*(?:\[(?P<level>\w+)\s*\])?\s*"),
    _format("iso", rf"(?P<time>{_ISO})(?=\W|$)[\s,|:-]*"),
    _format("spark", rf"(?P<time>\d\d/\d\d/\d\d \d\d:\d\d:\d\d) (?={_LEVEL}\b)"),
    _format("hdfs", rf"(?P<time>\d{{6}} \d{{6}}) \d+ (?={_LEVEL}\b)"),
    _format("epoch", r"\[?(?P<time>1\d{9}(?:\.\d+)?)\]?[\s:]+"),
    _format("kernel", r"\[ *\d+\.\d{6}\] "),
    _format("level", rf"(?P<level>{_LEVEL})\b[:\s]\s*(?:\[?(?P<time>{_ISO})\]?)?"),
)
"""Tried in this order; the first that matches a line names its form."""

_ALONE: Final = "level"
"""Too weak to begin entries between those of another form: messages begin so too."""


def recognise(lines: Iterable[str]) -> tuple[LogFormat, ...]:
    """Return the forms of a log's entries, the most frequent first; none where it is no log."""
    counts: dict[LogFormat, int] = {}
    first: LogFormat | None = None
    seen = 0
    for line in lines:
        if not line.strip():
            continue
        found = next((each for each in FORMATS if _begins(each, line)), None)
        if found is not None:
            counts[found] = counts.get(found, 0) + 1
            first = first or (found if seen == 0 else None)
        seen += 1
    ranked = sorted(counts, key=lambda each: -counts[each])
    if not ranked or (counts[ranked[0]] < 3 and first is None):
        return ()
    most = counts[ranked[0]]
    others = (
        each for each in ranked[1:] if each.name != _ALONE and counts[each] >= _LEAST_SHARE * most
    )
    return (ranked[0], *others)


def _begins(form: LogFormat, line: str) -> bool:
    if not form.pattern.match(line, 0, HEAD_CHARS):
        return False
    if not form.is_json or not line.rstrip().endswith("}"):
        return True
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False
