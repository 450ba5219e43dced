"""Sources: a file configures them, syncs follow what they hold, and errors delete nothing."""

from __future__ import annotations

import asyncio
import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from configured_sources import FAILING, HELD, PAUSED, SYNCED, Sources
from postgres_server import PostgresServer
from raglan.errors import NotFound
from raglan.v1 import ingester_pb2
from raglan_ingester.sources.reader import Content, Entry, SourceUnavailable
from raglan_ingester.sources.readers.folder import FolderReader

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def sources_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("configured") / "sources.yaml"
    file.write_text("sources: []\n")
    return file


@pytest.fixture(scope="module")
def changes(sources_file: Path) -> dict[str, Any]:
    return {"sources_file": sources_file, "max_document_bytes": 100_000}


@pytest.fixture
def sources(sources_file: Path, ingester: Any, tmp_path: Path) -> Sources:
    folder = tmp_path / "documents"
    folder.mkdir()
    return Sources(sources_file, ingester, folder)


def write(folder: Path, files: dict[str, str]) -> None:
    for path, text in files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


async def test_a_folder_is_followed(sources: Sources) -> None:
    write(sources.folder, {"a.txt": "One.", "deep/b.md": "Two.", "c.bin": "no", ".d.txt": "no"})
    sources.configure(metadata={"team": "search"})
    first = await sources.until(SYNCED)
    assert (first.listed, first.added, first.documents) == (2, 2, 2)
    assert await sources.documents() == {"a.txt": "One.", "deep/b.md": "Two."}
    stored = await sources.ingester.document(f"{sources.name}/deep/b.md")
    assert '"source":"' + sources.name in stored.metadata_json
    assert '"team":"search"' in stored.metadata_json

    write(sources.folder, {"a.txt": "Other.", "e.txt": "Three."})
    (sources.folder / "deep/b.md").unlink()
    second = await sources.sync()
    assert (second.added, second.changed, second.deleted) == (1, 1, 1)
    assert await sources.documents() == {"a.txt": "Other.", "e.txt": "Three."}


async def test_deleted_documents_leave_the_index(sources: Sources, retriever: Any) -> None:
    write(sources.folder, {"a.txt": "One.", "b.txt": "Two."})
    sources.configure()
    await sources.until(SYNCED)
    (sources.folder / "b.txt").unlink()
    await sources.sync()
    held = {chunk.document_id for chunk in retriever.collections["default"].values()}
    assert held == {f"{sources.name}/a.txt"}


async def test_nothing_is_submitted_twice(sources: Sources, embedder: Any) -> None:
    write(sources.folder, {"a.txt": "One.", "b.txt": "Two."})
    for name in ("a.txt", "b.txt"):
        os.utime(sources.folder / name, (1e9, 1e9))
    sources.configure()
    await sources.until(SYNCED)
    embedded = len(embedder.texts)
    os.utime(sources.folder / "a.txt", (2e9, 2e9))  # touched, with the same content
    again = await sources.sync()
    assert (again.added, again.changed, len(embedder.texts)) == (0, 0, embedded)


async def test_other_metadata_reach_every_document(sources: Sources) -> None:
    write(sources.folder, {"a.txt": "One."})
    os.utime(sources.folder / "a.txt", (1e9, 1e9))
    sources.configure()
    await sources.until(SYNCED)
    sources.configure(metadata={"team": "search"})
    async with asyncio.timeout(30):
        while (
            "team" not in (await sources.ingester.document(f"{sources.name}/a.txt")).metadata_json
        ):
            await asyncio.sleep(0.05)


async def test_a_vanished_folder_deletes_nothing(sources: Sources) -> None:
    write(sources.folder, {"a.txt": "One."})
    sources.configure()
    await sources.until(SYNCED)
    sources.folder.rename(sources.folder.with_name("away"))
    failed = await sources.sync()
    assert failed.status == FAILING
    assert "cannot be read: No such file or directory" in failed.error
    assert await sources.documents() == {"a.txt": "One."}
    sources.folder.with_name("away").rename(sources.folder)
    assert (await sources.sync()).status == SYNCED


async def test_an_emptied_folder_keeps_its_documents_until_it_is_confirmed(
    sources: Sources,
) -> None:
    """As a file system does that is not mounted."""
    write(sources.folder, {f"{n}.txt": f"Text {n}." for n in range(12)})
    sources.configure()
    await sources.until(SYNCED)
    for file in sources.folder.iterdir():
        file.unlink()
    held = await sources.sync()
    assert (held.status, held.held, held.deleted, held.documents) == (HELD, 12, 0, 12)
    gone = await sources.sync(accept_deletions=True)
    assert (gone.status, gone.deleted, gone.documents) == (SYNCED, 12, 0)
    assert await sources.documents() == {}


async def test_held_documents_go_after_their_time(sources: Sources) -> None:
    write(sources.folder, {f"{n}.txt": f"Text {n}." for n in range(12)})
    sources.configure(delete_after="2s")
    await sources.until(SYNCED)
    for file in sources.folder.iterdir():
        file.unlink()
    assert (await sources.sync()).held == 12
    await asyncio.sleep(2.1)
    assert (await sources.sync()).deleted == 12


async def test_a_source_over_its_limit_changes_nothing(sources: Sources) -> None:
    write(sources.folder, {"a.txt": "One."})
    sources.configure(max_documents=3)
    await sources.until(SYNCED)
    write(sources.folder, {f"{n}.txt": "More." for n in range(5)})
    failed = await sources.sync()
    assert "holds more than 3 documents" in failed.error
    assert await sources.documents() == {"a.txt": "One."}


async def test_what_cannot_be_read_is_named_and_the_rest_goes_on(sources: Sources) -> None:
    write(sources.folder, {"a.txt": "One.", "big.txt": "x" * 100_001, "empty.txt": ""})
    (sources.folder / "loop").symlink_to(sources.folder)
    (sources.folder / "link.txt").symlink_to("/etc/hostname")
    os.mkfifo(sources.folder / "pipe.txt")
    sources.configure()
    state = await sources.until(SYNCED)
    assert await sources.documents() == {"a.txt": "One."}
    assert state.skipped == 3
    reasons = " ".join(state.skipped_reasons)
    assert "'big.txt' has 100,001 bytes; the limit is 100,000" in reasons
    assert "'loop' is a symbolic link" in reasons
    assert "'link.txt' is a symbolic link" in reasons


async def test_an_emptied_file_loses_its_document(sources: Sources) -> None:
    write(sources.folder, {"a.txt": "One.", "b.txt": "Two."})
    sources.configure()
    await sources.until(SYNCED)
    write(sources.folder, {"a.txt": ""})
    await sources.sync()
    assert await sources.documents() == {"b.txt": "Two."}


async def test_a_document_deleted_by_hand_comes_back(sources: Sources) -> None:
    write(sources.folder, {"a.txt": "One."})
    os.utime(sources.folder / "a.txt", (1e9, 1e9))
    sources.configure()
    await sources.until(SYNCED)
    await sources.ingester.delete(f"{sources.name}/a.txt")
    await sources.sync()
    assert await sources.documents() == {"a.txt": "One."}


async def test_a_failed_document_is_tried_again(sources: Sources, embedder: Any) -> None:
    write(sources.folder, {"a.txt": "One."})
    os.utime(sources.folder / "a.txt", (1e9, 1e9))
    embedder.error = lambda texts: NotFound("No model.")
    sources.configure()
    assert (await sources.until(SYNCED)).failed_documents == 1
    embedder.error = lambda texts: None
    assert (await sources.sync()).failed_documents == 0
    assert await sources.documents() == {"a.txt": "One."}


async def test_a_source_moves_to_another_collection(sources: Sources, retriever: Any) -> None:
    retriever.add_collection("small")
    write(sources.folder, {"a.txt": "One."})
    sources.configure()
    await sources.until(SYNCED)
    sources.configure(collection="small")
    async with asyncio.timeout(30):
        while await sources.documents("small") != {"a.txt": "One."}:
            await asyncio.sleep(0.05)
    assert await sources.documents() == {}


async def test_purge_deletes_what_the_source_brought(sources: Sources) -> None:
    write(sources.folder, {f"{n}.txt": f"Text {n}." for n in range(12)})
    sources.configure()
    await sources.until(SYNCED)
    sources.configure(purge=True)
    async with asyncio.timeout(30):
        while await sources.documents():
            await asyncio.sleep(0.05)


async def test_a_paused_source_keeps_its_documents(sources: Sources) -> None:
    write(sources.folder, {"a.txt": "One."})
    sources.configure()
    await sources.until(SYNCED)
    sources.configure(enabled=False)
    await sources.until(PAUSED)
    assert await sources.documents() == {"a.txt": "One."}


async def test_a_missing_collection_is_an_error_of_the_source(sources: Sources) -> None:
    write(sources.folder, {"a.txt": "One."})
    sources.configure(collection="nothing")
    failed = await sources.until(FAILING)
    assert "'nothing'" in failed.error
    assert failed.next_at.ToMilliseconds() > failed.finished_at.ToMilliseconds() + 29_000


async def test_a_file_with_an_error_leaves_the_sources(sources: Sources) -> None:
    write(sources.folder, {"a.txt": "One."})
    sources.configure()
    await sources.until(SYNCED)
    sources.write("sources: [\n")
    async with asyncio.timeout(30):
        while not (error := (await sources.listed()).file_error):
            await asyncio.sleep(0.05)
    assert "sources.yaml, line 2: this is not YAML." in error
    assert (await sources.state()).status == SYNCED
    sources.configure()
    async with asyncio.timeout(30):
        while (await sources.listed()).file_error:
            await asyncio.sleep(0.05)


async def test_tenants_see_their_own_sources(sources: Sources) -> None:
    sources.configure(tenant="acme", enabled=False)
    await asyncio.sleep(1.5)
    assert await sources.state() is None
    request = ingester_pb2.SyncSourceRequest(source=sources.name)
    with pytest.raises(NotFound):
        await sources.ingester.call(sources.ingester.stub.SyncSource, request)


async def test_documents_that_a_backup_brought_back_are_followed(sources: Sources) -> None:
    """The source has no record of them, and deletes those that it does not hold."""
    head = ingester_pb2.DocumentHeader(
        document_id=f"{sources.name}/old.txt",
        filename="old.txt",
        metadata_json=f'{{"source": "{sources.name}"}}',
    )
    own = ingester_pb2.DocumentHeader(document_id=f"{sources.name}/mine.txt", filename="mine.txt")
    job = await sources.ingester.submit([(head, b"Old."), (own, b"Mine.")])
    await sources.ingester.ended(job)
    write(sources.folder, {"a.txt": "One."})
    sources.configure()
    await sources.until(SYNCED)
    assert await sources.documents() == {"a.txt": "One.", "mine.txt": "Mine."}


async def test_what_was_read_before_a_source_fails_is_submitted(
    sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fewer documents than a batch; the next sync reads the others."""
    write(sources.folder, {f"{n}.txt": f"Text {n}." for n in range(8)})
    read, taken = FolderReader.read, list[str]()

    async def read_some(self: FolderReader, entry: Entry, former: str) -> Content | None:
        if len(taken) == 5:
            raise SourceUnavailable("The disk is away.")
        taken.append(entry.key)
        return await read(self, entry, former)

    monkeypatch.setattr(FolderReader, "read", read_some)
    sources.configure()
    failed = await sources.until(FAILING)
    assert failed.error == "The disk is away."
    async with asyncio.timeout(30):
        while len(await sources.documents()) < 5:
            await asyncio.sleep(0.05)
    assert (await sources.documents()).keys() == set(taken)
    monkeypatch.undo()
    synced = await sources.sync()
    assert (synced.status, synced.added, synced.documents) == (SYNCED, 3, 8)


@pytest.fixture
def unreadable(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names of folders that cannot be opened, as root reads what has no permissions."""
    names: set[str] = set()
    opened = os.open

    def open_others(path: Any, flags: int, *mode: int, **options: Any) -> int:
        if path in names and flags & os.O_DIRECTORY:
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(path, flags, *mode, **options)

    monkeypatch.setattr(os, "open", open_others)
    return names


async def test_a_part_that_cannot_be_read_keeps_its_documents_and_no_others(
    sources: Sources, unreadable: set[str]
) -> None:
    write(sources.folder, {"a.txt": "One.", "b.txt": "Two.", "c/d/e.txt": "Three."})
    sources.configure()
    await sources.until(SYNCED)
    unreadable.add("d")
    (sources.folder / "b.txt").unlink()
    write(sources.folder, {"f.txt": "Four."})
    partly = await sources.sync()
    assert partly.status == FAILING
    assert partly.error == "The folder 'c/d' cannot be read: Permission denied."
    assert (partly.added, partly.deleted, partly.held) == (1, 1, 0)
    assert await sources.documents() == {"a.txt": "One.", "c/d/e.txt": "Three.", "f.txt": "Four."}
    unreadable.clear()
    (sources.folder / "c/d/e.txt").unlink()
    whole = await sources.sync()
    assert (whole.status, whole.error, whole.deleted) == (SYNCED, "", 1)


async def test_an_accepted_deletion_is_used_up_by_a_sync_of_a_part(
    sources: Sources, unreadable: set[str]
) -> None:
    write(sources.folder, {f"c/{n}.txt": f"Text {n}." for n in range(12)})
    sources.configure()
    await sources.until(SYNCED)
    unreadable.add("c")
    assert (await sources.sync(accept_deletions=True)).deleted == 0
    unreadable.clear()
    for file in (sources.folder / "c").iterdir():
        file.unlink()
    held = await sources.sync()
    assert (held.status, held.held, held.deleted) == (HELD, 12, 0)


async def test_documents_have_the_access_tags_of_their_source(sources: Sources) -> None:
    write(sources.folder, {"a.txt": "One."})

    async def until(text: str, tags: list[str]) -> None:
        async with asyncio.timeout(30):
            while True:
                with suppress(NotFound):
                    found = await sources.ingester.document(f"{sources.name}/a.txt")
                    if (found.text.strip(), sorted(found.access)) == (text, tags):
                        return
                await asyncio.sleep(0.05)

    sources.configure(access=["hr"])
    await until("One.", ["hr"])
    sources.configure(access=["law", "hr"])
    await until("One.", ["hr", "law"])
    write(sources.folder, {"a.txt": "Two."})
    sources.configure()  # which leaves the tags as they are
    await until("Two.", ["hr", "law"])
    sources.configure(access=[])
    await until("Two.", [])


async def test_the_rows_of_a_query_are_followed(sources: Sources, postgres: PostgresServer) -> None:
    entry = {
        "name": sources.name,
        "kind": "postgresql",
        "collection": "default",
        "every": "1d",
        "url": postgres.url,
        "query": "SELECT id, body FROM answers;",
        "key": "id",
        "text": "body",
    }
    async with await psycopg.AsyncConnection.connect(postgres.url, autocommit=True) as database:
        await database.execute("CREATE TABLE answers (id text PRIMARY KEY, body text)")
        await database.execute(
            "INSERT INTO answers VALUES ('a/1', 'One.'), ('b', 'Two.'), ('c', '')"
        )
        sources.write({"sources": [entry]})
        first = await sources.until(SYNCED, FAILING)
        assert first.error == ""
        assert await sources.documents() == {"a/1": "One.", "b": "Two."}
        await database.execute("UPDATE answers SET body = 'Three.' WHERE id = 'b'")
        await database.execute("DELETE FROM answers WHERE id = 'a/1'")
        synced = await sources.sync()
        assert (synced.added, synced.changed, synced.deleted) == (0, 1, 1)
        assert await sources.documents() == {"b": "Three."}
        await database.execute("DROP TABLE answers")
        failing = await sources.sync()
        assert failing.status == FAILING
        assert 'relation "answers" does not exist' in failing.error
        assert await sources.documents() == {"b": "Three."}
