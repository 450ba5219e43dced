"""EPUB: the chapters in their reading order, each read as the HTML page that it is."""

from __future__ import annotations

import posixpath
import zipfile
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import unquote

from lxml import etree

from raglan_ingester.parsers.archives import open_archive, read_entry
from raglan_ingester.parsers.decoding import declared_in_html, decode_text
from raglan_ingester.parsers.html import read_html
from raglan_ingester.parsers.parsed import ParsedDocument, Source, Unparsable, one_line
from raglan_ingester.parsers.text_builder import TextBuilder
from raglan_ingester.parsers.xml_trees import parse_xml

_KIND: Final = "an EPUB book"
_MAX_CHAPTERS: Final = 5000
_PAGES: Final = frozenset(("application/xhtml+xml", "text/html", "application/x-dtbook+xml"))


def parse(source: Source) -> ParsedDocument:
    """Read an EPUB book.

    Raises:
        Unparsable: it is no EPUB file, broken, protected, or a zip bomb.
    """
    with open_archive(source.data, _KIND) as archive:
        package_name, package = _package(archive)
        if "META-INF/encryption.xml" in archive.namelist() and not _is_font_only(archive):
            raise Unparsable("The EPUB book is protected (DRM) and cannot be read.")
        builder = TextBuilder()
        for number, name in enumerate(_chapters(package, posixpath.dirname(package_name))):
            if number >= _MAX_CHAPTERS:
                builder.warnings.append(f"Only the first {_MAX_CHAPTERS:,} chapters were read.")
                break
            if not (data := read_entry(archive, name)).strip():
                builder.warnings.append(f"The chapter {name} is missing or empty.")
                continue
            decoded = decode_text(data, declared_in_html(data))
            builder.warnings += decoded.warnings
            read_html(decoded.text, builder)
    author = ", ".join(_metadata(package, "creator"))
    if author:
        builder.metadata["author"] = author
    return builder.build(next(_metadata(package, "title"), ""))


def _package(archive: zipfile.ZipFile) -> tuple[str, Any]:
    """(name, tree) of the file that lists the book's parts."""
    container = parse_xml(read_entry(archive, "META-INF/container.xml"))
    if container is not None:
        for root in container.iter("{*}rootfile"):
            name = root.get("full-path", "")
            package = parse_xml(read_entry(archive, name))
            if package is not None:
                return name, package
    raise Unparsable(f"The file is not {_KIND}, or it is broken.")


def _chapters(package: Any, folder: str) -> Iterator[str]:
    """Names of the pages in reading order, without the table of contents."""
    items = {item.get("id"): item for item in package.iter("{*}item")}
    for reference in package.iter("{*}itemref"):
        item = items.get(reference.get("idref"))
        if item is None or item.get("media-type") not in _PAGES:
            continue
        if "nav" not in (item.get("properties") or "").split():
            yield posixpath.normpath(posixpath.join(folder, unquote(item.get("href", ""))))


def _metadata(package: Any, name: str) -> Iterator[str]:
    for element in package.iter(f"{{http://purl.org/dc/elements/1.1/}}{name}"):
        if text := one_line("".join(element.itertext())):
            yield text


def _is_font_only(archive: zipfile.ZipFile) -> bool:
    """Return whether only fonts are scrambled, which readers allow."""
    tree: etree._Element | None = parse_xml(read_entry(archive, "META-INF/encryption.xml"))
    if tree is None:
        return True
    names = [reference.get("URI", "") for reference in tree.iter("{*}CipherReference")]
    return all(name.lower().endswith((".otf", ".ttf", ".woff", ".woff2")) for name in names)
