"""Lists of pages: sitemaps (sitemaps.org, version 0.9) and feeds (RSS, Atom)."""

from __future__ import annotations

import gzip
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import feedparser

from raglan_ingester.parsers.xml_trees import XmlError, forget, parse_events

_ENTRY_OF: Final = {"urlset": "url", "sitemapindex": "sitemap"}
_GZIP: Final = b"\x1f\x8b"


class BrokenListError(ValueError):
    """The document is no sitemap or feed, or is larger than the limit."""


@dataclass(frozen=True, slots=True)
class Page:
    """A page as a list names it."""

    url: str
    changed: str = ""
    """When it changed last, as the list says."""


@dataclass(frozen=True, slots=True)
class Sitemap:
    """Pages, or further sitemaps."""

    pages: Sequence[Page] = field(default_factory=list)
    sitemaps: Sequence[str] = field(default_factory=list)


def parse_sitemap(data: bytes, max_bytes: int, limit: int) -> Sitemap:
    """Read a sitemap or an index of sitemaps; either may be compressed by gzip.

    Args:
        data: the document.
        max_bytes: of it, once it is decompressed.
        limit: pages or sitemaps that are read; what follows is not looked at.

    Raises:
        BrokenListError: it is neither, or has more than `max_bytes` bytes.
    """
    document = _unzipped(data, max_bytes)
    kind = ""
    found: list[Page] = []
    try:
        for event, element in parse_events(document):
            name = _name(element.tag)
            if not kind:
                kind = name
                if kind not in _ENTRY_OF:
                    break
            if event == "end" and name == _ENTRY_OF[kind]:
                about = {_name(child.tag): (child.text or "").strip() for child in element}
                if about.get("loc"):
                    found.append(Page(about["loc"], about.get("lastmod", "")))
                forget(element)
                if len(found) == limit:
                    break
    except XmlError:
        kind = ""
    if kind not in _ENTRY_OF:
        raise BrokenListError("it is no sitemap")
    if kind == "sitemapindex":
        return Sitemap(sitemaps=[each.url for each in found])
    return Sitemap(found)


def parse_feed(data: bytes) -> list[Page]:
    """Read a feed.

    Raises:
        BrokenListError: it is none.
    """
    feed = feedparser.parse(io.BytesIO(data), sanitize_html=False, resolve_relative_uris=False)
    if not feed.version:
        raise BrokenListError("it is no feed")
    return [Page(entry["link"], _changed(entry)) for entry in feed.entries if entry.get("link")]


def _changed(entry: dict[str, str]) -> str:
    # Of `dict`: feedparser's own look-up passes one for the other, with a warning.
    return dict.get(entry, "updated", "") or dict.get(entry, "published", "")


def _name(tag: object) -> str:
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


def _unzipped(data: bytes, max_bytes: int) -> bytes:
    if not data.startswith(_GZIP):
        return data
    try:
        with gzip.open(io.BytesIO(data)) as file:
            found = file.read(max_bytes + 1)
    except (OSError, EOFError):
        raise BrokenListError("it is compressed, and broken") from None
    if len(found) > max_bytes:
        raise BrokenListError(f"it has more than {max_bytes:,} bytes")
    return found
