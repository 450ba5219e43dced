import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from raglan_cli import files
from raglan_cli.failure import UsageFailure
from raglan_cli.ignoring import Choice
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


def names_of(*paths, **choice):
    return [file.name for file in files.select(paths, Choice(**choice)).files]


def test_a_folder_gives_its_known_files_by_their_path_from_here(here):
    write(here, "docs/b.md", "docs/a/c.PDF", "docs/Makefile")
    assert names_of(here / "docs") == ["docs/Makefile", "docs/b.md", "docs/a/c.PDF"]


def test_what_a_folder_gives_is_what_the_ingester_parses():
    parsed = {f".{suffix}" for suffix in parsers.BY_SUFFIX}
    assert parsed - {".env"} == files.KNOWN_SUFFIXES


def test_hidden_files_and_other_peoples_folders_are_not_looked_at(here):
    write(here, "docs/.git/x.md", "docs/.x.md", "docs/node_modules/x.md", "docs/a.md")
    assert names_of(here / "docs") == ["docs/a.md"]


def test_an_unknown_type_is_skipped_unless_named(here):
    """A file of unknown type is skipped by name in a folder and sent when named."""
    write(here, "docs/a.bin")
    assert files.select([here / "docs"]).skipped == [("docs/a.bin", "unknown type")]
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
    (here / "docs" / "red\x1b[31m.md").write_text("x")
    found = files.select([here / "docs"])
    assert [file.name for file in found.files] == ["docs/a.md"]
    assert found.unreadable == [
        ("docs/caf\\xe9.md", "Its name is not UTF-8; rename the file."),
        (
            "docs/red\\x1b[31m.md",
            "The document id 'docs/red\\x1b[31m.md' holds a control character. Rename the file.",
        ),
    ]


def test_names_with_characters_that_do_not_print_are_names(here):
    """macOS puts a narrow space into the names of screenshots; emoji hold joiners."""
    names = ["docs/9.41\u202fAM.md", "docs/\U0001f468\u200d\U0001f4bb.md"]
    write(here, *names)
    assert names_of(here / "docs") == names


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


def test_a_folder_that_may_not_be_read_is_told_with_its_reason(monkeypatch):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, "docs/a.md", "docs/shut/b.md")
        (folder / "docs/shut").chmod(0)
        folder.chmod(0o755)
        with not_as_root():
            found = files.select([folder / "docs"])
        (folder / "docs/shut").chmod(0o755)
    assert [file.name for file in found.files] == ["docs/a.md"]
    assert found.unreadable == [("docs/shut", "It cannot be read: Permission denied.")]


def test_links_that_lead_out_of_the_folder_are_skipped_with_a_word(here):
    write(here, "docs/a.md", "secret.txt", "other/b.md")
    (here / "docs/pw.txt").symlink_to(here / "secret.txt")
    (here / "docs/far").symlink_to(here / "other")
    (here / "docs/lost.txt").symlink_to("nowhere")
    (here / "docs/same.md").symlink_to("a.md")
    (here / "docs/loop").symlink_to(here / "docs")
    found = files.select([here / "docs"])
    assert [file.name for file in found.files] == ["docs/a.md", "docs/same.md"]
    assert found.skipped == [
        ("docs/far", "a link that leads out of the folder"),
        ("docs/loop", "a link to a folder that is searched itself"),
        ("docs/lost.txt", "a link to nothing"),
        ("docs/pw.txt", "a link that leads out of the folder"),
    ]
    assert found.unreadable == []


def test_a_link_that_is_named_itself_is_followed(here):
    write(here, "real/a.md")
    (here / "docs").symlink_to("real")
    assert names_of(here / "docs") == ["docs/a.md"]


def test_what_is_no_regular_file_is_not_opened(here):
    write(here, "docs/a.md")
    os.mkfifo(here / "docs/pipe.md")
    assert files.select([here / "docs"]).skipped == [("docs/pipe.md", "no regular file")]
    with pytest.raises(UsageFailure, match="neither a file nor a folder"):
        files.select([here / "docs/pipe.md"])


def test_what_gitignore_names_is_left_out_as_git_does(here):
    write(
        here, "docs/a.md", "docs/build/b.md", "docs/x.log", "docs/deep/keep.log", "docs/deep/y.md"
    )
    (here / "docs/.gitignore").write_text("build/\n*.log\n!\n/y.md\n")
    (here / "docs/deep/.gitignore").write_text("!keep.log\n")
    assert names_of(here / "docs") == ["docs/a.md", "docs/deep/keep.log", "docs/deep/y.md"]
    assert files.select([here / "docs"]).skipped == [
        ("docs/build", "left out by .gitignore"),
        ("docs/x.log", "left out by .gitignore"),
    ]
    assert "docs/build/b.md" in names_of(here / "docs", gitignore=False)


def test_gitignore_files_above_count_up_to_the_root_of_the_repository(here):
    write(here, "repo/.git/x", "repo/docs/a.md", "repo/docs/draft.md", "repo/docs/build/b.md")
    (here / ".gitignore").write_text("a.md")
    (here / "repo/.gitignore").write_text("draft.md\ndocs/build/\n")
    assert names_of(here / "repo/docs") == ["docs/a.md"]
    assert names_of(here / "repo/docs/build") == ["build/b.md"]


def test_include_and_exclude_do_not_apply_to_named_files(here):
    """Include and exclude choose below the folder and not files that are named."""
    write(here, "docs/a.md", "docs/b.txt", "docs/drafts/c.md", "docs/deep/d.md")
    assert names_of(here / "docs", include=["*.md"], exclude=["drafts/"]) == [
        "docs/a.md",
        "docs/deep/d.md",
    ]
    assert names_of(here / "docs", include=["/deep/**"]) == ["docs/deep/d.md"]
    assert names_of(here / "docs/b.txt", include=["*.md"]) == ["docs/b.txt"]
    with pytest.raises(UsageFailure, match="--exclude !: this is no pattern"):
        names_of(here / "docs", exclude=["!"])
