"""Work on several collections at the same time, each with its time, its budget and its error."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from raglan.errors import DeadlineExceeded, InvalidInput, NotFound, RaglanError

T = TypeVar("T")

_OF_THE_REQUEST: Final = (NotFound, InvalidInput)
"""Errors that no other collection makes up for."""

_FURTHER_SHARE: Final = 0.5
"""Of the budget, the time that each step after the first may take, however late it begins."""


@dataclass(frozen=True, slots=True)
class Searched:
    """Outcome of the search of one collection."""

    collection: str
    seconds: float
    hits: int
    """Of the result, those of this collection."""
    error: RaglanError | None
    """Reason for which it was left out."""


class Attempts:
    """State of one search over its collections.

    Args:
        names: the collections, without duplicates.
        budget_s: seconds until a collection is left out. Without it, or with one collection only,
            the first error of any is raised.
    """

    def __init__(self, names: Sequence[str], budget_s: float | None) -> None:
        self._names = names
        self._seconds = dict.fromkeys(names, 0.0)
        self.errors: Final[dict[str, RaglanError]] = {}
        """Reason for which a collection was left out."""
        self._budget_s = budget_s if len(names) > 1 else None
        self._until = None if self._budget_s is None else time.monotonic() + self._budget_s

    @property
    def are_late(self) -> bool:
        """Return whether there is no time for a second round of searches."""
        if self._budget_s is None or self._until is None:
            return False
        return time.monotonic() > self._until - _FURTHER_SHARE * self._budget_s

    async def run(self, names: Iterable[str], work: Callable[[str], Awaitable[T]]) -> dict[str, T]:
        """Do `work` for each collection that was not left out.

        Returns:
            The results of those that were in time.

        Raises:
            RaglanError: an error of the request itself, or no collection is left.
        """
        wanted = [name for name in names if name not in self.errors]
        if self._budget_s is None:
            done = await asyncio.gather(*(self._timed(name, work) for name in wanted))
            return dict(zip(wanted, done, strict=True))
        assert self._until is not None
        loop = asyncio.get_running_loop()
        left_s = max(self._until - time.monotonic(), _FURTHER_SHARE * self._budget_s)
        until = loop.time() + left_s
        results = await asyncio.gather(*(self._bounded(name, work, until) for name in wanted))
        if len(self.errors) == len(self._names):
            raise self.errors[self._names[0]]
        return {
            name: result for name, result in zip(wanted, results, strict=True) if result is not None
        }

    def outcome(self, hits: Mapping[str, int]) -> list[Searched]:
        """Return the outcome of each collection, given the hits that the result has of it."""
        return [
            Searched(name, self._seconds[name], hits.get(name, 0), self.errors.get(name))
            for name in self._names
        ]

    async def _bounded(
        self, name: str, work: Callable[[str], Awaitable[T]], until: float
    ) -> T | None:
        try:
            async with asyncio.timeout_at(until):
                return await self._timed(name, work)
        except TimeoutError:
            error: RaglanError = DeadlineExceeded(
                f"Collection {name!r} did not answer within {self._seconds[name] * 1e3:.0f} ms."
            )
        except _OF_THE_REQUEST:
            raise
        except RaglanError as refused:
            error = refused
        self.errors[name] = error
        return None

    async def _timed(self, name: str, work: Callable[[str], Awaitable[T]]) -> T:
        began = time.monotonic()
        try:
            return await work(name)
        finally:
            self._seconds[name] += time.monotonic() - began
