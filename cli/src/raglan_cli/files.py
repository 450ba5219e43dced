"""Which files `raglan ingest` sends, under which names, and in which requests."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from raglan_cli.failure import UsageFailure

MAX_REQUEST_BYTES: Final = 32 * 1024 * 1024
MAX_REQUEST_FILES: Final = 500

SKIPPED_FOLDERS: Final = frozenset({"node_modules", "__pycache__", "venv", "site-packages"})
"""Folders of other people's files. Hidden ones (.git, .venv) are skipped as well."""

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
"""What the ingester parses, except .env: secrets are sent only when named."""

KNOWN_NAMES: Final = frozenset(
    {"dockerfile", "makefile", "readme", "license", "changelog", "justfile"}
)
"""Text files that go without a suffix."""


_BAD_NAME: Final = "Its name is not printable UTF-8; rename the file."


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file to send."""

    path: Path
    name: str
    """Document id in the collection: the name of the folder that was given and the path below
    it, whatever the current folder is."""
    size: int


@dataclass(slots=True)
class Selection:
    """What the paths on the command line stand for."""

    files: list[SourceFile] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    """Names of files in folders whose suffix no parser knows."""
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    """(name, reason) of files that cannot be read."""
    folders: list[str] = field(default_factory=list)
    """Names of the folders that were given, each ending in a slash."""


def select(paths: Iterable[Path]) -> Selection:
    """The files under `paths`. A file that is named itself is always sent.

    Raises:
        UsageFailure: a path does not exist, or two files would have one name.
    """
    selection = Selection()
    seen: dict[str, Path] = {}
    for given in paths:
        if not given.exists():
            raise UsageFailure(f"There is no file or folder {given}.")
        found = [given] if given.is_file() else _below(given)
        top = _top(given)
        if not given.is_file():
            selection.folders.append(f"{_absolute(given).relative_to(top).as_posix()}/")
        for path in found:
            name = _absolute(path).relative_to(top).as_posix()
            if not name.isprintable():
                selection.unreadable.append((ascii(name)[1:-1], _BAD_NAME))
                continue
            if not given.is_file() and not _is_known(path):
                selection.skipped.append(name)
            elif name not in seen:
                seen[name] = path
                _add(selection, path, name)
            elif seen[name].resolve() != path.resolve():
                raise UsageFailure(
                    f"{seen[name]} and {path} would both be called {name}; "
                    "give a folder above both instead."
                )
    return selection


def batches(
    files: Sequence[SourceFile],
    *,
    max_bytes: int = MAX_REQUEST_BYTES,
    max_files: int = MAX_REQUEST_FILES,
) -> Iterator[list[SourceFile]]:
    """`files` in their order, in requests of bounded size; a file over the limit goes alone."""
    batch: list[SourceFile] = []
    size = 0
    for file in files:
        if batch and (size + file.size > max_bytes or len(batch) == max_files):
            yield batch
            batch, size = [], 0
        batch.append(file)
        size += file.size
    if batch:
        yield batch


class LazyFile(io.RawIOBase):
    """A file that httpx can stream: open only while it is read, `on_read` told of every byte."""

    def __init__(self, file: SourceFile, on_read: Callable[[int], object]) -> None:
        super().__init__()
        self._file = file
        self._on_read = on_read
        self._open: IO[bytes] | None = None
        self._at_end = False

    def tell(self) -> int:
        """Where httpx begins: 0."""
        return self._open.tell() if self._open else 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """To the start again, or (without opening it) to the end, which tells the size."""
        if whence == os.SEEK_END:
            return self._file.size
        self._release()
        self._at_end = False
        return offset

    def read(self, size: int = -1) -> bytes:
        """The next bytes; the file is closed after the last."""
        if self._at_end:
            return b""
        if self._open is None:
            self._open = self._file.path.open("rb")
        data = self._open.read(size)
        self._on_read(len(data))
        if not data:
            self._at_end = True
            self._release()
        return data

    def close(self) -> None:
        """Also in the middle of reading."""
        self._release()
        super().close()

    def _release(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None


def _below(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(
            f for f in folders if not f.startswith(".") and f not in SKIPPED_FOLDERS
        )
        for name in sorted(names):
            path = Path(root) / name
            if not name.startswith(".") and path.is_file():
                yield path


def _is_known(path: Path) -> bool:
    return path.suffix.lower() in KNOWN_SUFFIXES or path.name.lower() in KNOWN_NAMES


def _top(given: Path) -> Path:
    """The folder that names are relative to: the one above the given or the file's folder.

    So a folder gives the same names from wherever it is ingested, and files of the same name in two
    projects stay apart.
    """
    absolute = _absolute(given)
    return absolute.parent.parent if given.is_file() else absolute.parent


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow links


def _add(selection: Selection, path: Path, name: str) -> None:
    try:
        size = path.stat().st_size
        with path.open("rb"):
            pass
    except OSError as error:
        selection.unreadable.append((name, f"It cannot be read: {error.strerror}."))
    else:
        selection.files.append(SourceFile(path, name, size))
