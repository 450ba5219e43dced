"""Structured logs: one JSON line an event, or coloured text in a terminal.

Request id and trace id are bound once a request (`raglan.telemetry.context`) and appear in every
line of it, with what is left of its deadline. Queries, passages and answers are never logged.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, Final

import structlog

from raglan import deadline
from raglan.settings import ServiceSettings

# Without the local variables that structlog and rich show by default: they hold queries and texts.
_TRACEBACKS: Final = structlog.processors.ExceptionRenderer(
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
)


def configure(settings: ServiceSettings, service: str) -> None:
    """Set up structlog and the standard library's logging for this process, on stderr."""
    json_lines = settings.log_format == "json" or (
        settings.log_format == "auto" and not sys.stderr.isatty()
    )
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _named(service),
        _with_remaining_ms,
    ]
    renderer: list[structlog.typing.Processor] = (
        [_TRACEBACKS, structlog.processors.JSONRenderer()]
        if json_lines
        else [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
    )
    level = getattr(logging, settings.log_level.upper())
    structlog.configure(
        processors=[*shared, *renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(level, logging.WARNING), force=True)


def _named(service: str) -> structlog.typing.Processor:
    def add(_: Any, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        event["service"] = service
        return event

    return add


def _with_remaining_ms(
    _: Any, __: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    if limit := deadline.current():
        event["remaining_ms"] = round(limit.remaining_s() * 1e3)
    return event
