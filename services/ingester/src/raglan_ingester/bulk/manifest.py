"""The manifest: a line a document that was worked on, from which a further run goes on.

The first line of each run names the source, the collection and its settings; those after it are
records. A line that a crash cut short is not counted.
"""

from __future__ import annotations

import fcntl
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from raglan.errors import Conflict, InvalidInput

INDEXED: Final = "indexed"
FAILED: Final = "failed"
GONE: Final = "gone"
"""It was listed, and not there when it was read."""


@dataclass(frozen=True, slots=True)
class Record:
    """What became of a document."""

    document: str
    version: str
    """In the source; empty where only the content tells."""
    sha256: str
    chunks: int
    """0 where they were not made here."""
    state: str
    error: str = ""

    def line(self) -> str:
        """Return it as JSON."""
        return json.dumps(asdict(self), ensure_ascii=False)


class Manifest:
    """A file of JSON lines that one run at a time appends to. Close it.

    Args:
        path: of the file; it is made.
        head: what the run is about. Another source or collection is refused; other settings make
            every document be worked on again.

    Raises:
        InvalidInput: it is no manifest, or that of another source or collection.
        Conflict: another run writes it.
    """

    def __init__(self, path: Path, head: Mapping[str, str]) -> None:
        self.versions: dict[str, str] = {}
        """Version of each document that is indexed."""
        self.states: Counter[str] = Counter()
        """Of the records of this run."""
        self.failures: list[dict[str, Any]] = []
        self._file = path.open("a+", encoding="utf-8")
        try:
            self._lock(path)
            self._load(path, head)
        except BaseException:
            self._file.close()
            raise
        self._write(json.dumps({"bulk": 1, **head}))

    def add(self, line: str) -> None:
        """Append a record."""
        record = json.loads(line)
        self.states[record["state"]] += 1
        if record["state"] == FAILED:
            self.failures.append(record)
        self._write(line)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _lock(self, path: Path) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(f"Another run writes {path}; wait for it.") from None

    def _load(self, path: Path, head: Mapping[str, str]) -> None:
        self._file.seek(0)
        text = ""
        has_these_settings = False
        for text in self._file:
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if not isinstance(line, dict):
                raise InvalidInput(f"{path} is not a manifest of raglan bulk.")
            if "bulk" in line:
                self._compare(path, line, head)
                has_these_settings = line.get("settings") == head["settings"]
            else:
                self._remember(line, counts=has_these_settings)
        if text and not text.endswith("\n"):
            self._file.write("\n")

    def _compare(self, path: Path, line: Mapping[str, Any], head: Mapping[str, str]) -> None:
        for name in ("source", "collection"):
            if line.get(name) != head[name]:
                raise InvalidInput(
                    f"{path} is the manifest of the {name} {line.get(name)}; name another file."
                )

    def _remember(self, line: Mapping[str, Any], *, counts: bool) -> None:
        document = str(line.get("document"))
        if counts and line.get("state") == INDEXED and line.get("version"):
            self.versions[document] = str(line["version"])
        else:
            self.versions.pop(document, None)

    def _write(self, line: str) -> None:
        self._file.write(f"{line}\n")
        self._file.flush()
