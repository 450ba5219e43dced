"""Objects of sources."""

from __future__ import annotations

from typing import Literal

from raglan.client.model import Model


class SourceCounts(Model):
    """Counts of the last sync that did not fail."""

    listed: int
    added: int
    changed: int
    deleted: int
    held: int
    """Documents that are missing from the source and are kept for now: more than half are missing
    at once. They are deleted after the source's `delete_after`, or by a sync that accepts
    deletions."""
    skipped: int
    """Left out; `skipped_reasons` has the first ones."""


class Source(Model):
    """A place that documents are read from, as the operator configured it."""

    name: str
    kind: str
    collection: str
    status: Literal["due", "syncing", "synced", "failing", "held", "paused"]
    """`failing`: the last sync failed, or could not read the parts that `error` names, and is
    repeated at `next_at`; nothing was deleted of what could not be read. `held`: synced, but
    missing documents are kept for now. `paused`: switched off in the file."""
    every_s: int
    documents: int
    """Documents that it has brought."""
    failed_documents: int
    error: str
    failures: int
    """Syncs that failed since the last one that did not."""
    started_at: str | None
    finished_at: str | None
    succeeded_at: str | None
    next_at: str | None
    last_sync: SourceCounts
    skipped_reasons: list[str]


class Sources(Model):
    """The configured sources by name."""

    sources: list[Source]
    file_error: str
    """Error of the sources file, with which the sources are those of before; else empty."""
