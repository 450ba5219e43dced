"""PDF: the text layer, page by page, with form values; its outline or font sizes give headings."""

from __future__ import annotations

import re
from collections import Counter
from contextlib import suppress
from datetime import datetime
from typing import Any, Final

import pypdfium2

from raglan_ingester.parsers.parsed import ParsedDocument, Source, Unparsable, one_line
from raglan_ingester.parsers.pdf_layout import Layout, Titles, write_items
from raglan_ingester.parsers.pdf_pages import Line, Page, read_page
from raglan_ingester.parsers.text_builder import TextBuilder

_ENCRYPTED: Final = "The PDF is encrypted; remove its password and submit it again."
_NO_TEXT: Final = (
    "holds no text; it is probably a scan",
    "hold no text; they are probably scans",
)
_BROKEN: Final = ("is broken and was left out", "are broken and were left out")
_MAX_OUTLINE_DEPTH: Final = 6
_MAX_OUTLINE_ENTRIES: Final = 10_000
_MAX_PAGES: Final = 20_000
_NO_TITLE: Final = re.compile(
    r"\(?(?:untitled|anonymous|unspecified|unknown|no title|none|title|document\d*)\)?",
    re.IGNORECASE,
)
_PROGRAM: Final = re.compile(r"^Microsoft (?:Word|PowerPoint|Excel) - ?", re.IGNORECASE)
_FILE_SUFFIX: Final = re.compile(
    r"\.(?:docx?|pptx?|xlsx?|odt|rtf|tex|dvi|indd|pdf)$", re.IGNORECASE
)
_EDGE: Final = 0.12
"""Page headers and footers stand within this share of the page's height."""
_MIN_REPEATS: Final = 3
_REPEAT_SHARE: Final = 0.5
_PAGE_NUMBER: Final = re.compile(
    r"\W*(?:[^\W\d]+\W+)?(?:\d+|[ivxlc]+)(?:\s*(?:/|of|von|de|di|sur|из|from|\|)\s*\d+)?\W*",
    re.IGNORECASE,
)


def parse(source: Source) -> ParsedDocument:
    """Read a PDF.

    Raises:
        Unparsable: it is broken, encrypted, or holds no text on any page.
    """
    if not source.data.strip():
        raise Unparsable("The file is empty.")
    try:
        document = pypdfium2.PdfDocument(source.data)
    except pypdfium2.PdfiumError as error:
        if "password" in str(error).lower():
            raise Unparsable(_ENCRYPTED) from None
        raise Unparsable(f"The PDF is broken and cannot be read ({error}).") from None
    try:
        return _parse(document)
    finally:
        document.close()


def _parse(document: pypdfium2.PdfDocument) -> ParsedDocument:
    builder = TextBuilder()
    with suppress(pypdfium2.PdfiumError):
        document.init_forms()
    forms = document.formenv.raw if document.formenv is not None else None
    count = len(document)
    if count > _MAX_PAGES:
        builder.warnings.append(f"Only the first {_MAX_PAGES:,} of {count:,} pages were read.")
    pages: dict[int, Page] = {}
    broken = []
    for index in range(min(count, _MAX_PAGES)):
        try:
            pages[index + 1] = read_page(document, index, forms)
        except pypdfium2.PdfiumError:
            broken.append(index + 1)
    if not any(page.lines for page in pages.values()):
        raise Unparsable(
            f"The PDF holds no text on its {count:,} pages: it is probably a scan. "
            "Run it through OCR and submit it again."
        )
    scans = [number for number, page in pages.items() if page.has_picture]
    builder.warnings += [
        *_page_warnings(scans, *_NO_TEXT),
        *_page_warnings(broken, *_BROKEN),
    ]
    sections = _outline(document) or None
    layout = Layout(_without_running_lines(pages), sections)
    write_items(layout.items, builder, sections)
    return builder.build(_properties(document, builder.metadata))


def _page_warnings(numbers: list[int], one: str, many: str) -> list[str]:
    """A sentence about pages: "Page 2 holds no text ..." or "Pages 2, 4-6 hold no text ..."."""
    if not numbers:
        return []
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    named = ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)
    return [f"Page {named} {one}." if len(numbers) == 1 else f"Pages {named} {many}."]


def _properties(document: pypdfium2.PdfDocument, metadata: dict[str, Any]) -> str:
    """Take over author and date; returns the title, without what programs write there."""
    stated: dict[str, str] = {}
    with suppress(pypdfium2.PdfiumError, UnicodeDecodeError):
        stated = document.get_metadata_dict(skip_empty=True)
    author = one_line(stated.get("Author", ""))
    if author and not _NO_TITLE.fullmatch(author):
        metadata["author"] = author
    if created := re.match(r"D:(\d{8})(\d{6})?", stated.get("CreationDate", "")):
        with suppress(ValueError):
            day = datetime.strptime(created[1], "%Y%m%d")  # noqa: DTZ007 - only the day is kept
            metadata["created"] = day.date().isoformat()
    title = _FILE_SUFFIX.sub("", _PROGRAM.sub("", one_line(stated.get("Title", ""))))
    return "" if _NO_TITLE.fullmatch(title) else title


def _outline(document: pypdfium2.PdfDocument) -> Titles:
    """The outline by page. A broken outline costs the headings, not the document."""
    sections: Titles = {}
    with suppress(pypdfium2.PdfiumError, UnicodeDecodeError, ValueError):
        for number, entry in enumerate(document.get_toc(max_depth=_MAX_OUTLINE_DEPTH)):
            destination = entry.get_dest()
            index = destination.get_index() if destination is not None else None
            title = one_line(entry.get_title())
            if index is not None and title:
                sections.setdefault(index + 1, []).append((entry.level + 1, title))
            if number >= _MAX_OUTLINE_ENTRIES:
                break
    return sections


def _without_running_lines(pages: dict[int, Page]) -> list[tuple[int, list[Line]]]:
    """The pages with each page header and footer kept once, and page numbers left out."""
    counts: Counter[str] = Counter()
    for page in pages.values():
        counts.update({_shape(line) for line in page.lines if _is_at_edge(line, page)})
    needed = max(_MIN_REPEATS, _REPEAT_SHARE * len(pages))
    running = {shape for shape, count in counts.items() if count >= needed}
    seen: set[str] = set()
    kept = []
    for number, page in pages.items():
        lines = []
        for line in page.lines:
            shape = _shape(line)
            if shape in running and _is_at_edge(line, page):
                if shape in seen or _PAGE_NUMBER.fullmatch(line.text):
                    continue
                seen.add(shape)
            lines.append(line)
        kept.append((number, lines))
    return kept


def _is_at_edge(line: Line, page: Page) -> bool:
    return line.bottom > (1 - _EDGE) * page.height or line.top < _EDGE * page.height


def _shape(line: Line) -> str:
    """The text with its numbers made alike, so that "Page 3 of 9" equals "Page 4 of 9"."""
    return re.sub(r"\d+", "#", line.text)
