"""Work that an index left unfinished, one collection beside the other."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence

from raglan.errors import DeadlineExceeded, RaglanError


async def finish_each(collections: Sequence[str], finish: Callable[[str], Awaitable[None]]) -> None:
    """Finish the work of every collection, whatever becomes of the others.

    The order is random, so that one collection that takes all the time does not always come
    before the same others.

    Raises:
        RaglanError: the first one that was raised; at once, if it took its whole time.
    """
    first: RaglanError | None = None
    for collection in random.sample(collections, len(collections)):
        try:
            await finish(collection)
        except DeadlineExceeded:
            raise
        except RaglanError as error:
            first = first or error
    if first is not None:
        raise first
