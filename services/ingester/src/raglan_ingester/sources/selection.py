"""Selection of the documents of a source by their path."""

from __future__ import annotations

from itertools import accumulate

from pathspec import GitIgnoreSpec

from raglan_ingester.parsers import format_of
from raglan_ingester.parsers.parsed import Source, Unparsable
from raglan_ingester.sources.config import SourceSettings


class Selection:
    """Applies `include` and `exclude`, and leaves out hidden files and unknown formats."""

    def __init__(self, settings: SourceSettings) -> None:
        self._include = GitIgnoreSpec.from_lines(settings.include)
        self._exclude = GitIgnoreSpec.from_lines(settings.exclude)
        self._has_include = bool(settings.include)
        self._folders: dict[str, bool] = {"": True}
        """True for a folder that `takes_path` looks into, with those above it."""

    def takes_folder(self, path: str) -> bool:
        """Return whether to look into a folder; `path` is relative and ends in a slash."""
        hidden = path.rstrip("/").rpartition("/")[2].startswith(".")
        return not hidden and not self._exclude.match_file(path)

    def is_chosen(self, path: str) -> bool:
        """Return whether `include` and `exclude` leave a document in."""
        if self._exclude.match_file(path):
            return False
        return not self._has_include or bool(self._include.match_file(path))

    def takes(self, path: str) -> bool:
        """Return whether to read a file; `path` is relative."""
        if path.rpartition("/")[2].startswith(".") or not self.is_chosen(path):
            return False
        try:
            format_of(Source(b"", path))
        except Unparsable:
            return False
        return True

    def takes_path(self, path: str) -> bool:
        """Return whether to read a file, by its folders and by itself."""
        folder = path.rpartition("/")[0]
        if folder not in self._folders:
            parts = accumulate(folder.split("/"), lambda above, name: f"{above}/{name}")
            self._folders[folder] = all(self.takes_folder(f"{each}/") for each in parts)
        return self._folders[folder] and self.takes(path)
