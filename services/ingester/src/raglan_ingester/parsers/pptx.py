"""PowerPoint: each slide a page, with its title, lists, tables, charts and speaker notes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, Final

from lxml import etree
from pptx import Presentation
from pptx.exc import PackageNotFoundError
from pptx.util import Emu

from raglan_ingester.parsers.archives import open_archive
from raglan_ingester.parsers.list_numbers import item_number
from raglan_ingester.parsers.parsed import ParsedDocument, Source, Unparsable, one_line
from raglan_ingester.parsers.table_headers import first_row_is_header
from raglan_ingester.parsers.text_builder import TextBuilder

_KIND: Final = "a PowerPoint presentation (pptx)"
_DRAWING: Final = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
_BULLET_PLACEHOLDERS: Final = frozenset(("body", "obj", "vertBody", "vertObj", ""))
_FURNITURE: Final = frozenset(("dt", "ftr", "sldNum", "hdr"))
_NUMBER_STYLES: Final = {"alphaLc": "a", "alphaUc": "A", "romanLc": "i", "romanUc": "I"}
_MAX_GROUP_DEPTH: Final = 20
_MAX_SLIDES: Final = 5000
_NO_TITLES: Final = (
    "powerpoint presentation",
    "powerpoint-präsentation",
    "présentation powerpoint",
)


def parse(source: Source) -> ParsedDocument:
    """Read a presentation, without hidden slides.

    Raises:
        Unparsable: it is no pptx file, broken, or a zip bomb.
    """
    open_archive(source.data, _KIND).close()
    try:
        presentation = Presentation(io.BytesIO(source.data))
    except (PackageNotFoundError, KeyError, ValueError, etree.XMLSyntaxError):
        raise Unparsable(f"The file is not {_KIND}, or it is broken.") from None
    builder = TextBuilder()
    hidden = 0
    for number, slide in enumerate(presentation.slides, 1):
        if number > _MAX_SLIDES:
            builder.warnings.append(f"Only the first {_MAX_SLIDES:,} slides were read.")
            break
        if slide.element.get("show") in ("0", "false"):
            hidden += 1
            continue
        builder.page(number)
        _add_slide(builder, slide)
    if hidden:
        builder.warnings.append(f"Hidden slides were left out: {hidden}.")
    properties = presentation.core_properties
    if properties.author and properties.author != "python-pptx":
        builder.metadata["author"] = properties.author
    title = one_line(properties.title or "")
    return builder.build("" if title.lower() in _NO_TITLES else title)


def _add_slide(builder: TextBuilder, slide: Any) -> None:
    title = slide.shapes.title
    if title is not None and title.has_text_frame and title.text_frame.text.strip():
        builder.heading(1, title.text_frame.text)
    else:
        builder.end_section(1)
    for shape in _shapes(slide.shapes, 0):
        if title is None or shape.shape_id != title.shape_id:
            _add_shape(builder, shape)
    if slide.has_notes_slide:
        frame = slide.notes_slide.notes_text_frame
        if frame is not None and frame.text.strip():
            builder.paragraph(f"Speaker notes: {frame.text}")


def _shapes(shapes: Any, depth: int) -> Iterator[Any]:
    """The shapes of a slide as they are read: from top to bottom, groups opened."""
    for shape in sorted(shapes, key=_place):
        if hasattr(shape, "shapes") and depth < _MAX_GROUP_DEPTH:
            yield from _shapes(shape.shapes, depth + 1)
        else:
            yield shape


def _place(shape: Any) -> tuple[int, int]:
    """By rows of half an inch; placeholders without a place of their own first."""
    if shape.top is None or shape.left is None:
        return (0, 0)
    return (int(shape.top) // Emu(457200), int(shape.left))


def _add_shape(builder: TextBuilder, shape: Any) -> None:
    kind = _placeholder(shape)
    if kind in _FURNITURE:
        return
    if getattr(shape, "has_table", False):
        _add_table(builder, shape.table)
    elif getattr(shape, "has_chart", False):
        _add_chart(builder, shape.chart)
    elif shape.has_text_frame:
        _add_text(builder, shape.text_frame, is_list=kind in _BULLET_PLACEHOLDERS)


def _placeholder(shape: Any) -> str | None:
    """The type of a placeholder; empty for one of content, None for other shapes."""
    if not shape.is_placeholder:
        return None
    return str(shape.element.ph.get("type", ""))


def _add_text(builder: TextBuilder, frame: Any, *, is_list: bool) -> None:
    counts: dict[int, int] = {}
    has_several = sum(bool(paragraph.text.strip()) for paragraph in frame.paragraphs) > 1
    for paragraph in frame.paragraphs:
        text = paragraph.text.replace("\v", "\n")
        if not text.strip():
            continue
        depth = paragraph.level + 1
        properties = paragraph._p.pPr
        numbered = properties.find(f"{_DRAWING}buAutoNum") if properties is not None else None
        plain = properties is not None and properties.find(f"{_DRAWING}buNone") is not None
        bullet = properties is not None and properties.find(f"{_DRAWING}buChar") is not None
        for deeper in [level for level in counts if level > depth]:
            del counts[deeper]
        if numbered is not None:
            start = int(numbered.get("startAt", "1"))
            counts[depth] = counts.get(depth, start - 1) + 1
            style = _NUMBER_STYLES.get(numbered.get("type", "").partition("P")[0], "1")
            builder.list_item(text, depth=depth, label=item_number(counts[depth], style))
        elif bullet or (is_list and has_several and not plain):
            counts.pop(depth, None)
            builder.list_item(text, depth=depth)
        else:
            builder.end_lists()
            builder.paragraph(text)
    builder.end_lists()


def _add_table(builder: TextBuilder, table: Any) -> None:
    rows: list[list[str]] = []
    for row in table.rows:
        line: list[str] = []
        for column, cell in enumerate(row.cells):
            text = one_line(cell.text)
            # A merged cell stands in each row that it covers.
            if cell.is_spanned and rows and not text and _is_merged_down(cell):
                text = rows[-1][column]
            line.append(text)
        rows.append(line)
    has_header = bool(table.first_row) and len(rows) > 1
    builder.table(rows, has_header=has_header or first_row_is_header(rows))


def _is_merged_down(cell: Any) -> bool:
    return cell._tc.get("vMerge") in ("1", "true")


def _add_chart(builder: TextBuilder, chart: Any) -> None:
    """The numbers behind a chart, as a table: a row a category, a column a series."""
    if chart.has_title and chart.chart_title.has_text_frame:
        builder.paragraph(chart.chart_title.text_frame.text)
    for plot in chart.plots:
        series = list(plot.series)
        columns = [list(one.values) for one in series]
        rows = [["", *(one.name or "" for one in series)]]
        for number, category in enumerate(plot.categories):
            values = (column[number] if number < len(column) else None for column in columns)
            rows.append([str(category), *("" if v is None else f"{v:.15g}" for v in values)])
        if len(rows) > 1:
            builder.table(rows, has_header=True)
