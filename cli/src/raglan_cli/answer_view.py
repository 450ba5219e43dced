"""An answer on the screen while it streams: Markdown rendered in a terminal, as it is elsewhere."""

from __future__ import annotations

import re
from typing import Final

from rich.live import Live
from rich.markdown import Markdown
from rich.text import Text

from raglan_cli.screen import SafeConsole

_FENCE: Final = re.compile(r"^ {0,3}(?:`{3,}|~{3,})", re.MULTILINE)
_BLOCK_END: Final = re.compile(r"\n[ \t]*\n(?=\S)")


class AnswerView:
    """Prints an answer piece by piece.

    In a terminal the block that is being written is shown as it comes, and rendered once it is
    complete: a list or a fence cannot be rendered before. Use it as a context manager.
    """

    def __init__(self, console: SafeConsole) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._pending = ""
        self._begun = False

    def __enter__(self) -> AnswerView:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    @property
    def begun(self) -> bool:
        """Return whether anything was printed."""
        return self._begun

    def feed(self, text: str) -> None:
        """Show more of the answer."""
        self._begun = True
        if not self._console.is_terminal:
            self._console.print(Text(text), end="")
            return
        self._pending += text
        while (end := _end_of_block(self._pending)) is not None:
            block, self._pending = self._pending[:end], self._pending[end:].lstrip("\n")
            self._render(block)
        self._live.update(Text(self._pending), refresh=True)

    def finish(self) -> None:
        """Show what is left."""
        if not self._console.is_terminal:
            self._console.print()
            return
        if self._pending.strip():
            self._render(self._pending)
        self._pending = ""

    def _render(self, block: str) -> None:
        self._live.update(Text(""), refresh=True)
        # Without hyperlinks the address is printed: a document could hide it behind other words.
        self._console.print(Markdown(block, hyperlinks=False), soft_wrap=False)
        self._console.print()


def _end_of_block(text: str) -> int | None:
    """Return the end of the first complete block of Markdown; None while it may continue.

    What is indented belongs to the list item before it.
    """
    for match in _BLOCK_END.finditer(text):
        if len(_FENCE.findall(text, 0, match.start())) % 2 == 0:
            return match.start()
    return None
