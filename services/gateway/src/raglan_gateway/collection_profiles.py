"""Settings of collections that their questions depend on, as the index keeps them."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, NamedTuple

import structlog
from cachetools import LRUCache
from opentelemetry.trace import INVALID_SPAN
from raglan.errors import NotFound, RaglanError
from raglan.telemetry import tracing
from raglan.v1 import retriever_pb2

from raglan_gateway.degradation import RECOVERABLE

log: Final = structlog.get_logger()


class CollectionSettings(NamedTuple):
    """Settings of a collection that decide how it is searched."""

    profile: str
    """Profile of the questions that name none; empty for that of the gateway's file."""
    outputs: tuple[str, ...] = ()
    """Outputs of the embedder that it is searched by besides the vector."""

    @classmethod
    def of(cls, profile: str, further: retriever_pb2.FurtherVectors) -> CollectionSettings:
        """Return the settings that the index describes."""
        names = ("token_vectors", "sparse")
        return cls(profile, tuple(name for name in names if getattr(further, name)))


Fetch = Callable[[Sequence[str]], Awaitable[Mapping[str, CollectionSettings]]]
FRESH_S: Final = 5.0
"""Age at which a profile is asked for again: another gateway may have changed it."""
_MOST: Final = 10_000
"""Collections of all tenants that are remembered."""


class _Known(NamedTuple):
    settings: CollectionSettings | None
    """None: there is no such collection."""
    learned: float


class CollectionProfiles:
    """Settings of collections: asked for after `FRESH_S`, and kept while the index is away.

    Args:
        fetch: asks the retriever for those of the current tenant's collections; what does not exist
            is missing. It may raise RaglanError.
        clock: seconds that only grow.
    """

    def __init__(self, fetch: Fetch, clock: Callable[[], float] = time.monotonic) -> None:
        self._fetch = fetch
        self._clock = clock
        self._known: LRUCache[tuple[str, str], _Known] = LRUCache(_MOST)

    async def get(self, tenant: str, names: Sequence[str]) -> tuple[dict[str, str], str]:
        """Return the profile of each collection, and why one of them is not known.

        Args:
            tenant: the current one.
            names: of collections.

        Returns:
            The profiles, empty where a collection names none or its profile is not known; and the
            reason, empty where all are known. What was known before an outage still counts.
        """
        held, reason = await self._held(tenant, names)
        profiles = {
            name: known.settings.profile if known and known.settings else ""
            for name, known in held.items()
        }
        return profiles, reason

    async def outputs(self, tenant: str, names: Sequence[str]) -> tuple[str, ...]:
        """Return the outputs of the embedder that collections are searched by besides the vector.

        A collection that is not known is searched by the vector alone.

        Args:
            tenant: the current one.
            names: of collections.
        """
        held, _ = await self._held(tenant, names)
        known = [each.settings for each in held.values() if each and each.settings]
        return tuple(dict.fromkeys(name for each in known for name in each.outputs))

    async def require(self, tenant: str, names: Sequence[str]) -> None:
        """Check that collections exist, as far as the index can be asked.

        Args:
            tenant: the current one.
            names: of collections.

        Raises:
            NotFound: one does not.
        """
        held, _ = await self._held(tenant, names)
        for name, known in held.items():
            if known and known.settings is None:
                raise NotFound(f"There is no collection {name!r}.")

    async def _held(
        self, tenant: str, names: Sequence[str]
    ) -> tuple[dict[str, _Known | None], str]:
        now = self._clock()
        held = {name: self._known.get((tenant, name)) for name in names}
        old = [name for name, known in held.items() if not known or now - known.learned >= FRESH_S]
        reason = ""
        if old:
            try:
                held |= await self._ask(tenant, old)
            except RECOVERABLE as error:
                if unknown := [name for name in old if held[name] is None]:
                    reason = f"The profile of {unknown[0]!r} is not known: {error.message}"
            except RaglanError as error:
                # The search itself reports what is wrong with the request.
                log.debug("profiles of collections are not known", reason=error.message)
        return held, reason

    async def _ask(self, tenant: str, names: Sequence[str]) -> dict[str, _Known]:
        # What is asked once for many requests is part of no request's trace.
        attached = tracing.attach(INVALID_SPAN)
        try:
            fetched = await self._fetch(names)
        finally:
            tracing.detach(attached)
        return {name: self.learn(tenant, name, fetched.get(name)) for name in names}

    def learn(self, tenant: str, name: str, settings: CollectionSettings | None) -> _Known:
        """Remember the settings of a collection; None forgets one that does not exist."""
        known = _Known(settings, self._clock())
        if settings is None:
            # It may be made at any time: it is asked for each time.
            self._known.pop((tenant, name), None)
        else:
            self._known[tenant, name] = known
        return known
