"""The two consoles, and how text from documents reaches them.

Results go to stdout, everything about the work goes to stderr, so that `--json | jq` and
`> answer.txt` get nothing else.
"""

from __future__ import annotations

import json
import sys
import unicodedata
from typing import Any, Final

from rich.console import Console

_PIPE_WIDTH: Final = 160
"""Columns of a table that no terminal bounds."""

out: Final = Console(
    highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else _PIPE_WIDTH
)
"""Answers, tables, documents."""

err: Final = Console(stderr=True, highlight=False, soft_wrap=True)
"""Progress, notes, failures."""

_LAYOUT: Final = "\n\t"


def plain(text: str) -> str:
    """`text` without control characters: a document must not steer the reader's terminal."""
    return "".join(c for c in text if c in _LAYOUT or unicodedata.category(c) != "Cc")


def one_line(text: str, limit: int) -> str:
    """`text` with its white space folded, cut to `limit` characters with an ellipsis."""
    folded = " ".join(plain(text).split())
    return folded if len(folded) <= limit else folded[: limit - 1].rstrip() + "…"


def print_json(document: Any) -> None:
    """One JSON document on stdout; indented for a reader, on one line for a pipe."""
    indent = 2 if out.is_terminal else None
    out.file.write(json.dumps(document, ensure_ascii=False, indent=indent) + "\n")
    out.file.flush()
