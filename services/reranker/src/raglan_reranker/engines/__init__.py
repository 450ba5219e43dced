"""(query, passages) to relevance scores: what an engine is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from raglan.deadline import Deadline
from raglan.health import Health
from raglan.scheduling import Dispatcher, Pool, Timing


@dataclass(frozen=True, slots=True)
class Prepared:
    """A query and its passages, tokenised."""

    query: Any
    passages: Sequence[Any]
    query_tokens: int
    """Tokens of the query alone; 0 where each passage's cost includes it."""

    passage_tokens: Sequence[int]

    held: frozenset[int] = frozenset()
    """Positions of passages that cost next to nothing: the engine kept what it made of them."""

    credit: float = 1.0
    """Weight of the model's scores for these texts, in [0, 1]; see `raglan.readability`."""

    def only(self, positions: Sequence[int]) -> Prepared:
        """The same query with the passages at `positions`, in that order."""
        return Prepared(
            query=self.query,
            passages=[self.passages[i] for i in positions],
            query_tokens=self.query_tokens,
            passage_tokens=[self.passage_tokens[i] for i in positions],
            held=frozenset(n for n, i in enumerate(positions) if i in self.held),
            credit=self.credit,
        )


class Scored(NamedTuple):
    """Scores of passages by an engine."""

    scores: NDArray[np.float64]
    """One a passage, higher is better."""

    timing: Timing

    matches: Sequence[Sequence[int]]
    """For each passage, where in it the best match of each of the query's tokens begins, in
    characters; nothing from engines that look at no tokens."""


MEASURED_PASSAGES: Final = 5
"""Passages, from the best, by which an engine judges whether its model reads the language."""

MakeDispatcher = Callable[[Pool[Any, Any], str], Dispatcher[Any, Any]]
"""The queue before the streams of a pool, on the device that they were loaded on."""


class Engine(Protocol):
    """A loaded model behind its queue."""

    name: str
    device: str
    dtype: str
    dimension: int
    """Of the model's vectors; 0 for one that makes none."""

    async def start(self, *, deadline: Deadline) -> None:
        """Be ready to score."""
        ...

    def prepare(self, query: str, passages: Sequence[str]) -> Prepared:
        """Tokenise. Called in a worker thread."""
        ...

    def fitting(self, prepared: Prepared, *, deadline: Deadline) -> int:
        """Return the number of passages, from the first, that fit before `deadline`."""
        ...

    async def score(self, prepared: Prepared, count: int, *, deadline: Deadline) -> Scored:
        """Score the first `count` >= 1 passages.

        Raises:
            Overloaded: no room in the queue.
            DeadlineExceeded: the time ran out.
        """
        ...

    def health(self) -> Health:
        """By forward progress."""
        ...

    async def close(self) -> None:
        """Stop its threads."""
        ...
