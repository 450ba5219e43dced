import io
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from raglan_cli import files
from raglan_cli.failure import UsageFailure
from raglan_cli.files import LazyFile, SourceFile
from raglan_ingester import parsers


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def names_of(*paths):
    return [file.name for file in files.select(paths).files]


def test_a_folder_gives_its_known_files_by_their_path_from_here(here):
    write(here, "docs/b.md", "docs/a/c.PDF", "docs/Makefile")
    assert names_of(here / "docs") == ["docs/Makefile", "docs/b.md", "docs/a/c.PDF"]


def test_what_a_folder_gives_is_what_the_ingester_parses():
    parsed = {f".{suffix}" for suffix in parsers.BY_SUFFIX}
    assert parsed - {".env"} == files.KNOWN_SUFFIXES


def test_hidden_files_and_other_peoples_folders_are_not_looked_at(here):
    write(here, "docs/.git/x.md", "docs/.x.md", "docs/node_modules/x.md", "docs/a.md")
    assert names_of(here / "docs") == ["docs/a.md"]


def test_a_file_of_unknown_type_is_skipped_by_name_in_a_folder_and_sent_when_named(here):
    write(here, "docs/a.bin")
    assert files.select([here / "docs"]).skipped == ["docs/a.bin"]
    assert names_of(here / "docs" / "a.bin") == ["docs/a.bin"]


def test_a_file_named_twice_is_sent_once(here):
    write(here, "docs/a.md")
    assert names_of(here / "docs", here / "docs" / "a.md") == ["docs/a.md"]


def test_what_lies_elsewhere_is_called_from_the_folder_that_was_named(tmp_path, monkeypatch):
    write(tmp_path, "docs/deep/a.md", "work/x")
    monkeypatch.chdir(tmp_path / "work")
    assert names_of(tmp_path / "docs") == ["docs/deep/a.md"]


def test_folder_gives_the_same_names_from_wherever_it_is_named(tmp_path, monkeypatch):
    write(tmp_path, "project/a.md")
    names = set()
    for here, named in (("", "project"), ("project", "."), ("project", "../project")):
        monkeypatch.chdir(tmp_path / here)
        names.update(names_of(Path(named)))
    assert names == {"project/a.md"}


def test_files_of_one_name_in_two_projects_stay_apart(tmp_path, monkeypatch):
    write(tmp_path, "one/README.md", "two/README.md")
    names = []
    for folder in ("one", "two"):
        monkeypatch.chdir(tmp_path / folder)
        names += names_of(Path("README.md"))
    assert names == ["one/README.md", "two/README.md"]


def test_file_whose_name_is_no_utf8_fails_alone(here):
    write(here, "docs/a.md")
    (here / "docs" / os.fsdecode(b"caf\xe9.md")).write_text("x")
    found = files.select([here / "docs"])
    assert [file.name for file in found.files] == ["docs/a.md"]
    assert found.unreadable == [
        ("docs/caf\\udce9.md", "Its name is not printable UTF-8; rename the file.")
    ]


def test_two_files_that_would_share_a_name_are_refused(tmp_path, monkeypatch):
    write(tmp_path, "1/docs/a.md", "2/docs/a.md", "work/x")
    monkeypatch.chdir(tmp_path / "work")
    with pytest.raises(UsageFailure, match=r"would both be called docs/a\.md"):
        files.select([tmp_path / "1" / "docs", tmp_path / "2" / "docs"])


def test_a_path_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UsageFailure, match="There is no file or folder"):
        files.select([tmp_path / "nowhere"])


@contextmanager
def not_as_root():
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_a_file_that_may_not_be_read_is_told_with_its_reason(monkeypatch):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, "docs/a.md")
        (folder / "docs/a.md").chmod(0)
        folder.chmod(0o755)
        monkeypatch.chdir(folder)
        with not_as_root():
            found = files.select([folder / "docs"])
        monkeypatch.undo()
    assert found.unreadable == [("docs/a.md", "It cannot be read: Permission denied.")]


@given(st.lists(st.integers(0, 50), max_size=60), st.integers(1, 60), st.integers(1, 12))
def test_requests_are_bounded_and_keep_every_file_in_order(sizes, max_bytes, max_files):
    sources = [SourceFile(None, str(i), size) for i, size in enumerate(sizes)]
    batches = list(files.batches(sources, max_bytes=max_bytes, max_files=max_files))
    assert [source for batch in batches for source in batch] == sources
    for batch in batches:
        assert 1 <= len(batch) <= max_files
        assert len(batch) == 1 or sum(source.size for source in batch) <= max_bytes


def test_a_lazy_file_is_open_only_between_its_first_and_last_byte(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    read = []
    lazy = LazyFile(SourceFile(path, "a", 3), read.append)
    assert lazy.seek(0, io.SEEK_END) == 3
    assert lazy._open is None
    assert lazy.read(2) == b"ab"
    assert lazy._open is not None
    assert (lazy.read(2), lazy.read(2), lazy.read(2)) == (b"c", b"", b"")
    assert lazy._open is None
    lazy.seek(0)
    assert lazy.read(3) == b"abc"
    lazy.close()
    assert sum(read) == 6
