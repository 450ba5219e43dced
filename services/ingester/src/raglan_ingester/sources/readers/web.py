"""Reader of the pages of a sitemap or feed, by the fetcher that checks every address.

One request at a time, as robots.txt allows. A page that has no date in the list is asked for with
the validators of its last version, so that its server need not send it again.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeVar
from urllib.parse import unquote, urljoin, urlsplit

from protego import Protego
from raglan.errors import Forbidden, InvalidInput, PayloadTooLarge, RaglanError
from raglan.identifiers import shortened
from raglan.url_fetcher import FetchStatusError, UrlFetcher, Validators

from raglan_ingester.sources.config import FeedSettings, SitemapSettings
from raglan_ingester.sources.reader import (
    Content,
    Entry,
    Listing,
    Skipped,
    SkippedDocumentError,
    SourceUnavailable,
    Unchanged,
    too_many,
)
from raglan_ingester.sources.selection import Selection
from raglan_ingester.sources.site_lists import BrokenListError, Page, parse_feed, parse_sitemap

_ListT = TypeVar("_ListT")
_AGENT: Final = "raglan"
_FETCH_S: Final = 60.0
_LIST_S: Final = 1800.0
_MAX_SITEMAPS: Final = 1000
_MAX_LIST_BYTES: Final = 50 * 1024 * 1024
"""The limit of sitemaps.org."""
_MAX_FEED_BYTES: Final = 8 * 1024 * 1024
_MAX_SITES: Final = 1000
_ROBOTS_BYTES: Final = 500 * 1024
"""Of a robots.txt that are read (RFC 9309, section 2.5)."""
_MAX_DELAY_S: Final = 10.0
_FAILURES: Final = 10
"""Pages that fail one after the other, or sitemaps of an index, before the sync ends."""
_GONE: Final = (404, 410)


class WebReader:
    """Lists and fetches pages.

    Args:
        settings: of the source.
        max_bytes: of one page.
    """

    def __init__(self, settings: SitemapSettings | FeedSettings, max_bytes: int) -> None:
        self._settings = settings
        policy = settings.policy
        self._policy = policy
        self._pages = UrlFetcher(policy, max_bytes=max_bytes, timeout_s=_FETCH_S)
        is_feed = isinstance(settings, FeedSettings)
        self._list_bytes = _MAX_FEED_BYTES if is_feed else _MAX_LIST_BYTES
        self._lists = UrlFetcher(policy, max_bytes=self._list_bytes, timeout_s=_FETCH_S)
        self._selection = Selection(settings)
        self._robots: dict[str, Protego] = {}
        self._urls: dict[str, str] = {}
        self._unread: dict[str, str] = {}
        self._failures = 0

    async def list_entries(self, cursor: str, skipped: Skipped) -> Listing | None:
        """List the pages, as `Reader.list_entries` does; sites have no cursor."""
        try:
            async with asyncio.timeout(_LIST_S):
                return await self._listing(skipped)
        except TimeoutError:
            raise SourceUnavailable(
                f"{shortened(self._settings.url)} could not be listed within {_LIST_S:g} s."
            ) from None

    async def _listing(self, skipped: Skipped) -> Listing:
        is_feed = isinstance(self._settings, FeedSettings)
        pages = await (self._feed() if is_feed else self._sitemaps())
        chosen = await asyncio.to_thread(self._chosen, pages, skipped)
        sites = {_site(url) for url in self._urls.values()}
        if len(sites) > _MAX_SITES:
            raise SourceUnavailable(f"The pages are on more than {_MAX_SITES} sites.")
        for site in sorted(sites):
            self._robots[site] = await self._robots_of(site)
        entries = await asyncio.to_thread(self._allowed, chosen, skipped)
        return Listing(entries, is_complete=not is_feed, unread=self._unread)

    def _chosen(self, pages: Iterable[Page], skipped: Skipped) -> list[Entry]:
        entries = []
        for page in pages:
            try:
                target = self._policy.check_url(page.url)
            except (InvalidInput, Forbidden) as error:
                skipped.add(error.message)
                continue
            key = unquote(f"{target.authority}{target.path.rstrip('/')}")
            if key not in self._urls and self._selection.is_chosen(key):
                self._urls[key] = target.url
                entries.append(Entry(key, page.changed))
        return entries

    def _allowed(self, chosen: Sequence[Entry], skipped: Skipped) -> list[Entry]:
        entries = []
        for entry in chosen:
            url = self._urls[entry.key]
            if self._robots[_site(url)].can_fetch(url, _AGENT):
                entries.append(entry)
            else:
                skipped.add(f"{shortened(url)} is disallowed by robots.txt.")
        return entries

    async def read(self, entry: Entry, former: str) -> Content | Unchanged | None:
        """Fetch a page, as `Reader.read` does."""
        url = self._urls[entry.key]
        await asyncio.sleep(self._delay_s(url))
        try:
            found = await self._pages.fetch_changed(url, _validators(former))
        except FetchStatusError as error:
            if error.status in _GONE:
                return None
            self._count_failure(error)
            raise SkippedDocumentError(error.message) from None
        except RaglanError as error:
            self._count_failure(error)
            raise SkippedDocumentError(error.message) from None
        self._failures = 0
        if found is None:
            return Unchanged()
        version = json.dumps([found.validators.etag, found.validators.last_modified])
        return Content(
            found.content,
            filename=unquote(urlsplit(found.url).path.rpartition("/")[2]),
            media_type=found.media_type,
            metadata={"url": found.url},
            version=version if found.validators.headers else "",
        )

    async def close(self) -> None:
        """Nothing stays open: each fetch has connections of its own."""

    async def _feed(self) -> Iterable[Page]:
        pages = await self._read_list(self._settings.url, parse_feed)
        self._check_count(len(pages))
        return pages

    async def _sitemaps(self) -> Iterable[Page]:
        """Return the pages of all sitemaps; of an index, those that fail are left out and named."""
        limit = self._settings.max_documents + 1
        pages: list[Page] = []
        seen = {self._settings.url}
        left = [self._settings.url]
        failures = 0
        while left:
            url = left.pop()
            try:
                sitemap = await self._read_list(
                    url, lambda data: parse_sitemap(data, _MAX_LIST_BYTES, limit)
                )
            except SourceUnavailable as error:
                failures += 1
                if url == self._settings.url or failures == _FAILURES:
                    raise
                self._unread = {"": error.message}  # which pages it has is not known
                continue
            pages += sitemap.pages
            self._check_count(len(pages))
            new = [url for url in dict.fromkeys(sitemap.sitemaps) if url not in seen]
            seen.update(new)
            left += new
            if len(seen) > _MAX_SITEMAPS:
                raise SourceUnavailable(f"The site has more than {_MAX_SITEMAPS} sitemaps.")
        return pages

    def _check_count(self, pages: int) -> None:
        if pages > self._settings.max_documents:
            raise too_many(self._settings.name, self._settings.max_documents)

    async def _read_list(self, url: str, parse: Callable[[bytes], _ListT]) -> _ListT:
        """Fetch and parse a list. One that is missing would look like pages that are."""
        try:
            found = await self._lists.fetch(url)
            return await asyncio.to_thread(parse, found.content)
        except BrokenListError as error:
            raise SourceUnavailable(f"{shortened(url)} cannot be used: {error}.") from None
        except PayloadTooLarge:
            raise SourceUnavailable(
                f"{shortened(url)} has more than {self._list_bytes:,} bytes, the limit of a list."
            ) from None
        except RaglanError as error:
            raise SourceUnavailable(error.message) from None

    async def _robots_of(self, site: str) -> Protego:
        try:
            found = await self._pages.fetch(f"{site}robots.txt")
        except FetchStatusError as error:
            if 400 <= error.status < 500:  # RFC 9309, section 2.3.1.3
                return Protego.parse("")
            raise SourceUnavailable(error.message) from None
        except RaglanError as error:
            raise SourceUnavailable(error.message) from None
        text = found.content[:_ROBOTS_BYTES].decode("utf-8", "replace")
        return await asyncio.to_thread(Protego.parse, text)

    def _delay_s(self, url: str) -> float:
        delay = self._robots[_site(url)].crawl_delay(_AGENT)
        return min(float(delay or 0.0), _MAX_DELAY_S)

    def _count_failure(self, error: RaglanError) -> None:
        self._failures += 1
        if self._failures >= _FAILURES:
            raise SourceUnavailable(
                f"{_FAILURES} pages failed one after the other; the last: {error.message}"
            ) from None


def _site(url: str) -> str:
    return urljoin(url, "/")


def _validators(former: str) -> Validators:
    """Return the validators of a version that `read` returned; none for the date of a list."""
    try:
        etag, last_modified = json.loads(former)
    except (ValueError, TypeError):
        return Validators()
    return Validators(str(etag), str(last_modified))
