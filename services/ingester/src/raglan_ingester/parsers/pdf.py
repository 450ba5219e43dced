"""PDF: the text layer, page by page; its outline gives the headings."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

from pypdf import PasswordType, PdfReader
from pypdf.errors import DependencyError, FileNotDecryptedError, PdfReadError, PyPdfError

from raglan_ingester.parsers.parsed import ParsedDocument, Source, TextBuilder, Unparsable

_ENCRYPTED: Final = "The PDF is encrypted; remove its password and submit it again."
_MAX_OUTLINE_DEPTH: Final = 6


def parse(source: Source) -> ParsedDocument:
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    if not source.data.strip():
        raise Unparsable("The file is empty.")
    try:
        return _parse(source.data)
    except (FileNotDecryptedError, DependencyError):
        raise Unparsable(_ENCRYPTED) from None
    except (PdfReadError, PyPdfError) as error:
        raise Unparsable(f"The PDF is broken and cannot be read ({error}).") from None


def _parse(data: bytes) -> ParsedDocument:
    reader = PdfReader(io.BytesIO(data))
    # Many PDFs are encrypted only against editing: an empty password opens them.
    if reader.is_encrypted and reader.decrypt("") == PasswordType.NOT_DECRYPTED:
        raise Unparsable(_ENCRYPTED)
    sections = _outline(reader)
    builder = TextBuilder()
    for number, page in enumerate(reader.pages):
        for level, heading in sections.get(number, ()):
            builder.section(level, heading)
        builder.add(page.extract_text())
    title = ""
    with suppress(PyPdfError, AttributeError, ValueError):
        title = (reader.metadata and reader.metadata.title) or ""
    parsed = builder.build(title)
    if not parsed.text:
        raise Unparsable(
            f"The PDF holds no text on its {len(reader.pages)} pages: it is probably a scan. "
            "Run it through OCR and submit it again."
        )
    return parsed


def _outline(reader: PdfReader) -> dict[int, list[tuple[int, str]]]:
    """Page number -> (level, heading). A broken outline costs the headings, not the document."""
    sections: dict[int, list[tuple[int, str]]] = {}
    with suppress(Exception):
        for level, entry in _entries(reader.outline, 1):
            page = reader.get_destination_page_number(entry)
            if page is not None and entry.title:
                sections.setdefault(page, []).append((level, str(entry.title)))
    return sections


def _entries(outline: list[Any], level: int) -> Iterator[tuple[int, Any]]:
    for entry in outline:
        if isinstance(entry, list):
            yield from _entries(entry, min(level + 1, _MAX_OUTLINE_DEPTH))
        else:
            yield level, entry
