"""The interface between a sync and the kind of source that it reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from raglan.errors import PayloadTooLarge, RaglanError, Unavailable

MAX_REASONS: Final = 20
"""Sentences about skipped documents that a sync keeps; further ones are only counted."""


class SourceUnavailable(Unavailable):
    """The source cannot be read now: it is gone, refuses, or answers with errors."""


class SkippedDocumentError(RaglanError):
    """One document cannot be read; the others can."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A document as a listing shows it, without its content."""

    key: str
    """Identifies it within its source: a relative path, a URL, a primary key."""
    version: str
    """Differs once the content differs; empty where only the content tells."""


@dataclass(frozen=True, slots=True)
class Content:
    """A document as it was read."""

    data: bytes
    filename: str = ""
    media_type: str = ""
    title: str = ""
    metadata: Mapping[str, object] = field(default_factory=dict)
    version: str = ""
    """Takes the place of the listing's, where that has none."""


class Unchanged:
    """The document is as it was at its former version."""


@dataclass(slots=True)
class Skipped:
    """Documents that were left out: all of them counted, the first ones with their reasons."""

    count: int = 0
    reasons: list[str] = field(default_factory=list)

    def add(self, reason: str) -> None:
        """Count one more."""
        self.count += 1
        if len(self.reasons) < MAX_REASONS:
            self.reasons.append(reason)


@dataclass(frozen=True, slots=True)
class Listing:
    """All that a source holds.

    Args:
        entries: with distinct keys.
        cursor: names this state of the source; empty where it has no name.
        is_complete: whether what is not listed is not there. A feed lists its newest entries only.
        unread: parts that could not be listed, with a sentence each: by the beginning of the keys
            of their documents, which are neither new nor gone.
    """

    entries: Sequence[Entry]
    cursor: str = ""
    is_complete: bool = True
    unread: Mapping[str, str] = field(default_factory=dict)


class Reader(Protocol):
    """Reads one source during one sync."""

    async def list_entries(self, cursor: str, skipped: Skipped) -> Listing | None:
        """List the source.

        Args:
            cursor: of the last listing that was synced wholly; empty to list in any case.
            skipped: told what is left out.

        Returns:
            The listing; None when nothing has changed since `cursor`.

        Raises:
            SourceUnavailable: it cannot be listed, beyond parts that the listing names.
            PayloadTooLarge: it holds more documents than its limit.
        """
        ...

    async def read(self, entry: Entry, former: str) -> Content | Unchanged | None:
        """Read one document; None when it is gone by now.

        Args:
            entry: of the listing.
            former: version that is stored; empty to read it in any case.

        Raises:
            SkippedDocumentError: this one cannot be read.
            SourceUnavailable: none can be.
        """
        ...

    async def close(self) -> None:
        """Release what was opened."""
        ...


def too_many(name: str, limit: int) -> PayloadTooLarge:
    """Return the error for a source that lists more than its limit."""
    return PayloadTooLarge(
        f"The source {name!r} holds more than {limit:,} documents, its limit; narrow it by include "
        "and exclude, or raise its max_documents. Nothing was changed."
    )
