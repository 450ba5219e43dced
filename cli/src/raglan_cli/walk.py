"""Search a folder for files; everything that is not sent is reported with the reason."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from raglan_cli.ignoring import Choice, GitIgnores, Patterns

SKIPPED_FOLDERS: Final = frozenset({"node_modules", "__pycache__", "venv", "site-packages"})
"""Folders of installed packages and caches. Hidden ones (.git, .venv) are skipped as well."""


Identity = tuple[int, int, int]
"""Device, inode and kind of a file. A file that is gone leaves its inode to the next one."""


@dataclass(frozen=True, slots=True)
class WalkEntry:
    """A path below the folder: a file to send, or one that is not sent for a reason."""

    path: Path
    size: int = 0
    identity: Identity = (0, 0, 0)
    skipped: str = ""
    """Reason for skipping it; not an error."""
    failed: str = ""
    """Reason for which it cannot be read."""


def walk(folder: Path, choice: Choice) -> Iterator[WalkEntry]:
    """Every file below `folder`, and what is left out.

    Args:
        folder: an absolute path. Hidden files and folders in it are not looked at.
        choice: rules of inclusion and exclusion.
    """
    return _Walk(folder, choice).run()


class _Walk:
    def __init__(self, folder: Path, choice: Choice) -> None:
        self._folder = folder
        self._real = os.path.realpath(folder)
        self._patterns = Patterns(choice)
        self._uses_gitignore = choice.gitignore
        self._gitignores = GitIgnores(folder) if choice.gitignore else None
        self._errors: list[OSError] = []

    def run(self) -> Iterator[WalkEntry]:
        for root, folders, names in os.walk(self._folder, onerror=self._errors.append):
            yield from self._unreadable()
            here = Path(root)
            try:
                if self._gitignores is not None:
                    self._gitignores.read(here)
            except OSError as error:
                yield WalkEntry(here / ".gitignore", failed=cannot_read(error))
                folders.clear()
                continue
            visible = sorted(name for name in folders if not name.startswith("."))
            folders.clear()
            for name in visible:
                if reason := self._reason_of_folder(here / name):
                    yield WalkEntry(here / name, skipped=reason)
                else:
                    folders.append(name)
            for name in sorted(name for name in names if not name.startswith(".")):
                yield self._file(here / name)
        yield from self._unreadable()

    def _unreadable(self) -> Iterator[WalkEntry]:
        """Folders that could not be listed since the last call."""
        while self._errors:
            error = self._errors.pop()
            yield WalkEntry(Path(str(error.filename)), failed=cannot_read(error))

    def _reason_of_folder(self, path: Path) -> str:
        if path.name in SKIPPED_FOLDERS:
            return "installed packages or caches"
        if path.is_symlink():
            return self._reason_of_link(path) or "a link to a folder that is searched itself"
        return self._reason(path, is_folder=True)

    def _file(self, path: Path) -> WalkEntry:
        if path.is_symlink() and (reason := self._reason_of_link(path)):
            return WalkEntry(path, skipped=reason)
        if reason := self._reason(path, is_folder=False):
            return WalkEntry(path, skipped=reason)
        try:
            status = path.stat()
        except OSError as error:
            return WalkEntry(path, failed=cannot_read(error))
        if not stat.S_ISREG(status.st_mode):
            return WalkEntry(path, skipped="no regular file")
        return WalkEntry(path, status.st_size)

    def _reason(self, path: Path, *, is_folder: bool) -> str:
        if self._gitignores and self._gitignores.ignores(path, is_folder=is_folder):
            return "left out by .gitignore"
        relative = path.relative_to(self._folder).as_posix()
        return self._patterns.reason(f"{relative}/" if is_folder else relative)

    def _reason_of_link(self, path: Path) -> str:
        """A link must not bring in what lies outside the folder, such as a password file."""
        target = os.path.realpath(path)
        if os.path.commonpath([self._real, target]) != self._real:
            return "a link that leads out of the folder"
        return "" if Path(target).exists() else "a link to nothing"


def cannot_read(error: OSError) -> str:
    """The sentence for a file or folder."""
    return f"It cannot be read: {error.strerror or error}."
