"""One writer of a collection at a time, within this process."""

from __future__ import annotations

import asyncio
from weakref import WeakValueDictionary


class CollectionLocks:
    """One lock a collection, held from checking a document's owner until it is written.

    `async with locks.of(collection)` keeps others from writing or deleting it meanwhile.

    Writers in other processes are caught by the claim that `DocumentStore.publish` checks again.
    """

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def of(self, collection: str) -> asyncio.Lock:
        """Return the lock of `collection`."""
        lock = self._locks.get(collection)
        if lock is None:
            lock = self._locks[collection] = asyncio.Lock()
        return lock
