"""Logs of many formats with known entries, stack traces of several lines among them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

BEGIN = datetime(2026, 11, 20, 13, 30, tzinfo=UTC)
JAVA = (
    "java.lang.IllegalStateException: pool is closed\n"
    "\tat com.example.pool.Pool.take(Pool.java:{a})\n"
    "\tat com.example.web.Handler.handle(Handler.java:{b})\n"
    "Caused by: java.net.SocketTimeoutException: read timed out\n"
    "\t... {c} more"
)
PYTHON = (
    "Traceback (most recent call last):\n"
    '  File "/srv/app/main.py", line {a}, in handle\n'
    "    result = fetch(order)\n"
    '  File "/srv/app/client.py", line {b}, in fetch\n'
    "    raise TimeoutError(order)\n"
    "TimeoutError: {c}"
)
EVENTS = (
    ("info", "Accepted connection from 10.0.{a}.{b} port {c}", ""),
    ("info", "Order {c} was paid in {a} ms", ""),
    ("info", "User alice{a} logged in", ""),
    ("debug", "Cache miss for key session:{c}", ""),
    ("warning", "Queue depth is {a}, limit {b}", ""),
    ("warning", "Slow query took {a} ms on table orders", ""),
    ("error", "Connection to database failed after {a} attempts", ""),
    ("error", "Handling of request {c} failed", JAVA),
    ("error", "Unhandled exception in worker {a}", PYTHON),
    ("fatal", "Disk /dev/sd{a} is full, stopping", ""),
)
WEIGHTS = (30, 20, 12, 14, 6, 6, 5, 3, 3, 1)


@dataclass(frozen=True, slots=True)
class Wanted:
    """An entry as it was written."""

    text: str
    time: datetime
    level: str
    event: int


@dataclass(frozen=True, slots=True)
class LogFile:
    """A log and what is in it."""

    format: str
    text: str
    entries: list[Wanted]


Write = Callable[[datetime, str, str, str], str]
"""(time, level, message, trace) -> the entry's lines."""


def _upper(level: str) -> str:
    return {"warning": "WARN", "fatal": "FATAL"}.get(level, level.upper())


def _trace(trace: str) -> str:
    return f"\n{trace}" if trace else ""


def _log4j(time: datetime, level: str, message: str, trace: str) -> str:
    stamp = f"{time:%Y-%m-%d %H:%M:%S},{time.microsecond // 1000:03d}"
    return f"{stamp} {_upper(level):5} [main] c.e.Server - {message}{_trace(trace)}"


def _python(time: datetime, level: str, message: str, trace: str) -> str:
    name = {"fatal": "CRITICAL"}.get(level, level.upper())
    stamp = f"{time:%Y-%m-%d %H:%M:%S},{time.microsecond // 1000:03d}"
    return f"{stamp} - app.orders - {name} - {message}{_trace(trace)}"


def _rfc3339(time: datetime, level: str, message: str, trace: str) -> str:
    return f"{time:%Y-%m-%dT%H:%M:%S}.{time.microsecond:06d}Z {_upper(level)} server: {message}{_trace(trace)}"  # noqa: E501


def _brackets(time: datetime, level: str, message: str, trace: str) -> str:
    return f"[{time:%Y-%m-%dT%H:%M:%S}][{_upper(level):5}] [node-1] {message}{_trace(trace)}"


def _json(time: datetime, level: str, message: str, trace: str) -> str:
    record = {"time": time.isoformat(), "level": level, "msg": message}
    return json.dumps(record | ({"stack": trace} if trace else {}))


def _json_pretty(time: datetime, level: str, message: str, trace: str) -> str:
    record = {"timestamp": time.isoformat(), "severity": _upper(level), "message": message}
    return json.dumps(record | ({"stack": trace} if trace else {}), indent=2)


def _logfmt(time: datetime, level: str, message: str, trace: str) -> str:
    tail = " trace=" + json.dumps(trace) if trace else ""
    return f'time={time:%Y-%m-%dT%H:%M:%SZ} level={level} msg="{message}"{tail}'


def _syslog(time: datetime, level: str, message: str, trace: str) -> str:
    return f"{time:%b} {time.day:2d} {time:%H:%M:%S} host1 app[812]: {_upper(level)} {message}{_trace(trace)}"  # noqa: E501


def _syslog5424(time: datetime, level: str, message: str, trace: str) -> str:
    code = 8 + {"debug": 7, "info": 6, "warning": 4, "error": 3, "fatal": 2}[level]
    return f"<{code}>1 {time:%Y-%m-%dT%H:%M:%SZ} host1 app 812 - - {message}{_trace(trace)}"


def _klog(time: datetime, level: str, message: str, trace: str) -> str:
    letter = {"debug": "I"}.get(level, level[0].upper())
    return f"{letter}{time:%m%d %H:%M:%S}.{time.microsecond:06d}       1 server.go:42] {message}{_trace(trace)}"  # noqa: E501


def _apache_error(time: datetime, level: str, message: str, trace: str) -> str:
    name = {"warning": "warn", "fatal": "crit"}.get(level, level)
    return f"[{time:%a %b %d %H:%M:%S}.{time.microsecond:06d} {time.year}] [core:{name}] {message}{_trace(trace)}"  # noqa: E501


def _nginx_error(time: datetime, level: str, message: str, trace: str) -> str:
    name = {"warning": "warn", "fatal": "crit"}.get(level, level)
    return f"{time:%Y/%m/%d %H:%M:%S} [{name}] 12#0: {message}{_trace(trace)}"


def _access(time: datetime, level: str, message: str, trace: str) -> str:
    status = {"error": 500, "fatal": 503, "warning": 404}.get(level, 200)
    return f'10.0.0.7 - - [{time:%d/%b/%Y:%H:%M:%S} +0000] "GET /{message.split()[0]} HTTP/1.1" {status} 512'  # noqa: E501


def _cri(time: datetime, level: str, message: str, trace: str) -> str:
    head = f"{time:%Y-%m-%dT%H:%M:%S}.{time.microsecond:06d}000Z stderr F "
    lines = (
        [f"{_upper(level)} {message}", *trace.split("\n")]
        if trace
        else [f"{_upper(level)} {message}"]
    )
    if trace.startswith("java"):  # as a logger writes it, on the line of the message
        lines[:2] = [f"{lines[0]} {lines[1]}"]
    return "\n".join(head + line for line in lines)


FORMATS: dict[str, Write] = {
    "log4j": _log4j, "python": _python, "rfc3339": _rfc3339, "brackets": _brackets,
    "json": _json, "json_pretty": _json_pretty, "logfmt": _logfmt, "syslog": _syslog,
    "syslog5424": _syslog5424, "klog": _klog, "apache_error": _apache_error,
    "nginx_error": _nginx_error, "access": _access, "cri": _cri,
}  # fmt: skip
LEVELS_LOST = {"klog": {"debug": "info"}, "access": {"debug": "info", "fatal": "error"}}
"""What a format does not tell apart."""


def make(name: str, *, entries: int = 400, seed: int = 7) -> LogFile:
    """A log of a format, the same for the same seed."""
    draw = random.Random(f"{name} {seed}")
    time, wanted = BEGIN, list[Wanted]()
    for _ in range(entries):
        time += timedelta(milliseconds=draw.choice((40, 900, 2_000, 9_000)))
        if draw.random() < 0.01:
            time += timedelta(minutes=20)
        event = draw.choices(range(len(EVENTS)), WEIGHTS)[0]
        level, message, trace = EVENTS[event]
        known = {
            "a": draw.randrange(1, 99),
            "b": draw.randrange(1, 255),
            "c": draw.randrange(10**6),
        }
        text = FORMATS[name](time, level, message.format(**known), trace.format(**known))
        level = LEVELS_LOST.get(name, {}).get(level, level)
        wanted.append(Wanted(text, time, level, event))
    return LogFile(name, "\n".join(each.text for each in wanted) + "\n", wanted)
