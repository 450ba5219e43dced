"""The data of server-sent events, from bytes however they are cut.

Follows "Interpreting an event stream" of the HTML standard; what is not data is passed over.
"""

from __future__ import annotations

import re
from typing import Final

from raglan.errors import Unavailable

_LINE_END: Final = re.compile(rb"\r\n|\n|\r(?!\Z)")
"""A carriage return at the very end may be half of a pair: what comes next tells."""

MAX_EVENT_BYTES: Final = 4 * 1024 * 1024


class EventData:
    """One stream; `feed` it what arrives."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []
        self._held = 0

    def feed(self, more: bytes) -> list[str]:
        """The data of each event that is now complete, its lines joined by newlines.

        Raises:
            Unavailable: an event is larger than `MAX_EVENT_BYTES`.
        """
        *lines, self._rest = _LINE_END.split(self._rest + more)
        events = []
        for line in lines:
            field, _, value = line.partition(b":")
            if field == b"data":
                self._data.append(value.removeprefix(b" "))
                self._held += len(line)
            elif not line and self._data:
                events.append(b"\n".join(self._data).decode(errors="replace"))
                self._data, self._held = [], 0
        if self._held + len(self._rest) > MAX_EVENT_BYTES:
            raise Unavailable(f"The LLM server sent an event larger than {MAX_EVENT_BYTES} bytes.")
        return events
