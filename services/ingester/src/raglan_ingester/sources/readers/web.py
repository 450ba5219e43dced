"""Reader of the pages of a sitemap or feed, by the fetcher that checks every address.

One request at a time, as robots.txt allows. A page that has no date in the list is asked for with
the validators of its last version, so that its server need not send it again.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote, urljoin, urlsplit

from protego import Protego
from raglan.errors import Forbidden, InvalidInput, RaglanError
from raglan.identifiers import shortened
from raglan.url_fetcher import Fetched, FetchStatusError, UrlFetcher, Validators

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

_AGENT: Final = "raglan"
_FETCH_S: Final = 60.0
_MAX_SITEMAPS: Final = 1000
_MAX_LIST_BYTES: Final = 50 * 1024 * 1024
"""The limit of sitemaps.org."""
_MAX_DELAY_S: Final = 10.0
_FAILURES: Final = 10
"""Pages that fail one after the other before the sync ends."""
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
        self._lists = UrlFetcher(policy, max_bytes=_MAX_LIST_BYTES, timeout_s=_FETCH_S)
        self._selection = Selection(settings)
        self._robots: dict[str, Protego] = {}
        self._urls: dict[str, str] = {}
        self._failures = 0

    async def list_entries(self, cursor: str, skipped: Skipped) -> Listing | None:
        """List the pages, as `Reader.list_entries` does; sites have no cursor."""
        is_feed = isinstance(self._settings, FeedSettings)
        pages = await (self._feed() if is_feed else self._sitemaps())
        entries: list[Entry] = []
        for page in pages:
            try:
                target = self._policy.check_url(page.url)
            except (InvalidInput, Forbidden) as error:
                skipped.add(error.message)
                continue
            key = unquote(f"{target.authority}{target.path.rstrip('/')}")
            if key in self._urls or not self._selection.is_chosen(key):
                continue
            if not await self._is_allowed(target.url):
                skipped.add(f"{shortened(target.url)} is disallowed by robots.txt.")
                continue
            self._urls[key] = target.url
            entries.append(Entry(key, page.changed))
        return Listing(entries, is_complete=not is_feed)

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
        found = await self._list(self._settings.url)
        try:
            return await asyncio.to_thread(parse_feed, found.content)
        except BrokenListError as error:
            raise self._broken(found.url, error) from None

    async def _sitemaps(self) -> Iterable[Page]:
        pages: list[Page] = []
        seen = {self._settings.url}
        left = [self._settings.url]
        while left:
            found = await self._list(left.pop())
            try:
                sitemap = await asyncio.to_thread(parse_sitemap, found.content, _MAX_LIST_BYTES)
            except BrokenListError as error:
                raise self._broken(found.url, error) from None
            pages += sitemap.pages
            new = [url for url in dict.fromkeys(sitemap.sitemaps) if url not in seen]
            seen.update(new)
            left += new
            if len(pages) > self._settings.max_documents:
                raise too_many(self._settings.name, self._settings.max_documents)
            if len(seen) > _MAX_SITEMAPS:
                raise SourceUnavailable(f"The site has more than {_MAX_SITEMAPS} sitemaps.")
        return pages

    async def _list(self, url: str) -> Fetched:
        """Fetch a list. One that is missing would look like pages that are."""
        try:
            return await self._lists.fetch(url)
        except RaglanError as error:
            raise SourceUnavailable(error.message) from None

    def _broken(self, url: str, error: BrokenListError) -> SourceUnavailable:
        return SourceUnavailable(f"{shortened(url)} cannot be used: {error}.")

    async def _is_allowed(self, url: str) -> bool:
        site = urljoin(url, "/")
        if site not in self._robots:
            self._robots[site] = await self._robots_of(site)
        return bool(self._robots[site].can_fetch(url, _AGENT))

    async def _robots_of(self, site: str) -> Protego:
        try:
            found = await self._pages.fetch(f"{site}robots.txt")
        except FetchStatusError as error:
            if 400 <= error.status < 500:  # RFC 9309, section 2.3.1.3
                return Protego.parse("")
            raise SourceUnavailable(error.message) from None
        except RaglanError as error:
            raise SourceUnavailable(error.message) from None
        return Protego.parse(found.content.decode("utf-8", "replace"))

    def _delay_s(self, url: str) -> float:
        delay = self._robots[urljoin(url, "/")].crawl_delay(_AGENT)
        return min(float(delay or 0.0), _MAX_DELAY_S)

    def _count_failure(self, error: RaglanError) -> None:
        self._failures += 1
        if self._failures >= _FAILURES:
            raise SourceUnavailable(
                f"{_FAILURES} pages failed one after the other; the last: {error.message}"
            ) from None


def _validators(former: str) -> Validators:
    """Return the validators of a version that `read` returned; none for the date of a list."""
    try:
        etag, last_modified = json.loads(former)
    except (ValueError, TypeError):
        return Validators()
    return Validators(str(etag), str(last_modified))
