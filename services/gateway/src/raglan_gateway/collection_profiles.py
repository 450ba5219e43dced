"""The profile that each collection names for its questions, as the index keeps it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import structlog
from cachetools import TTLCache
from opentelemetry.trace import INVALID_SPAN
from raglan.errors import RaglanError
from raglan.telemetry import tracing

log: Final = structlog.get_logger()

Fetch = Callable[[Sequence[str]], Awaitable[Mapping[str, str]]]
FRESH_S: Final = 5.0
"""Age at which a profile is asked for again: another gateway may have changed it."""
_MOST: Final = 10_000
"""Collections of all tenants that are remembered."""


class CollectionProfiles:
    """Profiles of collections, remembered for `FRESH_S`.

    Args:
        fetch: asks the retriever for those of the current tenant's collections; those that name
            none are missing from its reply. It may raise RaglanError.
    """

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self._known: TTLCache[tuple[str, str], str] = TTLCache(_MOST, FRESH_S)

    async def get(self, tenant: str, names: Sequence[str]) -> dict[str, str]:
        """Return the profile of each collection; empty where it names none or is not known.

        Args:
            tenant: the current one.
            names: of collections.
        """
        known = {name: self._known.get((tenant, name)) for name in names}
        if missing := [name for name, profile in known.items() if profile is None]:
            # What is asked once for many requests is part of no request's trace.
            attached = tracing.attach(INVALID_SPAN)
            try:
                fetched = await self._fetch(missing)
            except RaglanError as error:
                # The search itself reports what is wrong with the retriever.
                log.debug("profiles of collections are not known", reason=error.message)
                fetched = {}
            else:
                for name in missing:
                    self.learn(tenant, name, fetched.get(name, ""))
            finally:
                tracing.detach(attached)
            known |= {name: fetched.get(name, "") for name in missing}
        return {name: profile or "" for name, profile in known.items()}

    def learn(self, tenant: str, name: str, profile: str) -> None:
        """Remember the profile of a collection."""
        self._known[tenant, name] = profile
