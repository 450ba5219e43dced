"""Size of the sheets of an OpenDocument spreadsheet.

Cells and rows are written once and repeated: a few bytes stand for any number of them.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from typing import Any, Final

from lxml import etree

_PART: Final = "content.xml"
_TABLE: Final = "{urn:oasis:names:tc:opendocument:xmlns:table:1.0}"
_ROW: Final = f"{_TABLE}table-row"
_SHEET: Final = f"{_TABLE}table"


@dataclass(slots=True)
class Extent:
    """Extent of a sheet, from its first cell to the last one in use."""

    first_row: int = -1
    end_row: int = 0
    first_column: int = -1
    end_column: int = 0
    chars: int = 0
    """Of all its cells, repetitions included."""

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.end_row - max(self.first_row, 0)

    @property
    def columns(self) -> int:
        """Number of columns."""
        return self.end_column - max(self.first_column, 0)

    def add(self, row: Any, place: int) -> int:
        """Take in a row at `place`; returns the place of the next one."""
        end = place + _repeat(row, "rows")
        column = 0
        for cell in row.iterchildren(_TABLE + "table-cell", _TABLE + "covered-table-cell"):
            first, column = column, column + _repeat(cell, "columns")
            length = len("".join(cell.itertext()))
            if not length and not any("value" in name for name in cell.attrib):
                continue
            self.first_row = place if self.first_row < 0 else self.first_row
            self.end_row = end
            known = self.first_column
            self.first_column = first if known < 0 else min(known, first)
            self.end_column = max(self.end_column, column)
            self.chars += (end - place) * (column - first) * length
        return end


def extents_of(archive: zipfile.ZipFile) -> list[Extent]:
    """Return the extent of each sheet of `archive`.

    A part that is missing or broken counts for nothing: reading the sheets tells.
    """
    found = [Extent()]
    place = 0
    if _PART not in archive.namelist():
        return found
    try:
        with archive.open(_PART) as part:
            for _, element in etree.iterparse(part, tag=(_ROW, _SHEET), resolve_entities=False):
                if element.tag == _ROW:
                    place = found[-1].add(element, place)
                else:
                    found.append(Extent())
                    place = 0
                element.clear()
    except etree.XMLSyntaxError:
        return []
    return found


def _repeat(element: Any, what: str) -> int:
    value = element.get(f"{_TABLE}number-{what}-repeated", "1")
    return int(value) if value.isascii() and value.isdigit() and len(value) < 19 else 1
