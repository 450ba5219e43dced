"""Engines `cross-encoder` and `llm`: query and passage read together by a model trained for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from raglan.deadline import Deadline
from raglan.encoders.cross_encoder import Score
from raglan.encoders.tokenizer import PairIds
from raglan.errors import Internal
from raglan.health import Health
from raglan.readability import Readability, credit_between
from raglan.scheduling import Dispatcher, Lane, Pool

from raglan_reranker.engines import MEASURED_PASSAGES, MakeDispatcher, Prepared, Scored


class Pairing(Protocol):
    """Query and passage as the model reads them together; called from one thread at a time."""

    def readability(self, text: str) -> Readability:
        """Measure how well the model reads the beginning of `text`."""
        ...

    def pairs(self, query: str, passages: Sequence[str]) -> list[PairIds]:
        """Ids of `query` with each passage."""
        ...


class CrossEncoding:
    """One cross-encoder behind a queue; the pairs of a call run on all its streams.

    Args:
        dispatcher: makes the queue before the streams.
    """

    dimension = 0

    def __init__(
        self,
        streams: Sequence[Callable[[Sequence[PairIds]], Sequence[float | Exception]]],
        tokenizers: Pairing,
        *,
        name: str = "cross-encoder",
        device: str,
        dtype: str,
        dispatcher: MakeDispatcher,
    ) -> None:
        self.device = device
        self.dtype = dtype
        self.name = name
        self._tokenizers = tokenizers
        self._queue: Dispatcher[PairIds, float] = dispatcher(Pool(streams), device)

    async def start(self, *, deadline: Deadline) -> None:
        """Nothing is left to do: the model was loaded before."""

    def prepare(self, query: str, passages: Sequence[str]) -> Prepared:
        """Pairs; what is too long is cut at the end of the passage.

        Raises:
            InvalidInput: the query alone leaves no room for a passage.
        """
        pairs = self._tokenizers.pairs(query, passages)
        credit = credit_between(
            self._tokenizers.readability(query),
            [self._tokenizers.readability(text) for text in passages[:MEASURED_PASSAGES]],
        )
        return Prepared(query, pairs, 0, [len(pair.ids) for pair in pairs], credit=credit)

    def fitting(self, prepared: Prepared, *, deadline: Deadline) -> int:
        """Return the number of passages that fit, as the queue estimates it."""
        return self._queue.fitting(
            prepared.passage_tokens, deadline=deadline, lane=Lane.INTERACTIVE
        )

    async def score(self, prepared: Prepared, count: int, *, deadline: Deadline) -> Scored:
        """The model's logits: any number, higher is better."""
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
        """Stop the device threads."""
        await self._queue.close()


def listed(score: Score) -> Callable[[Sequence[PairIds]], list[float | Exception]]:
    """A stream over a cross-encoder's scores; one that is no number fails its pair alone."""
    not_a_number = Internal("The model gave scores that are not numbers.")
    return lambda pairs: [
        each if math.isfinite(each) else not_a_number for each in score(pairs).tolist()
    ]
