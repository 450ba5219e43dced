"""Paths that patterns leave out: `.gitignore` files, `--include` and `--exclude`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pathspec import GitIgnoreSpec

from raglan_cli.failure import UsageFailure


@dataclass(frozen=True, slots=True)
class Choice:
    """Choice of files in the folders that the command line names."""

    include: Sequence[str] = ()
    """Patterns as in .gitignore; with any, only files that match one are sent."""
    exclude: Sequence[str] = ()
    """Patterns as in .gitignore, for files and folders."""
    gitignore: bool = True
    """True if `.gitignore` files count."""


class Patterns:
    """`--include` and `--exclude`, relative to the folder that is searched."""

    def __init__(self, choice: Choice) -> None:
        self._include = _from_options("--include", choice.include)
        self._exclude = _from_options("--exclude", choice.exclude)

    def reason(self, path: str) -> str:
        """Explain why `path` is ignored; empty if it is not. A folder ends in a slash."""
        if self._exclude.match_file(path):
            return "left out by --exclude"
        if self._include and not path.endswith("/") and not self._include.match_file(path):
            return "not matched by --include"
        return ""


def _from_options(name: str, patterns: Sequence[str]) -> GitIgnoreSpec:
    try:
        return GitIgnoreSpec.from_lines(patterns)
    except ValueError:
        listed = " ".join(patterns)
        raise UsageFailure(f"{name} {listed}: this is no pattern as in .gitignore.") from None


@dataclass(slots=True)
class GitIgnores:
    """The `.gitignore` files that apply to a folder.

    Its own, those below it, and those above it up to the root of its repository.
    """

    folder: Path
    _specs: dict[Path, GitIgnoreSpec] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Read those above; they do not hold if they leave out the folder itself."""
        for parent in _above_in_repository(self.folder):
            try:
                self.read(parent)
            except OSError as error:
                raise UsageFailure(
                    f"{parent / '.gitignore'} cannot be read: {error.strerror}. To go on without "
                    "such files, add --no-gitignore."
                ) from None
        if self.ignores(self.folder, is_folder=True):
            self._specs.clear()

    def read(self, folder: Path) -> None:
        """Let the `.gitignore` of `folder`, if there is one, count.

        Raises:
            OSError: it cannot be read.
        """
        path = folder / ".gitignore"
        if path.is_file():
            lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
            self._specs[folder] = _valid(lines)

    def ignores(self, path: Path, *, is_folder: bool) -> bool:
        """Return whether `path` is left out; the nearest file with a rule decides, as in git."""
        for parent in path.parents:
            if (spec := self._specs.get(parent)) is not None:
                relative = path.relative_to(parent).as_posix() + ("/" if is_folder else "")
                decision = spec.check_file(relative).include
                if decision is not None:
                    return decision
        return False


def _above_in_repository(folder: Path) -> list[Path]:
    """The folders above, up to the root of the repository; none outside of one."""
    above: list[Path] = []
    for each in (folder, *folder.parents):
        if each != folder:
            above.append(each)
        if os.path.lexists(each / ".git"):
            return above
    return []


def _valid(lines: Sequence[str]) -> GitIgnoreSpec:
    """The patterns; git takes no notice of lines that are none, so neither does this."""
    try:
        return GitIgnoreSpec.from_lines(lines)
    except ValueError:
        if len(lines) <= 1:
            return GitIgnoreSpec([])
        middle = len(lines) // 2
        return _valid(lines[:middle]) + _valid(lines[middle:])
