"""The data of server-sent events, from bytes however they are cut.

Follows "Interpreting an event stream" of the HTML standard, with the deviations of model servers:
an error in a field or an event of that name, and a last event without the blank line that ends it.
"""

from __future__ import annotations

import json
import re
from typing import Final

from raglan.errors import Unavailable

_LINE_END: Final = re.compile(rb"\r\n|\n|\r(?!\Z)")
"""A carriage return at the very end may be half of a pair: the next character decides."""
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"

MAX_EVENT_BYTES: Final = 4 * 1024 * 1024


class EventData:
    """One stream; `feed` it what arrives."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []
        self._held = 0
        self._is_error = False
        self._at_start = True

    def feed(self, more: bytes) -> list[str]:
        """Take in more bytes.

        Returns:
            The data of each event that is now complete, its lines joined by newlines. That of an
            error is an object with the key `error`. Events without data are left out.

        Raises:
            Unavailable: an event is larger than `MAX_EVENT_BYTES`.
        """
        more = self._rest + more
        if self._at_start:
            if len(more) < len(_BYTE_ORDER_MARK) and _BYTE_ORDER_MARK.startswith(more):
                self._rest = more
                return []
            more, self._at_start = more.removeprefix(_BYTE_ORDER_MARK), False
        *lines, self._rest = _LINE_END.split(more)
        events = []
        for line in lines:
            if line:
                self._read(line)
            else:
                events += self._complete()
        if self._held + len(self._rest) > MAX_EVENT_BYTES:
            raise Unavailable(f"The LLM server sent an event larger than {MAX_EVENT_BYTES} bytes.")
        return events

    def end(self) -> list[str]:
        """The last event, where the stream ended without a blank line; none if it was cut."""
        if rest := self._rest.rstrip(b"\r"):
            self._read(rest)
        self._rest = b""
        events = self._complete()
        return [data for data in events if data == "[DONE]" or _is_json(data)]

    def _read(self, line: bytes) -> None:
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"event":
            self._is_error = value == b"error"
        elif field in (b"data", b"error"):
            # llama.cpp's server writes a line `error: {...}`.
            self._is_error = self._is_error or field == b"error"
            self._data.append(value)
            self._held += len(line)

    def _complete(self) -> list[str]:
        data = b"\n".join(self._data).decode(errors="replace")
        is_error = self._is_error
        self._data, self._held, self._is_error = [], 0, False
        if not data.strip():
            return []
        return [_as_error(data) if is_error else data]


def _as_error(data: str) -> str:
    """`data` under the key `error`, unless it has that key."""
    try:
        value = json.loads(data)
    except ValueError:
        value = data
    if isinstance(value, dict) and "error" in value:
        return data
    return json.dumps({"error": value})


def _is_json(data: str) -> bool:
    try:
        json.loads(data)
    except ValueError:
        return False
    return True
