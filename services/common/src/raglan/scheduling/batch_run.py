"""Runs a batch on a stream's thread. What fails in it fails alone.

Texts of several callers share a batch. When it fails it is run again in halves, down to the text
that fails by itself, so that the others get their results.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

import structlog

from raglan.scheduling.work import Batch, BatchTooLarge, DeviceLost, Item

log: Final = structlog.get_logger()

Input = TypeVar("Input")
Result = TypeVar("Result")
Stream = Callable[[Sequence[Input]], Sequence[Result | Exception]]
"""Runs one batch: as many results as inputs, in their order; an exception in place of a result
fails that input alone. One caller at a time."""

_MOST_FAILURES: Final = 4
"""Texts that fail by themselves, after which the rest of a batch is abandoned: then it is the model
that fails, and not a text."""


@dataclass(slots=True, eq=False)
class Run(Generic[Result]):
    """Result of a batch."""

    items: Sequence[Item]
    late: Sequence[Item]
    started_ns: int
    ended_ns: int = 0
    results: list[Result | Exception] = field(default_factory=list)
    """Of `items`, in their order."""

    error: Exception | None = None
    """Failure of the batch as a whole, whatever its parts returned."""

    too_large_tokens: int = 0
    """Padded tokens for which the device had no memory; 0 where it had."""

    @property
    def is_whole(self) -> bool:
        """Return whether all ran together, so that the time says something of the speed."""
        return self.error is None

    @property
    def seconds(self) -> float:
        """Return the duration in seconds."""
        return (self.ended_ns - self.started_ns) / 1e9


def run(stream: Stream[Any, Result], batch: Batch) -> Run[Result]:
    """Run what is still wanted of `batch`, in one piece if that works.

    Raises:
        DeviceLost: nothing more will run.
    """
    # Items that were cancelled or are too late by now are not run.
    now = time.monotonic()
    wanted = [item for item in batch.items if not item.payload.future.done()]
    items = [item for item in wanted if item.expires_at > now]
    late = [item for item in wanted if item.expires_at <= now]
    made: Run[Result] = Run(items, late, time.monotonic_ns())
    if items:
        made.results = _Attempt(stream, batch, made).results(items)
    made.ended_ns = time.monotonic_ns()
    return made


class _Attempt(Generic[Result]):
    """One batch, in pieces as large as the device and its texts allow."""

    def __init__(self, stream: Stream[Any, Result], batch: Batch, made: Run[Result]) -> None:
        self._stream = stream
        self._batch = batch
        self._run = made
        self._failures = 0

    def results(self, items: Sequence[Item]) -> list[Result | Exception]:
        try:
            found = self._stream([item.payload.input for item in items])
            if len(found) != len(items):
                raise ValueError(f"{len(found)} results for {len(items)} inputs")
            return list(found)
        except DeviceLost:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, its text pays
            self._note(error, items)
            if len(items) == 1:
                self._failures += 1
                return [error]
            return self._halves(items, error)

    def _halves(self, items: Sequence[Item], error: Exception) -> list[Result | Exception]:
        middle = len(items) // 2
        found: list[Result | Exception] = []
        for half in (items[:middle], items[middle:]):
            given_up = self._failures >= _MOST_FAILURES
            found += [error] * len(half) if given_up else self.results(half)
        return found

    def _note(self, error: Exception, items: Sequence[Item]) -> None:
        if isinstance(error, BatchTooLarge) and len(items) > 1:
            whole = self._batch.padded_tokens
            tokens = max(1, whole * len(items) // len(self._batch.items))
            known = self._run.too_large_tokens
            self._run.too_large_tokens = min(known, tokens) if known else tokens
        if self._run.error is None:
            self._run.error = error
            if not isinstance(error, BatchTooLarge):
                log.error("a batch failed", items=len(items), exc_info=error)
