"""A bucket as a source, on a real S3 server, with its errors by a proxy before it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import s3_server
from configured_sources import FAILING, SYNCED, Sources
from raglan.errors import InvalidInput, PayloadTooLarge
from raglan_ingester.bulk.plan import Services, plan_of
from raglan_ingester.bulk.worker import BulkDocuments
from raglan_ingester.sources import config
from raglan_ingester.sources.config import S3Settings
from raglan_ingester.sources.reader import Skipped, SkippedDocumentError, SourceUnavailable
from raglan_ingester.sources.readers import s3
from raglan_ingester.sources.readers.s3 import S3Reader
from s3_server import ACCESS_KEY_ID, SECRET, FailingProxy, S3Server

FILES = {"manuals/a.md": "One.", "manuals/deep/b.txt": "Two.", "manualsx/no.md": "Other."}


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server.running() as server:
        yield server


@pytest.fixture
async def proxy(server: S3Server) -> AsyncIterator[FailingProxy]:
    async with s3_server.failing(server) as proxy:
        yield proxy


@pytest.fixture
def bucket(server: S3Server) -> str:
    name = server.bucket()
    server.put(name, FILES)
    return name


def settings_of(endpoint: str, bucket: str, **changes: Any) -> S3Settings:
    values = {
        "name": "manuals",
        "kind": "s3",
        "collection": "default",
        "url": f"s3://{bucket}/manuals",
        "endpoint": endpoint,
        "access_key_id": ACCESS_KEY_ID,
        "secret_access_key_file": Path("/unread"),
    }
    return S3Settings(**(values | changes))


class Read:
    """A reader, and what it gave."""

    def __init__(self, settings: S3Settings, max_bytes: int = 10_000) -> None:
        self.reader = S3Reader(settings, SECRET, max_bytes)
        self.skipped = Skipped()
        self.versions: dict[str, str] = {}
        self.texts: dict[str, str] = {}
        self.contents: dict[str, Any] = {}

    async def list(self) -> Any:
        listing = await self.reader.list_entries("", self.skipped)
        assert listing is not None
        self.versions = {entry.key: entry.version for entry in listing.entries}
        return listing

    async def all(self) -> Read:
        try:
            for entry in (await self.list()).entries:
                await self.one(entry)
        finally:
            await self.reader.close()
        return self

    async def one(self, entry: Any) -> None:
        try:
            content = await self.reader.read(entry, "")
        except SkippedDocumentError as error:
            self.skipped.add(error.message)
            return
        if content is not None:
            self.contents[entry.key] = content
            self.texts[entry.key] = content.data.decode()


async def test_the_objects_below_a_prefix_are_read(server: S3Server, bucket: str) -> None:
    found = await Read(settings_of(server.url, bucket)).all()
    assert found.texts == {"a.md": "One.", "deep/b.txt": "Two."}
    assert found.contents["deep/b.txt"].filename == "b.txt"
    assert found.contents["deep/b.txt"].metadata == {
        "path": "deep/b.txt",
        "url": f"s3://{bucket}/manuals/deep/b.txt",
    }


async def test_a_version_is_that_of_the_content(server: S3Server, bucket: str) -> None:
    before = await Read(settings_of(server.url, bucket)).all()
    await asyncio.to_thread(
        server.put, bucket, {"manuals/a.md": "One.", "manuals/deep/b.txt": "Changed."}
    )
    after = await Read(settings_of(server.url, bucket)).all()
    assert before.versions["a.md"] == after.versions["a.md"]
    assert before.versions["deep/b.txt"] != after.versions["deep/b.txt"]


async def test_unusual_keys_leave_the_others(server: S3Server, bucket: str) -> None:
    """Object stores take names that no file system has."""
    odd = {"manuals//c.md": "Three.", "manuals/./d.md": "Four.", "manuals/é %20.md": "Five."}
    await asyncio.to_thread(server.put, bucket, odd | {"manuals/folder/": ""})
    found = await Read(settings_of(server.url, bucket)).all()
    assert {"a.md", "deep/b.txt", "é %20.md"} <= found.texts.keys()
    assert found.texts["é %20.md"] == "Five."
    assert found.skipped.count == 0


async def test_a_listing_of_several_pages_is_read_to_its_end(
    proxy: FailingProxy, server: S3Server, bucket: str
) -> None:
    await asyncio.to_thread(
        server.put, bucket, {f"manuals/{number}.txt": "Text." for number in range(25)}
    )
    proxy.page = 10
    read = Read(settings_of(proxy.url, bucket))
    await read.list()
    await read.reader.close()
    assert (len(read.versions), proxy.seen) == (27, 3)
    limited = Read(settings_of(proxy.url, bucket, max_documents=15))
    with pytest.raises(PayloadTooLarge, match="holds more than 15 documents"):
        await limited.all()
    assert proxy.seen == 3 + 2  # no page is asked for beyond the limit


async def test_a_large_object_is_not_fetched(
    proxy: FailingProxy, server: S3Server, bucket: str
) -> None:
    await asyncio.to_thread(server.put, bucket, {"manuals/big.txt": "x" * 101})
    found = await Read(settings_of(proxy.url, bucket), max_bytes=100).all()
    assert found.texts == {"a.md": "One.", "deep/b.txt": "Two."}
    assert found.skipped.reasons == [
        "'big.txt' has 101 bytes; the limit is 100 (RAGLAN_INGESTER_MAX_DOCUMENT_BYTES)."
    ]
    assert proxy.seen == 3  # the listing and two objects


async def test_an_object_that_changes_or_goes_after_the_listing(
    server: S3Server, bucket: str
) -> None:
    read = Read(settings_of(server.url, bucket))
    listing = await read.list()
    await asyncio.to_thread(server.put, bucket, {"manuals/a.md": "Changed."})
    await asyncio.to_thread(server.delete, bucket, "manuals/deep/b.txt")
    for entry in listing.entries:
        await read.one(entry)
    await read.reader.close()
    assert read.texts == {}
    assert read.skipped.reasons == ["'a.md' changed while it was read; the next sync reads it."]


async def test_a_bucket_that_vanishes_is_no_empty_bucket(server: S3Server, bucket: str) -> None:
    read = Read(settings_of(server.url, bucket))
    listing = await read.list()
    await asyncio.to_thread(server.delete, bucket, *FILES)
    await asyncio.to_thread(server.client.delete_bucket, Bucket=bucket)
    with pytest.raises(SourceUnavailable, match=r"cannot be read: NoSuchBucket \(404\)"):
        await read.reader.read(listing.entries[0], "")
    with pytest.raises(SourceUnavailable, match=r"cannot be listed: NoSuchBucket \(404\)"):
        await read.all()


@pytest.mark.parametrize(
    ("failure", "message", "requests"),
    [((403, "AccessDenied"), r"AccessDenied \(403\)", 1), ((500, "Inner"), r"Inner \(500\)", 3)],
)
async def test_a_refused_listing_is_an_error_of_the_source(
    proxy: FailingProxy, bucket: str, failure: tuple[int, str], message: str, requests: int
) -> None:
    proxy.fails = lambda request: failure
    with pytest.raises(SourceUnavailable, match=message) as raised:
        await Read(settings_of(proxy.url, bucket)).all()
    assert SECRET not in str(raised.value)
    assert proxy.seen == requests


async def test_one_refused_object_leaves_the_others_and_many_end_the_sync(
    proxy: FailingProxy, server: S3Server, bucket: str
) -> None:
    proxy.fails = lambda request: (403, "AccessDenied") if "a.md" in request.path else None
    found = await Read(settings_of(proxy.url, bucket)).all()
    assert found.texts == {"deep/b.txt": "Two."}
    assert found.skipped.reasons == ["'a.md' cannot be read: AccessDenied (403)."]
    await asyncio.to_thread(
        server.put, bucket, {f"manuals/{number}.md": "Text." for number in range(12)}
    )
    proxy.fails = lambda request: (403, "AccessDenied") if ".md" in request.path else None
    with pytest.raises(SourceUnavailable, match="AccessDenied"):
        await Read(settings_of(proxy.url, bucket)).all()


async def test_a_server_error_in_the_middle_ends_the_sync(proxy: FailingProxy, bucket: str) -> None:
    proxy.fails = lambda request: (503, "SlowDown") if "b.txt" in request.path else None
    read = Read(settings_of(proxy.url, bucket))
    with pytest.raises(SourceUnavailable, match="SlowDown"):
        await read.all()
    assert read.texts == {"a.md": "One."}


async def test_a_reply_that_breaks_off_is_no_document(proxy: FailingProxy, bucket: str) -> None:
    proxy.cuts_bodies = True
    found = await Read(settings_of(proxy.url, bucket), max_bytes=2_000_000).all()
    assert found.texts == {"a.md": "One."}
    assert found.skipped.reasons[0].startswith("'deep/b.txt' broke off")


async def test_an_endpoint_that_is_away_is_an_error_of_the_source(unused_tcp_port: int) -> None:
    settings = settings_of(f"http://127.0.0.1:{unused_tcp_port}", "bucket")
    with pytest.raises(SourceUnavailable, match="EndpointConnectionError"):
        await Read(settings).all()


async def test_a_listing_ends_with_its_sync(
    proxy: FailingProxy, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "_LIST_S", -1.0)
    with pytest.raises(SourceUnavailable, match="could not be listed within"):
        await asyncio.wait_for(Read(settings_of(proxy.url, bucket)).all(), 30)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"url": "https://bucket/prefix"}, "url: write s3://bucket/prefix"),
        ({"endpoint": "minio:9000"}, "endpoint: write https://host:port"),
        ({"endpoint": "https://key:secret@minio"}, "endpoint: the URL holds credentials"),
        ({"access_key_id": "reader"}, "go together"),
        ({"secret": "x"}, "secret"),
    ],
)
def test_a_wrong_bucket_is_refused_by_its_field(changes: dict[str, str], message: str) -> None:
    entry = {"name": "m", "kind": "s3", "collection": "default", "url": "s3://bucket"} | changes
    lines = "".join(f"\n    {key}: {value}" for key, value in entry.items())
    with pytest.raises(InvalidInput, match=message) as raised:
        config.parse(f"sources:\n  -{lines[4:]}\n".encode(), "sources.yaml")
    assert "key:secret" not in raised.value.message


@pytest.fixture(scope="module")
def sources_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("configured") / "sources.yaml"


@pytest.fixture(scope="module")
def changes(sources_file: Path) -> dict[str, Any]:
    sources_file.write_text("sources: []\n")
    return {"sources_file": sources_file}


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    file = tmp_path / "secret"
    file.write_text(f"{SECRET}\n")
    return file


@pytest.mark.asyncio(loop_scope="module")
async def test_a_bucket_is_followed_and_failures_delete_nothing(
    server: S3Server, bucket: str, sources_file: Path, ingester: Any, secret_file: Path
) -> None:
    async with s3_server.failing(server) as proxy:
        sources = Sources(sources_file, ingester, Path("/unused"))
        settings = settings_of(proxy.url, bucket, secret_access_key_file=secret_file)
        entry = settings.model_dump(mode="json", exclude_defaults=True)
        sources.write({"sources": [entry | {"name": sources.name, "every": "1d"}]})
        await sources.until(SYNCED)
        assert await sources.documents() == {"a.md": "One.", "deep/b.txt": "Two."}

        await asyncio.to_thread(
            server.put, bucket, {"manuals/a.md": "Changed.", "manuals/c.md": "Three."}
        )
        await asyncio.to_thread(server.delete, bucket, "manuals/deep/b.txt")
        synced = await sources.sync()
        assert (synced.added, synced.changed, synced.deleted) == (1, 1, 1)
        assert await sources.documents() == {"a.md": "Changed.", "c.md": "Three."}

        before = proxy.seen
        assert (await sources.sync()).listed == 2
        assert proxy.seen == before + 1  # what has not changed is not fetched

        proxy.fails = lambda request: (500, "InternalError")
        failed = await sources.sync()
        assert failed.status == FAILING
        assert "cannot be listed: InternalError (500)" in failed.error
        assert await sources.documents() == {"a.md": "Changed.", "c.md": "Three."}

        proxy.fails = lambda request: None
        assert (await sources.sync()).status == SYNCED


@pytest.mark.asyncio(loop_scope="module")
async def test_a_bucket_is_ingested_in_bulk(
    server: S3Server,
    bucket: str,
    ingester: Any,
    addresses: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the credentials of the surroundings, as workers have them."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    services = Services(
        ingester.address, addresses["embedder_address"], addresses["retriever_address"]
    )
    plan = plan_of(f"s3://{bucket}/manuals", services, collection="default", endpoint=server.url)
    documents = BulkDocuments(plan, ingester.settings)
    try:
        listing = await documents.listing(Skipped())
        records = await documents.work(listing.entries)
    finally:
        await documents.close()
    assert [(each.document, each.state) for each in records] == [
        ("manuals/a.md", "indexed"),
        ("manuals/deep/b.txt", "indexed"),
    ]
    assert (await ingester.document("manuals/deep/b.txt")).text == "Two."
