"""The lines of a PDF page, read through PDFium: words with their places, and form values."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import pypdfium2
import pypdfium2.raw as pdfium

_CELL_GAP: Final = 1.0
"""Words further apart than this many line heights stand in different cells."""
_HYPHEN: Final = 2
"""Character code that PDFium gives for a hyphen at a line break."""
_LINE_ENDS: Final = frozenset((_HYPHEN, 10, 13))
_BLANKS: Final = frozenset((9, 10, 13, 32, 0xA0))
_LIGATURES: Final = str.maketrans(
    {"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st", "\xad": ""}
)
_LEADER: Final = re.compile(r"[.…]{4,}|(?:\. ?){5,}|_{5,}")
"""Dots that lead to a page number, and lines to write on."""
_UNUSABLE: Final = re.compile("[\x00\x01\x03-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_TEXT_FIELDS: Final = (
    pdfium.FPDF_FORMFIELD_TEXTFIELD,
    pdfium.FPDF_FORMFIELD_COMBOBOX,
    pdfium.FPDF_FORMFIELD_LISTBOX,
)
_BOX_FIELDS: Final = (pdfium.FPDF_FORMFIELD_CHECKBOX, pdfium.FPDF_FORMFIELD_RADIOBUTTON)
_IMAGE_DEPTH: Final = 3


@dataclass(slots=True)
class Cell:
    """Words that stand together; x in points from the left."""

    text: str
    left: float
    right: float


@dataclass(slots=True)
class Line:
    """A line of text; y in points from the bottom of the page."""

    cells: list[Cell]
    bottom: float
    top: float

    @property
    def size(self) -> float:
        """Line height of the font, in points."""
        return max(1.0, self.top - self.bottom)

    @property
    def text(self) -> str:
        """Text of the line, cells joined by a space."""
        return " ".join(cell.text for cell in self.cells)

    @property
    def left(self) -> float:
        """Left edge in points."""
        return self.cells[0].left

    @property
    def right(self) -> float:
        """Right edge in points."""
        return self.cells[-1].right


@dataclass(slots=True)
class Page:
    """The lines of one page."""

    lines: list[Line]
    """In the order in which they are drawn."""
    height: float
    has_picture: bool
    """Of a page without text: something is drawn on it."""


def read_page(document: pypdfium2.PdfDocument, index: int, forms: Any) -> Page:
    """Read page number `index` (from 0).

    Args:
        document: an open document.
        index: which page.
        forms: the form environment of `document`, or None.
    """
    page = document[index]
    try:
        text = page.get_textpage()
        try:
            lines = list(_lines(text.raw))
        finally:
            text.close()
        if forms is not None:
            for value in _form_values(page, forms):
                _place(value, lines)
        has_picture = not lines and any(True for _ in page.get_objects(max_depth=_IMAGE_DEPTH))
        return Page(lines, page.get_height(), has_picture)
    finally:
        page.close()


def _lines(text: Any) -> Iterator[Line]:
    count = pdfium.FPDFText_CountChars(text)
    codes = [pdfium.FPDFText_GetUnicode(text, index) for index in range(count)]
    words: list[tuple[int, int]] = []
    start = -1
    for index, code in enumerate([*codes, 10]):
        if start < 0 and code not in _BLANKS:
            start = index
        # PDFium drops the newline behind a hyphen that a line break caused.
        if code in _BLANKS or code == _HYPHEN:
            if start >= 0:
                words.append((start, index + (code == _HYPHEN)))
                start = -1
            if code in _LINE_ENDS and words:
                if (line := _line(text, codes, words)) is not None:
                    yield line
                words = []


def _line(text: Any, codes: list[int], words: list[tuple[int, int]]) -> Line | None:
    cells: list[Cell] = []
    bottom, top = float("inf"), float("-inf")
    for start, end in words:
        first, last = _box(text, start), _box(text, end - 1)
        word = _clean("".join(map(chr, codes[start:end])))
        if not word:
            continue
        left, right = min(first.left, last.left), max(first.right, last.right)
        bottom, top = min(bottom, first.bottom), max(top, first.top)
        height = max(1.0, first.top - first.bottom)
        if cells:
            gap = max(left - cells[-1].right, cells[-1].left - right)
            if gap <= _CELL_GAP * height:
                cells[-1].text += f" {word}"
                cells[-1].left = min(cells[-1].left, left)
                cells[-1].right = max(cells[-1].right, right)
                continue
        cells.append(Cell(word, left, right))
    return Line(cells, bottom, top) if cells else None


def _box(text: Any, index: int) -> Any:
    """The place of a character by the metrics of its font."""
    box = pdfium.FS_RECTF()
    pdfium.FPDFText_GetLooseCharBox(text, index, box)
    return box


def _clean(word: str) -> str:
    word = _UNUSABLE.sub("", word.translate(_LIGATURES))
    if not word.isascii() and any("\ud800" <= character <= "\udfff" for character in word):
        word = word.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    word = _LEADER.sub("…", word)
    return word.replace(chr(_HYPHEN), "\u00ad")


def _form_values(page: pypdfium2.PdfPage, forms: Any) -> Iterator[Line]:
    for index in range(pdfium.FPDFPage_GetAnnotCount(page.raw)):
        annotation = pdfium.FPDFPage_GetAnnot(page.raw, index)
        try:
            if pdfium.FPDFAnnot_GetSubtype(annotation) != pdfium.FPDF_ANNOT_WIDGET:
                continue
            kind = pdfium.FPDFAnnot_GetFormFieldType(forms, annotation)
            value = ""
            if kind in _TEXT_FIELDS:
                value = _field_value(forms, annotation)
            elif kind in _BOX_FIELDS and pdfium.FPDFAnnot_IsChecked(forms, annotation):
                value = "☒"
            box = pdfium.FS_RECTF()
            if value and pdfium.FPDFAnnot_GetRect(annotation, box):
                yield Line([Cell(_clean(value), box.left, box.right)], box.bottom, box.top)
        finally:
            pdfium.FPDFPage_CloseAnnot(annotation)


def _field_value(forms: Any, annotation: Any) -> str:
    """The value of a text field, on one line."""
    length = pdfium.FPDFAnnot_GetFormFieldValue(forms, annotation, None, 0)
    buffer = ctypes.create_string_buffer(length)
    pointer = ctypes.cast(buffer, ctypes.POINTER(ctypes.c_ushort))
    pdfium.FPDFAnnot_GetFormFieldValue(forms, annotation, pointer, length)
    return " ".join(buffer.raw.decode("utf-16-le", "replace").rstrip("\0").split())


def _place(value: Line, lines: list[Line]) -> None:
    """Put a form value into the line that it stands in, behind its label."""
    middle = (value.bottom + value.top) / 2
    cell = value.cells[0]
    for line in lines:
        if (
            line.bottom - 2 <= middle <= line.top + 2
            or value.bottom <= (line.bottom + line.top) / 2 <= value.top
        ):
            before = [other for other in line.cells if other.left <= cell.left]
            if before:
                before[-1].text += f" {cell.text}"
            else:
                line.cells[0].text = f"{cell.text} {line.cells[0].text}"
            return
    above = [number for number, line in enumerate(lines) if line.bottom > middle]
    lines.insert(above[-1] + 1 if above else 0, value)
