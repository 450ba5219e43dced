"""Engine `null`: keeps the order it is given, at no cost and without a model.

What is left of the service around it is the mesh itself, which can so be measured and rehearsed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from raglan.deadline import Deadline
from raglan.health import Health
from raglan.scheduling import Dispatcher, Lane, Pool

from raglan_reranker.engines import MakeDispatcher, Prepared, Scored


class NullReranking:
    """A passage's score is its place, counted backwards, handed through the real queue.

    Args:
        dispatcher: makes the queue before the one stream.
    """

    name = "null"
    device = "cpu"
    dtype = "f32"
    dimension = 0

    def __init__(self, *, dispatcher: MakeDispatcher) -> None:
        self._queue: Dispatcher[int, float] = dispatcher(Pool([_scores]), self.device)

    async def start(self, *, deadline: Deadline) -> None:
        """Nothing to load."""

    def prepare(self, query: str, passages: Sequence[str]) -> Prepared:
        """Places instead of texts; each is one token."""
        return Prepared(query, range(len(passages)), 0, [1] * len(passages))

    def fitting(self, prepared: Prepared, *, deadline: Deadline) -> int:
        """Return the number of passages that fit, as the queue estimates it."""
        return self._queue.fitting(
            prepared.passage_tokens, deadline=deadline, lane=Lane.INTERACTIVE
        )

    async def score(self, prepared: Prepared, count: int, *, deadline: Deadline) -> Scored:
        """0 for the first, -1 for the next: descending, as the order is to stay."""
        scores, timing = await self._queue.run(
            prepared.passages[:count],
            prepared.passage_tokens[:count],
            deadline=deadline,
            lane=Lane.INTERACTIVE,
        )
        return Scored(np.array(scores, np.float64), timing, [()] * count)

    def health(self) -> Health:
        """By forward progress."""
        return self._queue.health()

    async def close(self) -> None:
        """Stop the thread."""
        await self._queue.close()


def _scores(places: Sequence[int]) -> list[float]:
    return [-float(place) for place in places]
