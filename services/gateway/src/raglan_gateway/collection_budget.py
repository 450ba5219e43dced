"""The time that each of several collections may take in one search."""

from __future__ import annotations

from typing import Final, Protocol

from raglan.deadline import Deadline
from raglan.v1 import retriever_pb2

_SHARE: Final = 0.5
"""Of the time that the search has: what comes after the slowest collection needs some too."""


class Services(Protocol):
    """The service that is searched with."""

    async def search(
        self, request: retriever_pb2.SearchRequest, *, deadline: Deadline
    ) -> retriever_pb2.SearchResponse:
        """Search the index."""
        ...


class BudgetedSearch:
    """Searches whose collections are left out when they are late.

    Args:
        services: searches; not owned.
        budget_s: the longest that one of several collections may take.
    """

    def __init__(self, services: Services, budget_s: float) -> None:
        self._services = services
        self._budget_s = budget_s

    async def search(
        self, request: retriever_pb2.SearchRequest, *, deadline: Deadline
    ) -> retriever_pb2.SearchResponse:
        """Search the index, with a budget where there are several collections."""
        if len(request.collections) > 1:
            budget_s = min(self._budget_s, _SHARE * deadline.remaining_s())
            request.collection_budget_ms = max(1, int(budget_s * 1e3))
        return await self._services.search(request, deadline=deadline)
