"""The collections of the edge store: known by their descriptions, open while they are used.

An open shard costs mapped files, threads and descriptors, so at most
`max_open` are, and one that was not used for a while is closed. What cannot be opened is set aside
with the reason: the others are served.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

import structlog
from raglan.disk import Disk
from raglan.errors import Conflict, NotFound, RaglanError

from raglan_retriever.collection import NewerFormat
from raglan_retriever.stores.folders import Counts, Folders, Stored, allocate
from raglan_retriever.stores.shard import Shard, library_errors

log: Final = structlog.get_logger()

OPENING_SHARE: Final = 0.25
"""Of the space that is kept free, what opening and deleting may use."""

_MAX_OPENINGS: Final = 3
"""Openings in a row that may end the process; the next start leaves the collection alone."""


@dataclass(slots=True)
class CollectionState:
    """State of a collection. All but `shard` and `used_s` changes in the writing thread only."""

    stored: Stored
    counts: Counts | None
    """Counts of the shard, as stored when it was closed; None once it is written to."""

    erasable: bool
    """The shard still holds the text of points that were deleted or replaced."""

    revision: int
    """Raised by every write; see `Versioned`."""

    shard: Shard | None = None
    """None while it is closed."""

    used_s: float = 0.0
    """When it was last used, on the monotonic clock."""

    outdated: int = 0
    """Chunks written or removed since the vector index was built, as far as is known."""

    documents: tuple[int, int] = (-1, 0)
    """Revision and number of documents at it: counting holds the interpreter's lock."""

    changed: set[str] | None = None
    """Points written or removed since a copy was taken to build the index of; else None."""

    rewritten_until_s: float = 0.0
    """When the last rewriting ended, on the monotonic clock, plus the pause it has earned."""

    @property
    def name(self) -> str:
        """Name of the collection."""
        return self.stored.collection.name

    def record_change(self, ids: Sequence[str], revision: int) -> None:
        """Note that these points were written or removed."""
        self.revision = revision
        self.outdated += len(ids)
        if self.changed is not None:
            self.changed.update(ids)

    def count_documents(self, shard: Shard) -> int:
        """Return the number of documents, counted once a revision."""
        revision, documents = self.documents
        if revision != self.revision:
            revision = self.revision
            documents = shard.count_documents()
            self.documents = (revision, documents)
        return documents


class Shards:
    """Opens and closes shards; thread-safe."""

    def __init__(self, folders: Folders, disk: Disk, *, max_open: int) -> None:
        self._folders = folders
        self._disk = disk
        self._max_open = max_open
        self._lock = threading.Lock()
        """Held to find a shard, open it and enter it, and to close, replace or remove it."""
        self._held: dict[str, CollectionState] = {}
        self._set_aside: dict[str, str] = {}

    def load(self) -> None:
        """Read which collections there are; none is opened."""
        for name, stored in self._folders.stored():
            if isinstance(stored, Conflict):
                self._put_aside(name, stored)
            else:
                self._held[name] = self._known(stored)

    def open_at_start(self) -> None:
        """Open what was written to before a crash, and of the others as many as may be open.

        A collection whose counts are known afterwards need not be opened to be listed.
        """
        known = sorted(self._held.values(), key=lambda held: -self._folders.closed_at(held.name))
        unknown = [held for held in known if held.counts is None]
        for held in unknown + [held for held in known if held.counts is not None][: self._max_open]:
            # A damaged shard is set aside; one that fails for another reason, such as space, fails
            # for those who ask for it.
            with suppress(RaglanError), self.entered(held.name):
                pass

    def add(self, stored: Stored) -> None:
        """Add a collection that was just created."""
        with self._lock:
            self._held[stored.collection.name] = self._known(stored)

    def names(self) -> list[str]:
        """Return the names of the collections that can be served."""
        return sorted(self._held)

    def set_aside(self) -> dict[str, str]:
        """Return the collections that cannot be served, each with the reason."""
        return dict(self._set_aside)

    def is_taken(self, name: str) -> bool:
        """Return whether a collection of this name exists, a damaged one included."""
        return name in self._held or name in self._set_aside

    def get(self, name: str) -> CollectionState:
        """Return the state of a collection.

        Raises:
            NotFound: It does not exist.
            Conflict: It is set aside.
        """
        if (reason := self._set_aside.get(name)) is not None:
            raise _set_aside(name, reason)
        try:
            return self._held[name]
        except KeyError:
            raise NotFound(f"There is no collection {name!r}.") from None

    @contextmanager
    def entered(self, name: str) -> Iterator[tuple[CollectionState, Shard]]:
        """Open the collection's shard, which stays open for the block.

        Raises:
            Conflict: it is damaged.
            StorageFull: opening it needs space.
        """
        with self._lock:
            held = self.get(name)
            shard = held.shard
            is_opened = shard is None
            if shard is None:
                shard = held.shard = self._open(held)
            held.used_s = time.monotonic()
            shard.enter()
        try:
            if is_opened:
                self._close_excess()
            with library_errors(f"Collection {name!r} cannot be read or written"):
                yield held, shard
        finally:
            shard.leave()

    def replace(self, held: CollectionState, fresh: Shard) -> Shard | None:
        """Replace the collection's shard by `fresh` and return the old one, if it was open."""
        with self._lock:
            old, held.shard = held.shard, fresh
        return old

    def close_unused(self, unused_s: float) -> None:
        """Close shards that were not used for `unused_s`."""
        since = time.monotonic() - unused_s
        for held in self._closable():
            if held.used_s < since:
                self._close(held)

    def remove(self, name: str) -> None:
        """Forget the collection and close its shard once its readers have left."""
        with self._lock:
            held = self._held.pop(name, None)
            known_damaged = self._set_aside.pop(name, None)
        if held is None:
            if known_damaged is None:
                raise NotFound(f"There is no collection {name!r}.")
        elif held.shard is not None:
            held.shard.close()

    def close(self) -> None:
        """Close all of them, each once its readers have left."""
        for held in list(self._held.values()):
            self._close(held, wait=True)
        self._held.clear()

    def _known(self, stored: Stored) -> CollectionState:
        counts = self._folders.counts(stored)
        # Without counts, writes after the last known revision may have been lost from it.
        revision = (counts and counts.revision) or self._folders.next_revision()
        return CollectionState(
            stored,
            counts,
            erasable=self._folders.is_erasable(stored),
            revision=revision,
            outdated=counts.unindexed_chunks if counts else 0,
            documents=(revision, counts.documents) if counts else (-1, 0),
        )

    def _open(self, held: CollectionState) -> Shard:
        """Open the shard, or set the collection aside."""
        openings = self._folders.begin_opening(held.name)
        if openings > _MAX_OPENINGS:
            ended = f"opening it ended the process {openings - 1} times; remove "
            raise self._put_aside(
                held.name, Conflict(f"{ended}{self._folders.openings(held.name)} to try again")
            )
        try:
            if held.counts is None:
                # Its log may have to be replayed, which writes.
                self._disk.check("open a collection", share=OPENING_SHARE)
            path = self._folders.shard(held.name, held.stored.shard)
            with self._disk.writing("open a collection"):
                allocate(path)
            shard = Shard(path, held.stored.plan)
            if held.counts is None:
                held.outdated = shard.unindexed()
        except Conflict as error:
            raise self._put_aside(held.name, error) from None
        finally:
            self._folders.end_opening(held.name)
        return shard

    def _put_aside(self, name: str, error: Conflict) -> Conflict:
        reason = f"{error.message.rstrip('.')}. Its folder is {self._folders.folder(name)}"
        if not isinstance(error, NewerFormat):
            reason = f"it is damaged: {reason}"
        log.error("collection set aside", collection=name, reason=reason)
        self._held.pop(name, None)
        self._set_aside[name] = reason
        return _set_aside(name, reason)

    def _closable(self) -> list[CollectionState]:
        """Return the open shards that are not in use, least recently used first."""
        with self._lock:
            found = [
                held
                for held in self._held.values()
                if held.shard is not None and held.shard.is_idle and held.changed is None
            ]
        return sorted(found, key=lambda held: held.used_s)

    def _close_excess(self) -> None:
        """Close shards above the limit. Those in use count, but stay open."""
        for held in self._closable():
            if sum(each.shard is not None for each in list(self._held.values())) <= self._max_open:
                return
            self._close(held)

    def _close(self, held: CollectionState, *, wait: bool = False) -> None:
        """Flush and close the shard, unless it is used meanwhile."""
        shard = held.shard
        if shard is None:
            return
        revision = held.revision
        # With its counts known, nothing was written since it was opened.
        counts = held.counts or self._flushed(held, shard)
        if counts is None and not wait:
            return  # what was written stays in memory and in the log
        with self._lock:
            is_unused = shard.is_idle and held.revision == revision and held.changed is None
            if held.shard is not shard or not (wait or is_unused):
                return
            shard.close()
            held.shard = None
            if (
                counts is not None
                and held.counts is None
                and held.revision == revision
                and self._folders.write_counts(held.stored, counts)
            ):
                held.counts = counts

    @staticmethod
    def _flushed(held: CollectionState, shard: Shard) -> Counts | None:
        """Flush the shard and return its counts; None when that fails, as on a full disk."""
        shard.enter()
        try:
            with library_errors("it cannot be flushed"):
                shard.flush()
                chunks, documents = shard.count(None), held.count_documents(shard)
                return Counts(chunks, documents, shard.unindexed(), held.revision)
        except (Conflict, OSError) as error:
            log.error("closing without a flush", collection=held.name, reason=str(error))
            return None
        finally:
            shard.leave()


def _set_aside(name: str, reason: str) -> Conflict:
    return Conflict(
        f"Collection {name!r} is set aside: {reason}. If there is no other way, restore it from a "
        "backup, or delete it and ingest its documents again."
    )
