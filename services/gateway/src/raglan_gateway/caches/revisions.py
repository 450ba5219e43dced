"""The present revisions of collections, for many requests by few calls."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from raglan.errors import RaglanError

from raglan_gateway import caller

Fetch = Callable[[Sequence[str]], Awaitable[Mapping[str, int]]]
_Who = tuple[str, tuple[str, ...] | None]
"""Tenant, and collections to which its key is limited: callers who share calls."""
_AT_ONCE: Final = 64
"""Collections named in one call."""


class _Call:
    """One call, and the collections that it asks for."""

    def __init__(self) -> None:
        self.collections: set[str] = set()
        self.reply: asyncio.Future[Mapping[str, int]] = asyncio.get_running_loop().create_future()


class CurrentRevisions:
    """Asks the retriever. A request's revisions come from a call that began after the request.

    So a change that was acknowledged before the request arrived is always counted. While a call is
    out, later requests gather for the next: a busy gateway makes one call at a time, however many
    requests wait for it.

    Args:
        fetch: asks for collections of the current tenant; may raise RaglanError.
    """

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self._next: dict[_Who, _Call] = {}
        self._out: set[_Who] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Stop; those who wait get no revisions."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(tuple(self._tasks))

    async def get(self, tenant: str, collections: Sequence[str]) -> Mapping[str, int] | None:
        """Return the revision of each collection; None where one is not known.

        Args:
            tenant: the current one.
            collections: names of the tenant's.
        """
        # A key that is limited to collections must not ask for those of others.
        who = (tenant, caller.current().collections)
        call = self._next.get(who)
        if call is None or len(call.collections) >= _AT_ONCE:
            call = self._next[who] = _Call()
        call.collections.update(collections)
        if who not in self._out:
            self._out.add(who)
            # In the context of this request, and so in that of its tenant and key.
            task = asyncio.create_task(self._run(who))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        revisions = await asyncio.shield(call.reply)
        known = {name: revisions.get(name, 0) for name in collections}
        return known if all(known.values()) else None

    async def _run(self, who: _Who) -> None:
        try:
            while (call := self._next.pop(who, None)) is not None:
                try:
                    call.reply.set_result(await self._fetch(sorted(call.collections)))
                except RaglanError:
                    # Where one collection does not exist, the others are asked for on their own
                    # by the requests themselves, which run.
                    call.reply.set_result({})
                finally:
                    if not call.reply.done():
                        call.reply.set_result({})
        finally:
            self._out.discard(who)
            if (left := self._next.pop(who, None)) is not None:
                left.reply.set_result({})
