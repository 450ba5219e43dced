"""Reason of a service's end: the last sentence of its log."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from typing import Any, Final

_LIBRARY_NOTE: Final = re.compile(r"[IW]\d{4} \d\d:")
"""Prefix of the harmless log lines of gRPC's C++ core."""

_TAIL_BYTES: Final = 16 * 1024
_SENTENCES: Final = 8
"""A service that refuses its settings prints one line for each."""


def exit_reason(returncode: int, log: Path, *, since: int = 0) -> str:
    """The reason, from what `log` holds after `since` bytes, else from the exit status."""
    return reason_in(_tail(log, since)) or _by_status(returncode)


def stage_of_start(log: Path) -> str:
    """Return the current step of a starting service: its model conversion or wait; else empty."""
    last = _event(next(iter(reversed(_tail(log, 0).splitlines())), "")) or {}
    told = {"converting": "stage", "waiting": "reason"}.get(str(last.get("event")))
    return str(last.get(told, "")) if told else ""


def reason_in(text: str) -> str:
    """The last error of a log: a JSON event's reason, a traceback's last line, or plain sentences.

    Empty when the log holds none of these.
    """
    sentences: list[str] = []
    for line in reversed(
        [line for line in text.splitlines() if line.strip() and not _LIBRARY_NOTE.match(line)]
    ):
        event = _event(line)
        if event is None:
            sentences.append(line.strip())
        elif event.get("level") in {"error", "critical"} and not sentences:
            return _of_event(event)
        elif sentences:
            break
    sentences.reverse()
    if any(line.startswith("Traceback ") for line in sentences):
        return sentences[-1]
    return "\n".join(sentences[-_SENTENCES:])


def _event(line: str) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) else None


def _of_event(event: dict[str, Any]) -> str:
    if reason := event.get("reason"):
        return str(reason)
    exceptions = event.get("exception")
    if isinstance(exceptions, list) and exceptions and isinstance(exceptions[-1], dict):
        last = exceptions[-1]
        return f"{last.get('exc_type', 'Error')}: {last.get('exc_value', '')}".strip(": ")
    if isinstance(exceptions, str) and exceptions.strip():
        return exceptions.strip().splitlines()[-1]
    return str(event.get("event", ""))


def _by_status(returncode: int) -> str:
    if returncode == -signal.SIGKILL:
        return "It was killed (SIGKILL); on Linux that is often the kernel, short of memory."
    if returncode < 0:
        return f"It was ended by {signal.Signals(-returncode).name}."
    return f"It ended with status {returncode} and said nothing."


def _tail(log: Path, since: int) -> str:
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            if since > size:  # it was rotated since
                since = 0
            file.seek(max(since, size - _TAIL_BYTES))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""
