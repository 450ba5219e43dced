"""The two consoles, and how text from documents and servers reaches them.

Results go to stdout, everything about the work goes to stderr, so that `--json | jq` and
`> answer.txt` get nothing else.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

_PIPE_WIDTH: Final = 160
"""Columns of a table that no terminal bounds."""

_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Control characters of terminals (C0, C1), and those that reorder text: without the latter
`exe.txt` can be shown for `txt.exe`. Line feeds and tabs stay."""

_NOT_IN_JSON: Final = re.compile(r"[\x7f-\x9f\ud800-\udfff]")
"""Characters that JSON does not escape, but a terminal obeys or an encoding cannot write."""


class SafeConsole(Console):
    """A console on which no printed text can steer the terminal.

    What it prints comes from documents, file names and servers. Text is never read as markup or
    emoji codes, and control characters are dropped where everything passes: in `render`. Rich's own
    control codes are segments of another kind.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, soft_wrap=True, **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """The segments of `renderable`, without control characters in their texts."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment(plain(segment.text), segment.style)


out: Final = SafeConsole(width=None if sys.stdout.isatty() else _PIPE_WIDTH)
"""Answers, tables, documents."""

err: Final = SafeConsole(stderr=True)
"""Progress, notes, failures."""


def note(text: Any, *, console: Console = err, **style: Any) -> None:
    """Print an optional line: a full disk or a closed terminal costs the line alone."""
    with suppress(OSError, ValueError):
        console.print(text, **style)


def plain(text: str) -> str:
    """`text` without control characters; half a surrogate pair, which has no bytes, as escape."""
    return _CONTROL.sub("", text).encode("utf-8", "backslashreplace").decode()


def counted(count: int, what: str) -> str:
    """`count` and the noun `what`, in the plural unless it is 1."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def one_line(text: str, limit: int) -> str:
    """`text` with its white space folded, cut to `limit` characters with an ellipsis."""
    folded = " ".join(plain(text).split())
    return folded if len(folded) <= limit else folded[: limit - 1].rstrip() + "…"


def print_json(document: Any) -> None:
    """One JSON document on stdout; indented for a reader, on one line for a pipe."""
    indent = 2 if out.is_terminal else None
    is_unicode = out.encoding.startswith("utf")
    text = json.dumps(document, ensure_ascii=not is_unicode, indent=indent)
    out.file.write(_NOT_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n")
    out.file.flush()
