"""Texts to vectors: refuse what cannot succeed, tokenise off the loop, queue, put together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray
from raglan.deadline import Deadline
from raglan.encoders.model import EncoderModel
from raglan.encoders.queue import BatchLimits, BatchQueue, Lane, Timing
from raglan.encoders.sessions import TokenIds
from raglan.encoders.tokenizer import Tokenizers
from raglan.errors import InvalidInput, PayloadTooLarge

from raglan_embedder.engines import Engine, normalised


class Kind(Enum):
    """What a text is, and so which prompt goes before it."""

    UNSTATED = "unstated"
    QUERY = "query"
    PASSAGE = "passage"


@dataclass(frozen=True, slots=True)
class TextLimits:
    """What one call may hold."""

    texts: int
    chars: int
    """Of one text."""


@dataclass(frozen=True, slots=True)
class EmbeddingBatch:
    """Vectors of one call."""

    vectors: NDArray[np.float32]
    """Shape (texts, dimension), rows L2-normalised, in the order of the texts."""

    token_counts: list[int]
    """Tokens of each text as the model saw it: with prompt and special tokens, after cutting."""

    tokenize_ns: int
    timing: Timing


class Embedder:
    """One loaded model behind its queue. Belongs to one event loop; `close` it."""

    def __init__(
        self,
        engine: Engine,
        model: EncoderModel,
        *,
        limits: TextLimits,
        batches: BatchLimits,
        max_waiting: int,
    ) -> None:
        self.engine = engine
        self.model = model
        self.limits = limits
        self.batches = batches
        self.max_waiting = max_waiting
        self._prompts = {
            Kind.UNSTATED: model.default_prompt,
            Kind.QUERY: model.query_prompt,
            Kind.PASSAGE: model.passage_prompt,
        }
        self._tokenizers = Tokenizers(model.path, model.max_tokens)
        # One thread a lane: a query is not tokenised behind 256 passages.
        self._tokenizing = {lane: ThreadPoolExecutor(1, f"tokenize-{lane.name}") for lane in Lane}
        self._queue: BatchQueue[TokenIds, NDArray[np.float32]] = BatchQueue(
            engine.streams, limits=batches, max_waiting=max_waiting, name="embed"
        )

    async def embed(
        self,
        texts: Sequence[str],
        *,
        deadline: Deadline,
        kind: Kind = Kind.UNSTATED,
        lane: Lane = Lane.INTERACTIVE,
        dimension: int = 0,
    ) -> EmbeddingBatch:
        """Embed `texts`, all of them or none.

        Args:
            texts: 1..`limits.texts` texts; what the model cannot take is cut at the end.
            dimension: the leading components to keep (Matryoshka), normalised again; 0 keeps all.

        Raises:
            InvalidInput: no text, an empty one, or a limit passed; the message names it.
            Overloaded: the queue has no room for all of them.
            DeadlineExceeded: the time ran out before the last vector.
        """
        self._check(texts, dimension)
        with self._queue.admitted(len(texts)):
            started_ns = time.monotonic_ns()
            prompt = self._prompts[kind]
            ids = await asyncio.get_running_loop().run_in_executor(
                self._tokenizing[lane], self._tokenizers.ids, [prompt + text for text in texts]
            )
            tokenize_ns = time.monotonic_ns() - started_ns
            counts = [len(each) for each in ids]
            rows, timing = await self._queue.run(ids, counts, deadline=deadline, lane=lane)
        vectors = np.stack(rows)
        if 0 < dimension < self.model.dimension:
            vectors = normalised(vectors[:, :dimension])
        return EmbeddingBatch(vectors, counts, tokenize_ns, timing)

    async def warm_up(self, *, deadline: Deadline) -> None:
        """Run every stream on short and long input once, so that no caller pays for first times."""
        for length in (1, 32, 2 * self.model.max_tokens):
            text = "warm " * length
            await self.embed([text] * len(self.engine.streams), deadline=deadline)

    async def close(self) -> None:
        """Fail what waits and stop the threads."""
        await self._queue.close()
        for executor in self._tokenizing.values():
            executor.shutdown(wait=False, cancel_futures=True)

    def _check(self, texts: Sequence[str], dimension: int) -> None:
        if not texts:
            raise InvalidInput("texts is empty; give at least one text.")
        if len(texts) > self.limits.texts:
            raise InvalidInput(
                f"texts holds {len(texts)} texts; the limit is {self.limits.texts} a call "
                "(RAGLAN_EMBEDDER_MAX_TEXTS)."
            )
        for number, text in enumerate(texts):
            if not text or text.isspace():
                raise InvalidInput(f"texts[{number}] is empty or white space; nothing to embed.")
            if len(text) > self.limits.chars:
                raise PayloadTooLarge(
                    f"texts[{number}] holds {len(text)} characters; the limit is "
                    f"{self.limits.chars} (RAGLAN_EMBEDDER_MAX_TEXT_CHARS). Split it."
                )
        if dimension > self.model.dimension:
            raise InvalidInput(
                f"dimension is {dimension}; {self.model.id} has {self.model.dimension}."
            )
