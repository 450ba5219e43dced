"""Selection of the files that `raglan ingest` sends, and their names."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from raglan.errors import InvalidInput
from raglan.identifiers import check_document_id

from raglan_cli.failure import UsageFailure
from raglan_cli.ignoring import Choice
from raglan_cli.walk import Identity, WalkEntry, cannot_read, walk

_DOCUMENTS: Final = (
    "txt text log rst rest adoc asciidoc asc org md markdown mdx html htm xhtml pdf docx docm dotx "
    "pptx pptm ppsx xlsx xlsm xlsb xls ods odt ott epub rtf eml ipynb srt vtt json jsonl ndjson "
    "csv tsv"
)
_SOURCE_CODE: Final = (
    "bash bat c cc cfg clj cmake conf cpp cs css cxx dart erl ex exs fish fs go gql gradle graphql "
    "groovy h hcl hpp hs ini java jl js jsx kt kts less lua m mjs ml nix php pl pm properties "
    "proto ps1 py pyi r rb rs sass scala scss sh sol sql svelte swift tex tf toml ts tsx vb vue "
    "xml yaml yml zig zsh"
)
KNOWN_SUFFIXES: Final = frozenset(f".{s}" for s in f"{_DOCUMENTS} {_SOURCE_CODE}".split())
"""Suffixes that the ingester parses, except .env: secrets are sent only when named."""

KNOWN_NAMES: Final = frozenset(
    {"dockerfile", "makefile", "readme", "license", "changelog", "justfile"}
)
"""Text files that go without a suffix."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file to send."""

    path: Path
    name: str
    """Document id in the collection: the name of the folder that was given and the path below
    it, whatever the current folder is."""
    size: int
    identity: Identity
    """What it was when it was selected."""


@dataclass(slots=True)
class Selection:
    """Files selected by the paths on the command line."""

    files: list[SourceFile] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    """(name, reason) of what is left out on purpose."""
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    """(name, reason) of files and folders that cannot be read."""
    folders: dict[str, Path] = field(default_factory=dict)
    """Name, ending in a slash -> folder, of those that were given."""


def select(paths: Iterable[Path], choice: Choice = Choice()) -> Selection:  # noqa: B008 - frozen
    """The files under `paths`. A file that is named itself is always sent.

    Raises:
        UsageFailure: a path does not exist, or two files would have one name.
    """
    selection = Selection()
    seen: dict[str, Path] = {}
    for given in paths:
        is_folder = _is_folder(given)
        top = _top(given, is_folder=is_folder)
        if is_folder:
            selection.folders[f"{_absolute(given).relative_to(top).as_posix()}/"] = given
        for found in _found(given, choice, is_folder=is_folder):
            name = _name(found.path.relative_to(top))
            if found.failed or (problem := _problem_of_name(name)):
                selection.unreadable.append((printable(name), found.failed or problem))
            elif found.skipped:
                selection.skipped.append((name, found.skipped))
            elif name not in seen:
                seen[name] = found.path
                selection.files.append(SourceFile(found.path, name, found.size, found.identity))
            elif not seen[name].samefile(found.path):
                raise UsageFailure(
                    f"{seen[name]} and {found.path} would both be called {name}; "
                    "give a folder above both instead."
                )
    return selection


def printable(name: str) -> str:
    """`name` with the bytes that are not UTF-8, and control characters, as escapes."""
    readable = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(
        character if unicodedata.category(character) != "Cc" else ascii(character)[1:-1]
        for character in readable
    )


def open_file(path: Path) -> IO[bytes]:
    """Open `path` for reading, without waiting where it is a pipe by now."""
    return open(path, "rb", opener=_open_at_once)


def identity_of(status: os.stat_result) -> Identity:
    """Return what stays the same as long as a path means the same file."""
    return status.st_dev, status.st_ino, stat.S_IFMT(status.st_mode)


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def is_gone(path: Path) -> bool:
    """Return whether nothing has this path any more. What cannot be looked at is not gone."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def _found(given: Path, choice: Choice, *, is_folder: bool) -> Iterator[WalkEntry]:
    path = _absolute(given)
    if is_folder:
        for found in walk(path, choice):
            is_unknown = not (found.skipped or found.failed or _is_known(found.path))
            yield WalkEntry(found.path, skipped="unknown type") if is_unknown else _checked(found)
    else:
        yield _checked(WalkEntry(path))


def _checked(found: WalkEntry) -> WalkEntry:
    """With the reason why it cannot be read, if it cannot."""
    if found.skipped or found.failed:
        return found
    try:
        with open_file(found.path) as file:
            status = os.fstat(file.fileno())
            return WalkEntry(found.path, status.st_size, identity_of(status))
    except OSError as error:
        return WalkEntry(found.path, failed=cannot_read(error))


def _is_folder(given: Path) -> bool:
    try:
        if given.is_dir():
            return True
        if given.is_file():
            return False
        raise UsageFailure(
            f"{given} is neither a file nor a folder."
            if given.exists()
            else f"There is no file or folder {given}."
        )
    except OSError as error:
        raise UsageFailure(f"{given} cannot be read: {error.strerror}.") from None


def _name(path: Path) -> str:
    """Return the mesh's name of a file: a form escapes quotes, a backslash separates folders."""
    return path.as_posix().replace('"', "%22").replace("\\", "/")


def _problem_of_name(name: str) -> str:
    """Explain why `name` cannot be a document id; empty if it can."""
    if any(unicodedata.category(character) == "Cs" for character in name):
        return "Its name is not UTF-8; rename the file."
    try:
        check_document_id(name)
    except InvalidInput as error:
        return f"{error} Rename the file."
    return ""


def _is_known(path: Path) -> bool:
    return path.suffix.lower() in KNOWN_SUFFIXES or path.name.lower() in KNOWN_NAMES


def _top(given: Path, *, is_folder: bool) -> Path:
    """The folder that names are relative to: the one above the given or the file's folder.

    So a folder gives the same names from wherever it is ingested, and files of the same name in two
    projects stay apart.
    """
    absolute = _absolute(given)
    return absolute.parent if is_folder else absolute.parent.parent


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow links
