"""The text that a browser would show of a fragment of HTML inside Markdown."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Final

_SKIPPED: Final = frozenset(("script", "style", "template", "svg"))
_HEADINGS: Final = {f"h{level}": level for level in range(1, 7)}


class ShownText(HTMLParser):
    """Feed it the fragment, then read `text` and `heading`."""

    def __init__(self, fragment: str) -> None:
        super().__init__()
        self.heading = 0
        """Level of the heading that the fragment begins with; 0 for none."""
        self._parts: list[str] = []
        self._skipping = 0
        self.feed(fragment)
        self.close()

    @property
    def text(self) -> str:
        """Return the shown text on one line."""
        return " ".join(" ".join(self._parts).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """See `HTMLParser`."""
        if tag in _SKIPPED:
            self._skipping += 1
        elif tag in _HEADINGS and not self._parts:
            self.heading = _HEADINGS[tag]

    def handle_endtag(self, tag: str) -> None:
        """See `HTMLParser`."""
        if tag in _SKIPPED and self._skipping:
            self._skipping -= 1

    def handle_data(self, data: str) -> None:
        """See `HTMLParser`."""
        if not self._skipping and data.strip():
            self._parts.append(data)
