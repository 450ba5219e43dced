"""Lists of pages: sitemaps (sitemaps.org, version 0.9) and feeds (RSS, Atom)."""

from __future__ import annotations

import gzip
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import feedparser

from raglan_ingester.parsers.xml_trees import parse_xml

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


def parse_sitemap(data: bytes, max_bytes: int) -> Sitemap:
    """Read a sitemap or an index of sitemaps; either may be compressed by gzip.

    Raises:
        BrokenListError: it is neither, or has more than `max_bytes` bytes.
    """
    root = parse_xml(_unzipped(data, max_bytes))
    kind = "" if root is None else _name(root.tag)
    if kind not in ("urlset", "sitemapindex"):
        raise BrokenListError("it is no sitemap")
    found = [
        {_name(child.tag): (child.text or "").strip() for child in entry}
        for entry in root
        if _name(entry.tag) in ("url", "sitemap")
    ]
    if kind == "sitemapindex":
        return Sitemap(sitemaps=[each["loc"] for each in found if each.get("loc")])
    return Sitemap([Page(e["loc"], e.get("lastmod", "")) for e in found if e.get("loc")])


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
