"""Quotes as Markdown for an answer: on one line, without broken marks, without false markers.

The quote of a citation stays as the document has it; only the text that a reader sees is changed.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from typing import Final

_CODE: Final = re.compile(r"(?P<ticks>`+)(?!`).+?(?<!`)(?P=ticks)(?!`)", re.DOTALL)
_KEPT: Final = re.compile("\x00(\\d+)\x00")
_IMAGE: Final = re.compile(r"!\[([^\[\]]*)\]\([^()\s]*(?:\s\"[^\"]*\")?\)")
_LINK: Final = re.compile(
    r"\[((?:[^\[\]]|\[[^\[\]]*\])*)\]"  # its text, with brackets in it at most once
    r"(?:\(\s*<?((?:[^()\s]|\([^()\s]*\))*?)>?(?:\s+\"[^\"]*\")?\s*\)|\[[^\[\]]*\])"
)
_TAG: Final = re.compile(
    r"</?(a|b|br|code|dd|del|details|div|dl|dt|em|font|h[1-6]|hr|i|img|ins|kbd|li|mark|ol|p|pre"
    r"|small|span|strong|sub|summary|sup|tt|u|ul)(?:\s[^<>]*)?/?>",
    re.IGNORECASE,
)
_SEPARATES: Final = frozenset({"br", "dd", "div", "dt", "hr", "li", "p"})
_COMMENT: Final = re.compile(r"<!--.*?-->", re.DOTALL)
_ATTRIBUTES: Final = re.compile(r"\{[:#.][^{}\n]*\}")
_NUMBERS: Final = re.compile(r"(?<!\\)\[([\^#]?\d[\d\s,;\u2013-]*)\]")
_QUOTE_MARK: Final = re.compile(r"^[ \t]*(?:>[ \t]?)+", re.MULTILINE)
_HEADING_MARKS: Final = re.compile(r"^[ \t]*#{1,6}[ \t]+|[ \t]+#+[ \t]*$|\n[ \t]*(?:=+|-+)[ \t]*$")
_BOLD_LINE: Final = re.compile(r"(\*\*|__)(?=\S)([^*_\n]+?)(?<=\S)\1[:.]?")
_FENCE: Final = re.compile(r"(?:[ \t]*>)*[ \t]*(?:`{3,}|~{3,})")
_TICKS: Final = re.compile(r"`{3,}")
_MAY_BE_MARKUP: Final = re.compile(r"[\x00`>\[<{]")
"""A text without these is one line of Markdown as it is, but for its white space."""
_LETTER: Final = re.compile(r"[^\W\d_]")
_EMPHASIS: Final = re.compile(r"(?<!\\)\*\*")


def one_line(text: str) -> str:
    """`text` as inline Markdown on one line.

    Links into the document's own site keep their text only, HTML tags and images go, and a number
    in brackets is escaped, because it would read as a marker.
    """
    text = _without_markup(text)
    return " ".join(text.split())


def _without_markup(text: str) -> str:
    if _MAY_BE_MARKUP.search(text) is None:
        return text
    codes: list[str] = []

    def keep(match: re.Match[str]) -> str:
        codes.append(match.group())
        return f"\x00{len(codes) - 1}\x00"

    text = _CODE.sub(keep, _QUOTE_MARK.sub("", text.replace("\x00", "")))
    text = _LINK.sub(_link, _IMAGE.sub(r"\1", text))
    if "<" in text:
        text = _TAG.sub(_tag, _COMMENT.sub("", text))
    text = escaped(_ATTRIBUTES.sub("", text))
    return _KEPT.sub(lambda match: codes[int(match[1])], text)


def _link(match: re.Match[str]) -> str:
    text, target = match[1], match[2] or ""
    if target.startswith(("https://", "http://")) and not text.strip(" ^#,;-").isdigit():
        return match.group()
    return text


def _tag(match: re.Match[str]) -> str:
    name = match[1].lower()
    if name in ("code", "tt", "kbd"):
        return "`"
    return " " if name in _SEPARATES else ""


def is_navigation(text: str) -> bool:
    """Return whether `text` is only links within the document's site: a table of contents."""
    found = list(_LINK.finditer(text))
    if not found or any("://" in (match[2] or "") for match in found):
        return False
    return not _LETTER.search(_LINK.sub("", _TAG.sub("", text)))


def escaped(text: str) -> str:
    """`text` with numbers in brackets escaped, so that none reads as a citation marker."""
    return _NUMBERS.sub(r"\\[\1\\]", text) if "[" in text else text


def is_open(text: str) -> bool:
    """Return whether `text` ends inside inline code or bold text; no quote can end there."""
    without = _CODE.sub("", text) if "`" in text else text
    return "`" in without or ("**" in without and len(_EMPHASIS.findall(without)) % 2 == 1)


def closed(text: str) -> str:
    """`text`, without marks that it opens and does not close."""
    if not is_open(text):
        return text
    return _EMPHASIS.sub("", text) if "`" not in _CODE.sub("", text) else text.replace("`", "")


def heading_text(text: str) -> str:
    """The words of a heading without its marks."""
    return one_line(_HEADING_MARKS.sub("", text.strip()))


def bold_line(text: str) -> str:
    """The words of a paragraph that is one bold line and so stands for a heading; else empty."""
    match = _BOLD_LINE.fullmatch(text.strip())
    return one_line(match[2]) if match else ""


def row(names: Sequence[str], cells: Sequence[str]) -> str:
    """A row of a table as "column: value", empty cells left out."""
    parts: list[str] = []
    for number, cell in enumerate(cells):
        value = one_line(cell.replace("\\|", "|"))
        name = one_line(names[number]).rstrip(":") if number < len(names) else ""
        if value:
            parts.append(f"{name}: {value}" if name else value)
    joined = ""
    for part in parts:
        gap = "" if not joined else " " if joined[-1] in ".!?;。" else "; "
        joined += gap + part
    return joined


def code(text: str, language: str = "") -> str:
    """A code block with a fence, its common indentation removed."""
    if _FENCE.match(text):
        first, _, rest = text.partition("\n")
        return f"{first.strip()}\n{textwrap.dedent(rest)}"
    ticks = max((len(run) for run in _TICKS.findall(text)), default=2) + 1
    return f"{'`' * ticks}{language}\n{textwrap.dedent(text)}\n{'`' * ticks}"
