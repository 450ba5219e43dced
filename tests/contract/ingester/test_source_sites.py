"""Sitemaps and feeds as sources: a real server that counts, moves, breaks and refuses."""

from __future__ import annotations

import gzip
import http.server
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from raglan.errors import PayloadTooLarge
from raglan_ingester.sources.config import FeedSettings, SitemapSettings
from raglan_ingester.sources.reader import (
    Skipped,
    SkippedDocumentError,
    SourceUnavailable,
    Unchanged,
)
from raglan_ingester.sources.readers import web
from raglan_ingester.sources.readers.web import WebReader
from raglan_ingester.sources.site_lists import BrokenListError, parse_sitemap


@dataclass
class Site:
    """A site of fixed replies by path: (status, headers, body)."""

    port: int = 0
    replies: dict[str, tuple[int, dict[str, str], bytes]] = field(default_factory=dict)
    asked: list[tuple[str, int]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def page(self, path: str, text: str = "Text.", status: int = 200, **headers: str) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.replies[path] = (status, {"content-type": "text/html"} | named, text.encode())

    def sitemap(self, pages: dict[str, str], path: str = "/sitemap.xml") -> None:
        entries = "".join(
            f"<url><loc>{url if '://' in url else self.url + url}</loc>"
            + (f"<lastmod>{date}</lastmod>" if date else "")
            + "</url>"
            for url, date in pages.items()
        )
        space = "http://www.sitemaps.org/schemas/sitemap/0.9"
        self.page(path, f'<urlset xmlns="{space}">{entries}</urlset>')

    def index(self, *paths: str, path: str = "/sitemap.xml") -> None:
        entries = "".join(f"<sitemap><loc>{self.url}{each}</loc></sitemap>" for each in paths)
        self.page(path, f"<sitemapindex>{entries}</sitemapindex>")

    def reader(self, kind: str = "sitemap", **changes: Any) -> WebReader:
        given = {
            "name": "site",
            "collection": "default",
            "url": f"{self.url}/sitemap.xml",
            "networks": ["127.0.0.0/8"],
            "ports": [self.port],
        } | changes
        settings = (
            SitemapSettings(kind="sitemap", **given)
            if kind == "sitemap"
            else FeedSettings(kind="feed", **given)
        )
        return WebReader(settings, 10_000)


@pytest.fixture
def site() -> Iterator[Site]:
    found = Site()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = found.replies.get(self.path, (404, {}, b""))
            etag = headers.get("etag")
            if etag and self.headers.get("if-none-match") == etag:
                status, body = 304, b""
            found.asked.append((self.path, status))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.port = server.server_port
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


async def keys(reader: WebReader, skipped: Skipped | None = None) -> dict[str, str]:
    """Version by path."""
    listing = await reader.list_entries("", skipped or Skipped())
    assert listing is not None
    return {entry.key.partition("/")[2]: entry.version for entry in listing.entries}


async def test_a_sitemap_lists_pages_with_their_dates(site: Site) -> None:
    site.sitemap({"/a": "2026-01-01", "/b/": ""})
    assert await keys(site.reader()) == {"a": "2026-01-01", "b": ""}


async def test_an_index_is_followed_once_though_it_names_itself(site: Site) -> None:
    site.index("/one.xml", "/two.xml.gz", "/sitemap.xml")
    site.sitemap({"/a": ""}, "/one.xml")
    site.sitemap({"/b": ""}, "/two.xml.gz")
    status, headers, body = site.replies["/two.xml.gz"]
    site.replies["/two.xml.gz"] = (status, headers, gzip.compress(body))
    assert set(await keys(site.reader())) == {"a", "b"}
    assert [path for path, _ in site.asked].count("/sitemap.xml") == 1


@pytest.mark.parametrize(("status", "text"), [(500, ""), (200, "<html>Sign in</html>")])
async def test_one_sitemap_of_an_index_that_breaks_leaves_the_pages_of_the_others(
    site: Site, status: int, text: str
) -> None:
    site.index("/one.xml", "/two.xml")
    site.sitemap({"/a": ""}, "/one.xml")
    site.page("/two.xml", text, status)
    listing = await site.reader().list_entries("", Skipped())
    assert listing is not None
    assert [entry.key.partition("/")[2] for entry in listing.entries] == ["a"]
    assert listing.unread.keys() == {""}
    assert f"{site.url}/two.xml" in listing.unread[""]


async def test_an_index_whose_sitemaps_all_break_ends_the_sync(site: Site) -> None:
    site.index(*(f"/{n}.xml" for n in range(20)))
    with pytest.raises(SourceUnavailable, match="gave status 404"):
        await keys(site.reader())
    assert len(site.asked) == 11


async def test_a_page_is_asked_for_with_its_validators(site: Site) -> None:
    site.sitemap({"/a": ""})
    site.page("/a", "First.", etag='"1"')
    reader = site.reader()
    listing = await reader.list_entries("", Skipped())
    assert listing is not None
    (entry,) = listing.entries
    first = await reader.read(entry, "")
    assert first is not None
    assert not isinstance(first, Unchanged)
    assert (first.data, first.media_type) == (b"First.", "text/html")
    assert isinstance(await reader.read(entry, first.version), Unchanged)
    site.page("/a", "Second.", etag='"2"')
    second = await reader.read(entry, first.version)
    assert second is not None
    assert not isinstance(second, Unchanged)
    assert second.data == b"Second."
    assert [status for path, status in site.asked if path == "/a"] == [200, 304, 200]


async def test_robots_are_heeded(site: Site) -> None:
    site.page("/robots.txt", "User-agent: *\nDisallow: /private\n", content_type="text/plain")
    site.sitemap({"/a": "", "/private/b": ""})
    skipped = Skipped()
    assert set(await keys(site.reader(), skipped)) == {"a"}
    assert "disallowed by robots.txt" in skipped.reasons[0]


async def test_robots_that_cannot_be_read_end_the_sync(site: Site) -> None:
    site.page("/robots.txt", status=500)
    site.sitemap({"/a": ""})
    with pytest.raises(SourceUnavailable, match="gave status 500"):
        await keys(site.reader())


async def test_other_hosts_and_private_addresses_are_left_out(site: Site) -> None:
    site.sitemap({"/a": "", "https://other.example.com/b": "", "file:///etc/passwd": ""})
    skipped = Skipped()
    assert set(await keys(site.reader(), skipped)) == {"a"}
    assert skipped.count == 2
    with pytest.raises(SourceUnavailable, match="not on the public internet"):
        await keys(site.reader(networks=[]))


@pytest.mark.parametrize("status", [404, 410])
async def test_a_page_that_is_gone_is_no_document(site: Site, status: int) -> None:
    site.sitemap({"/a": ""})
    site.page("/a", status=status)
    reader = site.reader()
    listing = await reader.list_entries("", Skipped())
    assert listing is not None
    assert await reader.read(listing.entries[0], "") is None


@pytest.mark.parametrize(
    ("status", "text"), [(500, ""), (404, ""), (200, "<html>Sign in</html>"), (200, "")]
)
async def test_a_sitemap_that_breaks_is_an_error_and_not_an_empty_site(
    site: Site, status: int, text: str
) -> None:
    site.page("/sitemap.xml", text, status)
    with pytest.raises(SourceUnavailable):
        await keys(site.reader())


async def test_a_site_that_fails_for_every_page_ends_the_sync(site: Site) -> None:
    site.sitemap({f"/{n}": "" for n in range(20)})
    for n in range(20):
        site.page(f"/{n}", status=503)
    reader = site.reader()
    listing = await reader.list_entries("", Skipped())
    assert listing is not None
    for entry in listing.entries[:9]:
        with pytest.raises(SkippedDocumentError):
            await reader.read(entry, "")
    with pytest.raises(SourceUnavailable, match="10 pages failed one after the other"):
        await reader.read(listing.entries[9], "")


async def test_too_many_pages_are_refused(site: Site) -> None:
    site.sitemap({f"/{n}": "" for n in range(20)})
    with pytest.raises(PayloadTooLarge, match="holds more than 10 documents"):
        await keys(site.reader(max_documents=10))


def test_a_sitemap_is_read_up_to_its_limit() -> None:
    """What follows is not even parsed."""
    data = b"<urlset><url><loc>a</loc></url><url><loc>b</loc></url><url><loc>c</loc></url><not"
    assert [page.url for page in parse_sitemap(data, 1000, 2).pages] == ["a", "b"]
    with pytest.raises(BrokenListError):
        parse_sitemap(data, 1000, 4)


async def test_a_feed_of_too_many_entries_is_refused(site: Site) -> None:
    items = "".join(f"<item><link>{site.url}/{n}</link></item>" for n in range(5))
    site.page("/feed", f'<rss version="2.0"><channel>{items}</channel></rss>')
    with pytest.raises(PayloadTooLarge, match="holds more than 4 documents"):
        await keys(site.reader("feed", url=f"{site.url}/feed", max_documents=4))


async def test_an_endless_feed_is_not_read_to_its_end(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "_MAX_FEED_BYTES", 1000)
    site.page("/feed", f'<rss version="2.0"><channel>{"<item/>" * 1000}</channel></rss>')
    with pytest.raises(SourceUnavailable, match="has more than 1,000 bytes, the limit of a list"):
        await keys(site.reader("feed", url=f"{site.url}/feed"))


async def test_pages_on_too_many_sites_are_refused(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "_MAX_SITES", 1)
    site.sitemap({"/a": "", f"http://localhost:{site.port}/b": ""})
    with pytest.raises(SourceUnavailable, match="more than 1 sites"):
        await keys(site.reader(hosts=["127.0.0.1", "localhost"]))


async def test_a_listing_ends_after_its_time(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "_LIST_S", 0.0)
    site.sitemap({"/a": ""})
    with pytest.raises(SourceUnavailable, match="could not be listed within 0 s"):
        await keys(site.reader())


async def test_a_compressed_bomb_is_an_error(site: Site) -> None:
    body = gzip.compress(b" " * (51 * 1024 * 1024))
    site.replies["/sitemap.xml"] = (200, {}, body)
    with pytest.raises(SourceUnavailable, match="has more than 52,428,800 bytes"):
        await keys(site.reader())


async def test_a_feed_lists_its_entries_and_deletes_nothing(site: Site) -> None:
    items = "".join(
        f"<item><link>{site.url}/{n}</link>"
        f"<pubDate>Sat, 0{n} Aug 2026 00:00:00 GMT</pubDate></item>"
        for n in (1, 2)
    )
    site.page("/feed", f'<rss version="2.0"><channel>{items}</channel></rss>')
    reader = site.reader("feed", url=f"{site.url}/feed")
    listing = await reader.list_entries("", Skipped())
    assert listing is not None
    assert not listing.is_complete
    assert [entry.key.partition("/")[2] for entry in listing.entries] == ["1", "2"]
    assert all(entry.version for entry in listing.entries)


async def test_a_page_that_is_no_feed_is_an_error(site: Site) -> None:
    site.page("/feed", "<html><body>Sign in</body></html>")
    reader = site.reader("feed", url=f"{site.url}/feed")
    with pytest.raises(SourceUnavailable, match="it is no feed"):
        await reader.list_entries("", Skipped())
