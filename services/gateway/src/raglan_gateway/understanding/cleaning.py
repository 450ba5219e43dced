"""Questions as they were meant: without control characters, escape sequences and pasted quotes."""

from __future__ import annotations

import re
from typing import Final

_ESCAPES: Final = re.compile(
    r"\x1b\[[0-9;:?]{0,32}[A-Za-z]|\x1b\][^\x07\x1b\n]{0,500}(?:\x07|\x1b\\)|[\x9b\x1b]"
)
"""Sequences by which a terminal sets colours, titles and the cursor."""

_REMOVED: Final = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f"  # control characters
    "\u00ad\u200b\u200e\u200f\u2060-\u2064\ufeff"  # soft hyphen, zero width, marks of direction
    "\u202a-\u202e\u2066-\u206f"  # embedding and override of direction
    "\ufff9-\ufffb\U000e0000-\U000e007f]"  # annotations, tags, which no reader sees
)
"""The joiners U+200C and U+200D stay: words of Persian and emoji are written with them."""

_LINE_ENDS: Final = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_SPACES: Final = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
_TRAILING: Final = re.compile(r"(?<![ \t])[ \t]+\n")
_BLANK_LINES: Final = re.compile(r"\n{3,}")
_QUOTE_MARKS: Final = re.compile(r"(?:>[ \t]+)+|>+$")
"""Of a line quoted in a mail or in Markdown; `>= 3.9` begins otherwise."""

_PAIRS: Final = {
    '"': '"', "'": "'", "`": "`", "\u201c": "\u201d", "\u201e": "\u201c", "\u2018": "\u2019",
    "\u201a": "\u2018", "\u00ab": "\u00bb", "\u2039": "\u203a", "\u300c": "\u300d",
}  # fmt: skip
_MOST_PAIRS: Final = 3
"""Quotes around quotes that are removed."""


def clean(text: str) -> str:
    """Return `text` without what its reader does not see, and without quotes around all of it.

    Line breaks and indentation stay: code and lists need them.

    Returns:
        The text; empty where nothing of it can be seen.
    """
    if not text.isascii():
        text = _SPACES.sub(" ", text)
    if not text.isprintable():
        text = _LINE_ENDS.sub("\n", _ESCAPES.sub("", text))
        text = _REMOVED.sub("", text)
        text = _BLANK_LINES.sub("\n\n", _TRAILING.sub("\n", text))
    return _unquoted(text.strip())


def _unquoted(text: str) -> str:
    if text.startswith(">"):
        lines = text.split("\n")
        if all(_QUOTE_MARKS.match(line) for line in lines if line.strip()):
            bare = (_QUOTE_MARKS.sub("", line, count=1) for line in lines)
            text = "\n".join(bare).strip() or text
    for _ in range(_MOST_PAIRS):
        inner = text[1:-1].strip()
        opening, closing = text[:1], text[-1:]
        # Of `"a" or "b"` the outer two are no pair.
        if not inner or _PAIRS.get(opening) != closing or opening in inner or closing in inner:
            break
        text = inner
    return text
