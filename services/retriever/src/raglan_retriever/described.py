"""Work by the description of a collection, without a round trip of its own for the description."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from raglan_retriever.collection import Collection
from raglan_retriever.stores.store import Store, Versioned

T = TypeVar("T")


async def read_described(
    store: Store, name: str, work: Callable[[Collection], Awaitable[T]]
) -> tuple[Versioned, T]:
    """Do `work` by the description read last, and again if the collection has changed since.

    The present description is read at the same time as `work` runs, so that a store behind a
    network answers both in one round trip.

    Args:
        store: holds the collection.
        name: name of the collection.
        work: reads only; its errors count only where the description was right.

    Returns:
        The description and the result of `work`, with a revision that was read before `work`
        began: what it found is as new, or newer.

    Raises:
        RaglanError: the collection cannot be read, or `work` fails.
    """
    known = store.last_read(name)
    if known is None:
        (now,) = await store.versioned((name,))
        return now, await work(now.collection)
    working = asyncio.ensure_future(work(known.collection))
    try:
        (now,) = await store.versioned((name,))
        if now.revision == known.revision and now.collection.is_searched_like(known.collection):
            return now, await working
    finally:
        if not working.done():
            working.cancel()
        await asyncio.gather(working, return_exceptions=True)
    return now, await work(now.collection)
