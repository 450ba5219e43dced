"""Citation markers in a stream: `[3]` or `[1, 2]`, however the stream was cut."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_NUMBER: Final = r"\d{1,4}"
_MORE: Final = rf"(?: ?[,;] ?{_NUMBER})"
_MARKER: Final = re.compile(rf"( ?)\[ ?({_NUMBER}{_MORE}{{0,7}}) ?\]")
_BEGUN: Final = re.compile(rf" ?(?:\[ ?(?:{_NUMBER}{_MORE}{{0,7}}(?: ?[,;]? ?))?)?\Z")
"""What may still become a marker; at most 58 characters, so little is ever held back."""


@dataclass(frozen=True, slots=True)
class Marker:
    """A marker as the model wrote it; `space` is the one blank before it, or nothing."""

    numbers: tuple[int, ...]
    space: str = ""


class MarkerParser:
    """Splits a stream of text into text and markers; the same for every way to cut the stream."""

    def __init__(self) -> None:
        self._held = ""

    def feed(self, text: str) -> list[str | Marker]:
        """What is certain after `text`; the beginning of a possible marker is held back."""
        text = self._held + text
        pieces: list[str | Marker] = []
        end = 0
        for match in _MARKER.finditer(text):
            pieces.append(text[end : match.start()])
            numbers = tuple(int(number) for number in re.findall(_NUMBER, match.group(2)))
            pieces.append(Marker(numbers, match.group(1)))
            end = match.end()
        begun = _BEGUN.search(text, end)
        held = begun.start() if begun else len(text)
        pieces.append(text[end:held])
        self._held = text[held:]
        return [piece for piece in pieces if piece]

    def flush(self) -> str:
        """What was held back; the stream has ended."""
        held, self._held = self._held, ""
        return held
