"""A git repository as a source: real repositories, and the reader's own process."""

from __future__ import annotations

import asyncio
import http.server
import os
import random
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from dulwich.pack import DELTA_TYPES
from dulwich.repo import Repo
from raglan.errors import PayloadTooLarge
from raglan_ingester.sources.config import GitSettings
from raglan_ingester.sources.git_process import blob_size
from raglan_ingester.sources.reader import Skipped, SkippedDocumentError, SourceUnavailable
from raglan_ingester.sources.readers.git import GitReader

AUTHOR = {
    key: ["Test", "<test@example.com>"][at]
    for key, at in (("GIT_AUTHOR_NAME", 0), ("GIT_COMMITTER_NAME", 0))
} | {"GIT_AUTHOR_EMAIL": "test@example.com", "GIT_COMMITTER_EMAIL": "test@example.com"}


FILES = 50_000


class Repository:
    """A repository made by the git command."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.git("init", "--quiet", "--initial-branch", "main", str(folder), cwd=folder.parent)

    def git(self, *arguments: str, cwd: Path | None = None, given: str = "") -> str:
        done = subprocess.run(
            ["git", *arguments],
            cwd=cwd or self.folder,
            env=os.environ | AUTHOR | {"GIT_CONFIG_GLOBAL": "/dev/null"},
            capture_output=True,
            input=given,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    def import_empty(self, paths: Sequence[str]) -> None:
        """Commit empty files, without writing them first."""
        changes = "".join(f"M 100644 :1 {path}\n" for path in paths)
        head = "committer Test <test@example.com> 0 +0000\ndata 8\nA change"
        stream = f"blob\nmark :1\ndata 0\n\ncommit refs/heads/main\n{head}\n{changes}\n"
        self.git("fast-import", "--quiet", given=stream)

    def commit(self, files: dict[str, str]) -> str:
        for path, text in files.items():
            file = self.folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "A change")
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repository")


async def read(
    repository_url: str,
    folder: Path,
    cursor: str = "",
    max_bytes: int = 100_000,
    **changes: Any,
) -> Any:
    """List and read; (texts by path, listing, skipped)."""
    settings = GitSettings(
        name="code", kind="git", collection="default", url=repository_url, **changes
    )
    reader = GitReader(settings, "", folder, max_bytes)
    skipped = Skipped()
    try:
        listing = await reader.list_entries(cursor, skipped)
        texts = {}
        for entry in listing.entries if listing else ():
            try:
                content = await reader.read(entry, "")
            except SkippedDocumentError as error:
                skipped.add(error.message)
                continue
            assert content is not None
            texts[entry.key] = content.data.decode()
        return texts, listing, skipped
    finally:
        await reader.close()


async def test_the_files_of_a_commit_are_read(repository: Repository, tmp_path: Path) -> None:
    commit = repository.commit({"a.md": "One.", "src/b.py": "x = 1\n", "c.bin": "no"})
    texts, listing, _ = await read(str(repository.folder), tmp_path / "copy.git")
    assert texts == {"a.md": "One.", "src/b.py": "x = 1\n"}
    assert listing.cursor == commit


async def test_the_same_commit_is_not_listed_again(repository: Repository, tmp_path: Path) -> None:
    commit = repository.commit({"a.md": "One."})
    _, listing, _ = await read(str(repository.folder), tmp_path / "copy.git", commit)
    assert listing is None


async def test_a_version_is_the_content_and_not_the_commit(
    repository: Repository, tmp_path: Path
) -> None:
    repository.commit({"a.md": "One.", "b.md": "Two."})
    _, before, _ = await read(str(repository.folder), tmp_path / "copy.git")
    repository.commit({"b.md": "Other."})
    texts, after, _ = await read(str(repository.folder), tmp_path / "copy.git")
    versions = [{entry.key: entry.version for entry in each.entries} for each in (before, after)]
    assert versions[0]["a.md"] == versions[1]["a.md"]
    assert versions[0]["b.md"] != versions[1]["b.md"]
    assert texts["b.md"] == "Other."


async def test_branches_and_tags_are_read(repository: Repository, tmp_path: Path) -> None:
    repository.commit({"a.md": "One."})
    repository.git("tag", "--annotate", "v1", "--message", "First")
    repository.git("checkout", "--quiet", "-b", "next")
    repository.commit({"a.md": "Two."})
    repository.git("checkout", "--quiet", "main")
    url = str(repository.folder)
    found = [
        (await read(url, tmp_path / f"{ref}.git", ref=ref))[0]["a.md"] for ref in ("v1", "next")
    ]
    assert found == ["One.", "Two."]
    with pytest.raises(SourceUnavailable, match="no branch or tag 'none'"):
        await read(url, tmp_path / "none.git", ref="none")


async def test_links_and_lfs_pointers_are_left_out(repository: Repository, tmp_path: Path) -> None:
    (repository.folder / "link.md").symlink_to("/etc/hostname")
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    repository.commit({"a.md": "One.", "big.md": pointer})
    texts, _, skipped = await read(str(repository.folder), tmp_path / "copy.git")
    assert texts == {"a.md": "One."}
    assert skipped.reasons == ["'big.md' is kept by git LFS, which is not read."]


async def test_a_repository_over_the_limit_is_refused(
    repository: Repository, tmp_path: Path
) -> None:
    repository.commit({f"{n}.md": f"{n}" for n in range(5)})
    with pytest.raises(PayloadTooLarge, match="holds more than 4 documents"):
        await read(str(repository.folder), tmp_path / "copy.git", max_documents=4)


async def test_a_repository_that_vanished_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable):
        await read(str(tmp_path / "nothing"), tmp_path / "copy.git")


async def test_a_killed_process_is_an_error_and_the_next_sync_goes_on(
    repository: Repository, tmp_path: Path
) -> None:
    repository.commit({"a.md": "One."})
    settings = GitSettings(
        name="code", kind="git", collection="default", url=str(repository.folder)
    )
    reader = GitReader(settings, "", tmp_path / "copy.git", 100_000)
    try:
        listing = await reader.list_entries("", Skipped())
        assert listing is not None
        assert reader._process is not None
        reader._process.kill()
        await reader._process.wait()
        with pytest.raises(SkippedDocumentError, match="ended unexpectedly"):
            await reader.read(listing.entries[0], "")
        content = await reader.read(listing.entries[0], "")
        assert content is not None
        assert content.data == b"One."
    finally:
        await reader.close()


@pytest.fixture
def served(repository: Repository) -> Iterator[str]:
    """The repository over HTTP, by git's own program for it."""
    backend = subprocess.run(
        ["git", "--exec-path"], capture_output=True, text=True, check=True
    ).stdout.strip()

    class Handler(http.server.CGIHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer()

        def do_POST(self) -> None:
            self.answer()

        def answer(self) -> None:
            path, _, query = self.path.partition("?")
            length = int(self.headers.get("content-length") or 0)
            environment = os.environ | {
                "GIT_PROJECT_ROOT": str(repository.folder.parent),
                "GIT_HTTP_EXPORT_ALL": "1",
                "GIT_CONFIG_COUNT": "1",
                "GIT_CONFIG_KEY_0": "safe.directory",
                "GIT_CONFIG_VALUE_0": "*",
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "REQUEST_METHOD": self.command,
                "CONTENT_TYPE": self.headers.get("content-type", ""),
                "CONTENT_LENGTH": str(length),
                "GIT_PROTOCOL": self.headers.get("git-protocol", ""),
                "HTTP_CONTENT_ENCODING": self.headers.get("content-encoding", ""),
            }
            done = subprocess.run(
                [f"{backend}/git-http-backend"],
                input=self.rfile.read(length),
                env=environment,
                capture_output=True,
                check=False,
            )
            head, _, body = done.stdout.partition(b"\r\n\r\n")
            lines = [line.decode().partition(": ") for line in head.split(b"\r\n")]
            status = next((v for k, _, v in lines if k == "Status"), "200")
            self.send_response(int(status[:3]))
            for name, _, value in lines:
                if name != "Status":
                    self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/repository/.git"
    server.shutdown()
    thread.join()
    server.server_close()


async def test_a_repository_is_fetched_over_http_without_its_history(
    repository: Repository, served: str, tmp_path: Path
) -> None:
    for text in ("One.", "Two.", "Three."):
        repository.commit({"a.md": text})
    texts, _, _ = await read(served, tmp_path / "copy.git")
    assert texts == {"a.md": "Three."}
    known = await asyncio.to_thread(
        repository.git, "rev-list", "--all", "--objects", "--max-count", "100"
    )
    assert len(known.splitlines()) == 9
    packs = list((tmp_path / "copy.git/objects/pack").glob("*.pack"))
    assert len(packs) == 1
    shown = await asyncio.to_thread(
        repository.git, "verify-pack", "-s", str(packs[0].with_suffix(".idx"))
    )
    assert shown.startswith("non delta: 3 objects")
    repository.commit({"a.md": "Four."})
    assert (await read(served, tmp_path / "copy.git"))[0] == {"a.md": "Four."}


async def test_a_server_that_answers_500_is_an_error(tmp_path: Path) -> None:
    class Broken(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(500)

        def log_message(self, *_: Any) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Broken)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with pytest.raises(SourceUnavailable, match="cannot be fetched"):
            await read(f"http://127.0.0.1:{server.server_port}/x.git", tmp_path / "copy.git")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def packed(folder: Path) -> tuple[set[int], list[tuple[int, int]]]:
    """Kinds of the objects in the only pack; size of each by its first bytes, and loaded."""
    with Repo(str(folder)) as copy:
        (pack,) = copy.object_store.packs
        offsets = [offset for _, offset, _ in pack.index.iterentries()]
        kinds = {pack.data.get_unpacked_object_at(offset).pack_type_num for offset in offsets}
        ids = list(copy.object_store)
        return kinds, [(blob_size(copy, id_), copy[id_].raw_length()) for id_ in ids]


async def test_a_large_file_is_left_out_unread(repository: Repository, tmp_path: Path) -> None:
    """Plain, and as a delta, whose own size is small."""
    large = "".join(random.Random(7).choices("abcdefgh \n", k=200_000))
    files = {"a.md": "One.", "large.md": large, "larger.md": f"{large}More."}
    await asyncio.to_thread(repository.commit, files)
    await asyncio.to_thread(repository.git, "gc", "--quiet")
    url = str(repository.folder)
    texts, _, skipped = await read(url, tmp_path / "copy.git", max_bytes=200_000)
    assert texts.keys() == {"a.md", "large.md"}
    assert skipped.reasons == [
        f"'larger.md': {url}: It has 200,005 bytes; the limit is 200,000 "
        "(RAGLAN_INGESTER_MAX_DOCUMENT_BYTES)."
    ]
    texts, _, skipped = await read(url, tmp_path / "copy.git", max_bytes=199_999)
    assert (texts, skipped.count) == ({"a.md": "One."}, 2)
    kinds, sizes = await asyncio.to_thread(packed, tmp_path / "copy.git")
    assert kinds & set(DELTA_TYPES)
    assert all(first == whole for first, whole in sizes)


@pytest.mark.loop_stall_s(0.2)
async def test_a_large_repository_is_listed_beside_other_work(
    repository: Repository, tmp_path: Path
) -> None:
    """`no_blocked_loop` fails it where its files are chosen on the loop."""
    names = [f"{n // 1000}/part/{n}.md" for n in range(FILES)]
    await asyncio.to_thread(repository.import_empty, names)
    settings = GitSettings(
        name="code",
        kind="git",
        collection="default",
        url=str(repository.folder),
        exclude=tuple(f"drafts-{n}/*.md" for n in range(20)),
    )
    reader = GitReader(settings, "", tmp_path / "copy.git", 100_000)
    try:
        listing = await reader.list_entries("", Skipped())
        assert listing is not None
        assert len(listing.entries) == FILES
    finally:
        await reader.close()
