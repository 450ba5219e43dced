"""The entries of a log: each with all of its lines, its time, its level and its message."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, Final

from raglan_ingester.logs.formats import HEAD_CHARS, SAMPLE_LINES, LogFormat, recognise
from raglan_ingester.logs.times import Clock, from_epoch
from raglan_ingester.parsers.parsed import Unparsable

MAX_ENTRY_CHARS: Final = 16_000
"""Of an entry that stays whole: a line of megabytes is no longer one thing to find."""
MAX_ENTRIES: Final = 1_000_000
MESSAGE_CHARS: Final = 400

_LEVELS: Final = {
    "trace": "trace", "v": "trace", "debug": "debug", "d": "debug",
    "info": "info", "information": "info", "notice": "info", "i": "info",
    "warn": "warning", "warning": "warning", "w": "warning",
    "error": "error", "err": "error", "severe": "error", "e": "error",
    "critical": "fatal", "crit": "fatal", "fatal": "fatal", "alert": "fatal", "emerg": "fatal",
    "panic": "fatal", "f": "fatal",
}  # fmt: skip
SEVERITY: Final = ("", "trace", "debug", "info", "warning", "error", "fatal")
"""From the least to the most severe."""
_BY_PRIORITY: Final = (*("fatal",) * 3, "error", "warning", "info", "info", "debug")
_LEVEL_CHARS: Final = 120
_NAMED_LEVEL: Final = re.compile(
    r"\b(TRACE|DEBUG|INFO|NOTICE|WARN(?:ING)?|ERROR|ERR|SEVERE|CRITICAL|CRIT|FATAL|PANIC)\b"
    r"|\blevel=\"?([A-Za-z]+)"
    r"|[\[<:](trace|debug|info|notice|warn(?:ing)?|error|crit|alert|emerg)[\]>]"
    r"|\b(debug|info|notice|warning|warn|error|critical|fatal): "
)
_CRASH: Final = re.compile(
    r"Traceback \(most recent call last\)|^Exception in thread|^panic: |^[ \t]+at [\w.$<>]+\(",
    re.MULTILINE,
)
_IN_TRACE: Final = re.compile(
    r"[ \t]+\S|Caused by: |Suppressed: |\.\.\. \d+ more|at [\w.$<>/]+\(|goroutine \d+"
    r"|Traceback \(|$"
)
"""Beginning of a message that continues the entry before it, where each line has a head."""
_PYTHON_TRACE: Final = re.compile(r"Traceback \(most recent call last\)|[ \t]+File \"")
_MESSAGE_KEYS: Final = ("message", "msg", "event", "log", "body", "text")
_TIME_KEYS: Final = ("@timestamp", "timestamp", "time", "ts", "datetime", "t")
_LEVEL_KEYS: Final = ("level", "severity", "lvl", "levelname", "log.level", "loglevel")
_LOGFMT: Final = re.compile(r"\b(ts|t|time|timestamp|msg|message)=(?:\"((?:[^\"\\]|\\.)*)\"|(\S+))")


@dataclass(slots=True)
class Entry:
    """A log entry: text[start:end]."""

    start: int
    end: int
    time: datetime | None
    level: str
    """One of `SEVERITY`; empty where it is unknown."""
    message: str
    """Beginning of the message, without the head."""


@dataclass(frozen=True, slots=True)
class Log:
    """A text read as a log."""

    format: str
    """Names of its forms, the most frequent first."""
    entries: list[Entry]
    warnings: list[str]


def read_log(text: str, now: datetime) -> Log | None:
    """Read a text as a log; None where no form of log entries is recognised.

    Args:
        text: the log.
        now: to find the year of times without one.

    Raises:
        Unparsable: it has more entries than are kept in memory.
    """
    forms = recognise(
        islice((text[a : min(b, a + HEAD_CHARS)] for a, b in _lines(text)), SAMPLE_LINES)
    )
    if not forms:
        return None
    clock = Clock(now)
    entries: list[Entry] = []
    split = 0
    for entry in _entries(text, forms, clock):
        pieces = list(_bounded(text, entry))
        split += len(pieces) > 1
        entries += pieces
        if len(entries) > MAX_ENTRIES:
            raise Unparsable(
                f"The log has more than {MAX_ENTRIES:,} entries, the limit; split the file."
            )
    warnings = []
    if split:
        warnings.append(
            f"{split:,} entries are longer than {MAX_ENTRY_CHARS:,} characters and were split."
        )
    if clock.guessed_year:
        warnings.append(
            "The log's times have no year; each was taken as of the last twelve months."
        )
    return Log(",".join(form.name for form in forms), entries, warnings)


def _lines(text: str) -> Iterator[tuple[int, int]]:
    start = 0
    while start < len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        yield start, end
        start = end + 1


def _entries(text: str, forms: Sequence[LogFormat], clock: Clock) -> Iterator[Entry]:
    """The entries; what stands before the first head is one of its own."""
    current: Entry | None = None
    in_python_trace = False
    for start, end in _lines(text):
        line = text[start : min(end, start + HEAD_CHARS)]
        found = _head(line, forms)
        if found is not None and current is not None and found[0].heads_every_line:
            message = _message(line, *found)
            if _IN_TRACE.match(message) or in_python_trace:
                found = None
            # It ends with the name of the exception, the first line that is not indented.
            in_python_trace = bool(_PYTHON_TRACE.match(message)) or (
                in_python_trace and message[:1] in (" ", "\t")
            )
        if found is not None:
            if current is not None:
                yield _closed(text, current, clock)
            current = _begun(line, start, end, *found, clock)
        elif current is None:
            if line.strip():
                current = Entry(start, end, None, "", line[:MESSAGE_CHARS])
        else:
            current.end = end
    if current is not None:
        yield _closed(text, current, clock)


def _head(line: str, forms: Sequence[LogFormat]) -> tuple[LogFormat, re.Match[str]] | None:
    if line[:1] in ("", " ", "\t", "}"):
        return None
    for form in forms:
        if match := form.pattern.match(line):
            return form, match
    return None


def _message(line: str, form: LogFormat, match: re.Match[str]) -> str:
    if form.is_json:
        return str(_field(_record(line), _MESSAGE_KEYS) or line).removesuffix("\n")
    return line[match.end() :]


def _begun(
    line: str, start: int, end: int, form: LogFormat, match: re.Match[str], clock: Clock
) -> Entry:
    known = match.groupdict()
    message = line[match.end() :]
    time, level = known.get("time"), known.get("level") or ""
    if form.is_json:  # read when all of its lines are known
        return Entry(start, end, None, "", line)
    if form.name == "logfmt":
        fields = {name: quoted or plain for name, quoted, plain in _LOGFMT.findall(line)}
        message = fields.get("msg") or fields.get("message") or line
        time = next((fields[key] for key in _TIME_KEYS if key in fields), None)
    level = _LEVELS.get(level.lower(), "") or _level_of(line, known)
    return Entry(
        start, end, clock.read(time) if time else None, level, message[:MESSAGE_CHARS].strip()
    )


def _level_of(line: str, known: dict[str, Any]) -> str:
    if priority := known.get("priority"):
        return _BY_PRIORITY[int(priority) % 8]
    if status := known.get("status"):
        return {"5": "error", "4": "warning"}.get(status[0], "info")
    if match := _NAMED_LEVEL.search(line, 0, _LEVEL_CHARS):
        return _LEVELS.get(next(filter(None, match.groups())).lower(), "")
    return ""


def _closed(text: str, entry: Entry, clock: Clock) -> Entry:
    """The entry without blank lines at its end, with what only all of its lines tell."""
    piece = text[entry.start : entry.end].rstrip()
    entry.end = entry.start + len(piece)
    if piece.startswith("{") and len(piece) <= MAX_ENTRY_CHARS:
        record = _record(piece)
        time, level = _field(record, _TIME_KEYS), str(_field(record, _LEVEL_KEYS) or "")
        if isinstance(time, str):
            entry.time = clock.read(time)
        elif isinstance(time, int | float):
            entry.time = from_epoch(time)
        entry.message = str(_field(record, _MESSAGE_KEYS) or piece)[:MESSAGE_CHARS].strip()
        entry.level = _LEVELS.get(level.lower(), "") or _level_of(entry.message, {})
    if not entry.level and _CRASH.search(piece[:MAX_ENTRY_CHARS]):
        entry.level = "error"
    return entry


def _bounded(text: str, entry: Entry) -> Iterator[Entry]:
    start = entry.start
    while entry.end - start > MAX_ENTRY_CHARS:
        cut = text.rfind("\n", start + 1, start + MAX_ENTRY_CHARS) + 1
        cut = cut if cut > start else start + MAX_ENTRY_CHARS
        yield Entry(start, cut, entry.time, entry.level, entry.message)
        start = cut
    yield Entry(start, entry.end, entry.time, entry.level, entry.message)


def _record(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):  # cut, or on several lines
        return {}
    return found if isinstance(found, dict) else {}


def _field(record: dict[str, Any], keys: Sequence[str]) -> Any:
    return next((record[key] for key in keys if record.get(key)), None)
