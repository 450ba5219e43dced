"""Logs: stored as they are, with their entries."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from raglan_ingester.logs.entries import read_log
from raglan_ingester.parsers.decoding import declared_in_media_type, decode_text
from raglan_ingester.parsers.parsed import ParsedDocument, Source
from raglan_ingester.parsers.text import read_text

_NO_LOG: Final = (
    "No form of log entries was recognised: the file was cut by its structure, without times "
    "and levels."
)


def parse(source: Source) -> ParsedDocument:
    """Read a log.

    Raises:
        Unparsable: it is empty, no text, or has too many entries.
    """
    decoded = decode_text(source.data, declared_in_media_type(source.media_type))
    log = read_log(decoded.text, datetime.now(UTC))
    if log is None:
        parsed = read_text(decoded.text)
        return replace(parsed, warnings=[*decoded.warnings, _NO_LOG])
    return ParsedDocument("", decoded.text, warnings=[*decoded.warnings, *log.warnings], log=log)
