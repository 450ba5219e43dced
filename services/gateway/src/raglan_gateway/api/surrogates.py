r"""Halves of surrogate pairs (`\ud800` alone) in JSON that arrives in pieces.

The parser of streams, yajl, turns them into question marks, and two of them into a character that
nobody sent. They are spelt as a noncharacter on the way through it, so that the checks of text find
them in their place.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

_HALF: Final = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])")
_UNFINISHED: Final = re.compile(
    rb"\\(?:u[0-9a-fA-F]{0,3}|u[dD][89abAB][0-9a-fA-F]{2}(?:\\(?:u[0-9a-fA-F]{0,3})?)?)?\Z"
)
"""An escape at the end of a piece, of which the next one tells whether it is a half."""
_LONGEST: Final = 11
"""Bytes of an unfinished escape: one less than of a pair."""


class SurrogateHalves:
    """Keeps them apart from other text of one body."""

    def __init__(self) -> None:
        self._held = b""
        self._found = False

    def mark(self, piece: bytes) -> bytes:
        """Return the bytes for the parser; the end of `piece` may follow with the next one."""
        data = self._held + piece
        end = _unfinished_from(data)
        self._held = data[end:]
        return _HALF.sub(self._marked, data[:end])

    def _marked(self, found: re.Match[bytes]) -> bytes:
        if _is_escaped(found.string, found.start()):
            return found[0]
        self._found = True
        return rb"\ufdd0"

    def rest(self) -> bytes:
        """Return what was kept back of a body that has ended."""
        return self._held

    def are_in(self, value: Any) -> bool:
        """Return whether a key or text anywhere in a restored value is or holds a half."""
        return self._found and "\ud800" in json.dumps(value, ensure_ascii=False)

    def restore(self, value: Any) -> Any:
        """Return a value of the parser with halves where there were any."""
        if self._found and isinstance(value, str):
            return value.replace("\ufdd0", "\ud800")
        return value


def _unfinished_from(data: bytes) -> int:
    """Return where an unfinished escape at the end of `data` begins; its length without one."""
    for found in _UNFINISHED.finditer(data, max(0, len(data) - _LONGEST)):
        if not _is_escaped(data, found.start()):
            return found.start()
    return len(data)


def _is_escaped(data: bytes, at: int) -> bool:
    """Return whether the backslash at `at` is the second one of an escaped backslash."""
    return (at - len(data[:at].rstrip(b"\\"))) % 2 == 1
