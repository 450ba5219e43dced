"""Structured logs: one JSON line an event, or coloured text in a terminal.

Each line names its request and trace, its tenant, the stage, and what is left of the
deadline; nothing has to be bound for that. What `raglan.redaction` names never leaves, in lines of
other libraries either. Logging never raises: a full disk or a closed terminal costs lines, which
are counted, and not the code that logs.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import lru_cache
from types import TracebackType
from typing import Any, Final, TextIO

import structlog
from pydantic import BaseModel, SecretStr
from structlog.typing import EventDict, ExcInfo

from raglan import deadline, redaction, tenancy
from raglan.context_variables import restore
from raglan.settings import ServiceSettings
from raglan.telemetry import context

STAGES: Final = {
    "embedder": "embed",
    "retriever": "retrieve",
    "reranker": "rerank",
    "generator": "generate",
}
"""Service -> the stage that it is."""

_stage: ContextVar[str] = ContextVar("raglan_stage", default="")

# Without the local variables that structlog and rich show by default: they hold queries and texts.
_exceptions: Final = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
_OF_EXCEPTIONS: Final = -6
"""Depth at which they begin: chains and groups of them nest."""

_encode: Final = json.JSONEncoder(allow_nan=False).encode


def configure(settings: ServiceSettings, service: str) -> None:
    """Set up structlog and the standard library's logging for this process, on stderr."""
    json_lines = settings.log_format == "json" or (
        settings.log_format == "auto" and not sys.stderr.isatty()
    )
    redaction.register_secrets(_secrets(settings))
    lines: _Lines = _JsonLines(service) if json_lines else _ConsoleLines(service)
    level = getattr(logging, settings.log_level.upper())
    structlog.configure(
        processors=[lines],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lines.logger,
        cache_logger_on_first_use=True,
    )
    foreign = _Foreign(lines)
    logging.raiseExceptions = False
    logging.basicConfig(handlers=[foreign], level=max(level, logging.WARNING), force=True)
    logging.captureWarnings(True)
    sys.excepthook = foreign.uncaught


class in_stage:  # noqa: N801 - reads as a statement: with in_stage(...)
    """Lines of this block name the stage."""

    __slots__ = ("_name", "_token")

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        self._token = _stage.set(self._name)

    def __exit__(self, *_: object) -> None:
        restore(self._token, self._name)


class Output:
    """Writes whole lines to a stream, past its buffers, and survives what the stream does."""

    def __init__(self, stream: TextIO) -> None:
        # Data left in a buffer would fail again with every line that follows.
        self._raw: Any = getattr(stream.buffer, "raw", stream.buffer)
        self._lock = threading.Lock()
        self._lost = 0
        self._before = b""
        """Ends a line of which only a part was written."""

    def msg(self, line: bytes) -> None:
        """Write `line` and what ends it. What cannot be written is counted instead."""
        with self._lock:
            if self._lost:
                lost = b'{"level": "warning", "event": "log lines lost", "lines": %d}' % self._lost
                self._lost = 0 if self._write(lost) else self._lost
            if self._lost or not self._write(line):
                self._lost += 1

    debug = info = warning = error = critical = exception = log = msg

    def _write(self, line: bytes) -> bool:
        rest = self._before + line + b"\n"
        try:
            while rest:
                written = self._raw.write(rest)
                if not written:  # it would block
                    return False
                rest, self._before = rest[written:], b"\n"
        except (OSError, ValueError):
            return False
        self._before = b""
        return True


class _Lines:
    """Makes a line of an event: structlog's one processor."""

    def __init__(self, service: str) -> None:
        self._service = service
        self._own_stage = STAGES.get(service, "")
        self._output = Output(sys.stderr)

    def logger(self, *_: Any) -> Output:
        """Return the output that lines are written to."""
        return self._output

    def __call__(self, _: Any, level: str, event: EventDict) -> bytes:
        """The line. One that cannot be made is only named: its parts may hold anything."""
        name = event.get("event")
        try:
            return self.line(level, event)
        except Exception as error:  # noqa: BLE001 - no value in a line may end what logs it
            fields = {"event": "a line that cannot be made", "cause": type(error).__name__}
            if type(name) is str:
                fields["of"] = name
            return self.line(level, fields)

    def line(self, level: str, event: EventDict) -> bytes:
        """Encoded, without its end."""
        raise NotImplementedError

    def fields(self, level: str, event: EventDict) -> dict[str, Any]:
        """Build the redacted fields of a record. Constant texts of ours are not searched."""
        known: dict[str, Any] = {
            "timestamp": _timestamp(time.time_ns()),
            "level": level,
            "service": self._service,
            "event": redaction.redact_value(event.pop("event", "")),
        }
        if request_id := context.request_id():
            known["request_id"] = request_id
        if trace_id := context.trace_id():
            known["trace_id"] = trace_id
        if tenant := tenancy.current():
            known["tenant"] = tenant
        if stage := event.pop("stage", "") or _stage.get() or self._own_stage:
            known["stage"] = redaction.redact_value(stage)
        if limit := deadline.current():
            known["remaining_ms"] = round(limit.remaining_s() * 1e3)
        for name, value in event.items():
            known.setdefault(name, redaction.redact_field(name, value))
        return known


class _JsonLines(_Lines):
    def line(self, level: str, event: EventDict) -> bytes:
        raised = _exc_info(event.pop("exc_info", None))
        fields = self.fields(level, event)
        if raised is not None:
            fields["exception"] = redaction.redact_value(_exceptions(raised), _OF_EXCEPTIONS)
        return _encode(fields).encode()


class _ConsoleLines(_Lines):
    def __init__(self, service: str) -> None:
        super().__init__(service)
        self._render = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())

    def line(self, level: str, event: EventDict) -> bytes:
        raised = _exc_info(event.pop("exc_info", None))
        fields = self.fields(level, event)
        if raised is not None:
            lines = "".join(traceback.format_exception(*raised)).rstrip("\n")
            fields["exception"] = redaction.traceback(lines)
        return str(self._render(None, level, fields)).encode("utf-8", "backslashreplace")


class _Foreign(logging.Handler):
    """Lines of libraries that use the standard library's logging, in the same form."""

    def __init__(self, lines: _Lines) -> None:
        super().__init__()
        self._lines = lines
        self._logger = lines.logger()

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line. One that cannot be made is only named: its parts may hold anything."""
        fields: EventDict = {"logger": record.name, "exc_info": record.exc_info}
        try:
            fields["event"] = record.getMessage()
        except Exception:  # noqa: BLE001 - arguments that do not fit the message, or cannot be text
            fields["event"] = "a message that cannot be formatted"
            fields["line"] = f"{record.filename}:{record.lineno}"
        self._write(record.levelname.lower(), fields)

    def uncaught(
        self, type_: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        """Log an uncaught exception; the signature of `sys.excepthook`."""
        if issubclass(type_, KeyboardInterrupt):
            sys.__excepthook__(type_, error, trace)
            return
        self._write("critical", {"event": "ended by an error", "exc_info": (type_, error, trace)})

    def _write(self, level: str, fields: EventDict) -> None:
        self._logger.msg(self._lines(None, level, fields))


def _timestamp(now_ns: int) -> str:
    """ISO 8601 in UTC, to the microsecond."""
    second, rest_ns = divmod(now_ns, 1_000_000_000)
    return f"{_second(second)}.{rest_ns // 1_000:06d}Z"


@lru_cache(1)
def _second(second: int) -> str:
    """Formatting it takes longer than all else of a timestamp, and many lines share it."""
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _exc_info(given: Any) -> ExcInfo | None:
    """The exception that `exc_info` stands for: itself, a triple, or true for the present one."""
    if isinstance(given, BaseException):
        return type(given), given, given.__traceback__
    found = given if isinstance(given, tuple) else sys.exc_info() if given else None
    if found is None or found[0] is None or found[1] is None:
        return None
    return found[0], found[1], found[2]


def _secrets(settings: BaseModel) -> Iterator[str]:
    """Yield the secret values of the settings, nested ones included."""
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            yield value.get_secret_value()
        elif isinstance(value, BaseModel):
            yield from _secrets(value)
