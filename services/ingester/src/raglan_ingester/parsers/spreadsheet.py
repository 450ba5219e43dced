"""Spreadsheets (xlsx, xlsm, xlsb, xls, ods): each sheet a section, its cells as tables."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator, Sequence
from datetime import date, datetime, time, timedelta
from typing import Any, Final

from python_calamine import (
    CalamineError,
    CalamineWorkbook,
    PasswordError,
    SheetTypeEnum,
    SheetVisibleEnum,
)

from raglan_ingester.parsers import ods_extents
from raglan_ingester.parsers.archives import ENCRYPTED, open_archive
from raglan_ingester.parsers.parsed import (
    MAX_TABLE_CELLS,
    MAX_TEXT_CHARS,
    ParsedDocument,
    Source,
    Unparsable,
)
from raglan_ingester.parsers.records import add_table
from raglan_ingester.parsers.text_builder import TextBuilder

_KIND: Final = "a spreadsheet"
_NO_NAME: Final = re.compile(
    r"(?:sheet|tabelle|feuil(?:le)?|hoja|foglio|planilha|blad|ark|лист|シート)[ _]?\d*",
    re.IGNORECASE,
)
_ZIP: Final = b"PK"
_MAX_COLUMNS: Final = 1000
_MAX_BLANK_ROWS: Final = 100_000
_MAX_EXTENT: Final = 20_000_000
"""Cells between A1 and the last used row and column."""
_SHEET_PART: Final = re.compile(r"xl/worksheets/[^/]+\.xml")
_CELL: Final = re.compile(rb'<(?:\w+:)?c\s[^<>]{0,80}?\br="([A-Z]{1,3})(\d{1,7})"')
_PIECE_BYTES: Final = 1024 * 1024
_REFERENCE_BYTES: Final = 128
"""More than the longest match, which may lie across two pieces."""


def parse(source: Source) -> ParsedDocument:
    """Read a spreadsheet: what its formulas last gave, without hidden sheets.

    Raises:
        Unparsable: it is no spreadsheet, broken, encrypted, or a zip bomb.
    """
    if not source.data:
        raise Unparsable("The file is empty.")
    if source.data.startswith(_ZIP):
        with open_archive(source.data, _KIND) as archive:
            _check_extents(archive)
    builder = TextBuilder()
    try:
        with CalamineWorkbook.from_filelike(io.BytesIO(source.data)) as workbook:
            _add_sheets(workbook, builder)
    except PasswordError:
        raise Unparsable(ENCRYPTED) from None
    except (CalamineError, OSError):
        raise Unparsable(f"The file is not {_KIND}, or it is broken.") from None
    return builder.build()


def _check_extents(archive: zipfile.ZipFile) -> None:
    """Refuse sheets whose used range is too large to lay out: calamine holds every cell of it."""
    for entry in archive.infolist():
        if not _SHEET_PART.fullmatch(entry.filename):
            continue
        columns = rows = 0
        with archive.open(entry) as part:
            rest = b""
            while piece := part.read(_PIECE_BYTES):
                for match in _CELL.finditer(rest + piece):
                    rows = max(rows, int(match[2]))
                    columns = max(columns, _column_number(match[1]))
                rest = piece[-_REFERENCE_BYTES:]
        _check_extent(f"The part {entry.filename} of the file", rows, columns)
    extents = ods_extents.extents_of(archive)
    for number, extent in enumerate(extents, 1):
        _check_extent(f"Sheet {number} of the file", extent.rows, extent.columns)
    if (chars := sum(extent.chars for extent in extents)) > MAX_TEXT_CHARS:
        raise Unparsable(
            f"The file's cells hold {chars:,} characters with those that are repeated; the limit "
            f"is {MAX_TEXT_CHARS:,}."
        )


def _check_extent(what: str, rows: int, columns: int) -> None:
    if rows * columns > _MAX_EXTENT:
        raise Unparsable(
            f"{what} spans {rows:,} rows by {columns:,} columns; the limit is {_MAX_EXTENT:,} "
            "cells. Delete stray cells far from the others, or save it as CSV."
        )


def _column_number(letters: bytes) -> int:
    number = 0
    for letter in letters:
        number = number * 26 + letter - ord("A") + 1
    return number


def _add_sheets(workbook: CalamineWorkbook, builder: TextBuilder) -> None:
    cells_left = MAX_TABLE_CELLS
    for sheet in workbook.sheets_metadata:
        if sheet.typ is not SheetTypeEnum.WorkSheet:
            continue
        if sheet.visible is not SheetVisibleEnum.Visible:
            builder.warnings.append(f'The hidden sheet "{sheet.name}" was left out.')
            continue
        if not _NO_NAME.fullmatch(sheet.name):
            builder.heading(1, sheet.name)
        used = workbook.get_sheet_by_name(sheet.name)
        columns = used.end[1] + 1 if used.end else 0
        if columns > _MAX_COLUMNS:
            builder.warnings.append(
                f"Only the first {_MAX_COLUMNS:,} of {columns:,} columns of the sheet "
                f'"{sheet.name}" were read.'
            )
        for rows in _tables(used.iter_rows()):
            cells_left -= sum(map(len, rows))
            _add_range(builder, rows)
            if cells_left <= 0:
                builder.warnings.append(
                    f"Only the first {MAX_TABLE_CELLS:,} cells of the file were read; "
                    f'the rest of sheet "{sheet.name}" and what follows was left out.'
                )
                return


def _tables(rows: Iterator[list[Any]]) -> Iterator[list[list[str]]]:
    """Runs of rows with blank rows between, each without the blank columns around it."""
    table: list[list[str]] = []
    cells = blank = 0
    for row in rows:
        texts = [_cell_text(value) for value in row[:_MAX_COLUMNS]]
        if any(texts):
            table.append(texts)
            cells += len(texts)
            blank = 0
        else:
            blank += 1
            if table:
                yield _trimmed(table)
                table = []
        if cells >= MAX_TABLE_CELLS or blank > _MAX_BLANK_ROWS:
            break
    if table:
        yield _trimmed(table)


def _trimmed(rows: list[list[str]]) -> list[list[str]]:
    used = [place for row in rows for place, text in enumerate(row) if text]
    first, last = min(used), max(used)
    return [row[first : last + 1] for row in rows]


def _add_range(builder: TextBuilder, rows: list[list[str]]) -> None:
    """Append a run of rows: titles above it as paragraphs, the rest as a table."""
    while rows and len(rows[0]) > 1 and sum(map(bool, rows[0])) == 1:
        builder.paragraph("".join(rows[0]))
        rows = rows[1:]
    if not rows:
        return
    if len(rows[0]) == 1:
        for row in rows:
            builder.paragraph(row[0])
    else:
        add_table(builder, _filled(rows))


def _filled(rows: Sequence[list[str]]) -> list[list[str]]:
    """The rows without columns that are blank in all of them."""
    kept = [place for place in range(len(rows[0])) if any(row[place] for row in rows)]
    return [[row[place] for place in kept] for row in rows]


def _cell_text(value: Any) -> str:
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else f"{value:.15g}"
    if isinstance(value, datetime):
        is_day = value.time() == time()
        return value.date().isoformat() if is_day else value.isoformat(" ", "seconds")
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return str(value)
    return str(value).strip()
