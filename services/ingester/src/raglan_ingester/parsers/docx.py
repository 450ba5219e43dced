"""Word documents: paragraphs and tables in their order, headings by style."""

from __future__ import annotations

import io
import re
import zipfile
from typing import Any, Final

from docx import Document
from docx.opc.exceptions import OpcError
from docx.table import Table

from raglan_ingester.parsers.parsed import ParsedDocument, Source, TextBuilder, Unparsable

_MAX_UNPACKED_BYTES: Final = 512 * 1024 * 1024
_MAX_RATIO: Final = 200
"""Office files shrink 5 to 20 times; a bomb shrinks a thousand times."""
_RATIO_FROM_BYTES: Final = 10 * 1024 * 1024
_HEADING: Final = re.compile(r"(?:heading|überschrift|titre)\s*(\d)", re.IGNORECASE)


def parse(source: Source) -> ParsedDocument:
    if not source.data:
        raise Unparsable("The file is empty.")
    _refuse_bombs(source.data)
    try:
        document = Document(io.BytesIO(source.data))
    except (OpcError, KeyError, ValueError):
        raise Unparsable("The file is not a Word document (docx), or it is broken.") from None
    builder = TextBuilder()
    for block in document.iter_inner_content():
        if isinstance(block, Table):
            builder.add(_table_text(block))
        elif level := _level_of(block):
            builder.heading(level, block.text)
        else:
            builder.add(block.text)
    return builder.build(document.core_properties.title or "")


def _refuse_bombs(data: bytes) -> None:
    """Look at the sizes that the archive declares, before anything is unpacked.

    An archive that lies about them is stopped by zipfile, which reads no more than it declares.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except zipfile.BadZipFile:
        raise Unparsable("The file is not a Word document (docx), or it is broken.") from None
    bomb = unpacked > _RATIO_FROM_BYTES and unpacked > _MAX_RATIO * len(data)
    if unpacked > _MAX_UNPACKED_BYTES or bomb:
        raise Unparsable(
            f"The Word document would unpack from {len(data):,} to {unpacked:,} bytes; "
            "it looks like a zip bomb and was not opened."
        )


def _level_of(paragraph: Any) -> int:
    """1 to 9 for a heading, 0 for other paragraphs."""
    style = paragraph.style.name if paragraph.style is not None else ""
    if style == "Title":
        return 1
    match = _HEADING.match(style or "")
    return int(match[1]) if match else 0


def _table_text(table: Table) -> str:
    rows = []
    for row in table.rows:
        cells: list[str] = []
        for cell in row.cells:
            text = " ".join(cell.text.split())
            # A merged cell comes once for each column it spans.
            if not cells or cells[-1] != text:
                cells.append(text)
        rows.append(" | ".join(cells))
    return "\n".join(rows)
