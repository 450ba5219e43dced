"""The text of a Word paragraph as Word shows it, and what hangs on it: text boxes, notes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

WORD: Final = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_MATH: Final = "{http://schemas.openxmlformats.org/officeDocument/2006/math}"
_COMPATIBILITY: Final = "{http://schemas.openxmlformats.org/markup-compatibility/2006}"
_SKIPPED: Final = frozenset(
    WORD + name
    for name in (
        *("del", "moveFrom", "instrText", "delText", "delInstrText", "pPr", "rPr", "sdtPr"),
        *("sdtEndPr", "annotationRef", "footnoteRef", "endnoteRef", "rt"),
    )
)
_PLAIN: Final = {
    f"{WORD}tab": "\t",
    f"{WORD}ptab": "\t",
    f"{WORD}br": "\n",
    f"{WORD}cr": "\n",
    f"{WORD}noBreakHyphen": "-",
}
_NOTES: Final = {f"{WORD}footnoteReference": "footnote", f"{WORD}endnoteReference": "endnote"}


@dataclass(slots=True)
class ParagraphText:
    """Contents of a paragraph."""

    text: str = ""
    boxes: list[Any] = field(default_factory=list)
    """Contents of text boxes that are anchored here: `w:txbxContent` elements."""
    notes: list[tuple[str, str]] = field(default_factory=list)
    """("footnote" or "endnote", id), in order."""


def attribute(element: Any, name: str) -> str:
    """The value of an attribute in Word's namespace; empty if it is not there."""
    return str(element.get(WORD + name, "")) if element is not None else ""


def is_on(element: Any) -> bool:
    """Return whether a switch such as `<w:vanish/>` is there and not turned off."""
    return element is not None and attribute(element, "val") not in ("0", "false", "off")


def read_paragraph(paragraph: Any) -> ParagraphText:
    """Collect a paragraph's text: insertions and content controls in, deletions out."""
    found = ParagraphText()
    found.text = "".join(_pieces(paragraph, found))
    return found


def _pieces(root: Any, found: ParagraphText) -> Iterator[str]:
    # A stack, not recursion: broken files nest deeper than Python's limit.
    stack = list(reversed(root))
    while stack:
        element = stack.pop()
        tag = element.tag
        if tag == f"{WORD}t" or tag == f"{_MATH}t":
            yield element.text or ""
        elif tag in _PLAIN:
            yield _PLAIN[tag]
        elif tag in _NOTES:
            found.notes.append((_NOTES[tag], attribute(element, "id")))
        elif tag == f"{WORD}txbxContent":
            found.boxes.append(element)
        elif tag == f"{WORD}sym":
            yield _symbol(element)
        elif tag == f"{WORD}ruby":
            yield _ruby(element)
        elif tag == f"{_COMPATIBILITY}AlternateContent":
            # Two forms of the same drawing: the first is the newer one.
            stack.extend(reversed(element[0] if len(element) else []))
        elif tag not in _SKIPPED and not _is_hidden(element):
            stack.extend(reversed(element))


def _is_hidden(element: Any) -> bool:
    return element.tag == f"{WORD}r" and is_on(element.find(f"{WORD}rPr/{WORD}vanish"))


def _symbol(element: Any) -> str:
    """A character of a symbol font; those of private fonts have no meaning as text."""
    code = int(attribute(element, "char") or "0", 16)
    return chr(code) if 0x20 <= code < 0xD800 else ""


def _ruby(element: Any) -> str:
    """Base text, then the reading in brackets."""
    base, reading = (
        "".join(text.text or "" for text in element.iterfind(f"{WORD}{part}//{WORD}t"))
        for part in ("rubyBase", "rt")
    )
    return f"{base}({reading})" if reading else base
