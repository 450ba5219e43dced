"""Engine `late-interaction`: MaxSim over the token vectors of an ordinary encoder.

For each query token the best match among the passage's tokens, averaged over the query: Khattab and
Zaharia, ColBERT, 2020. Here without training for it, over the model the embedder has anyway; so it
is worth a share of a blend with the retrieval score, and not the whole (docs/decisions/reranking.md
has the figures). Passages' token vectors are kept, 8 bits a value, for the next query that finds
the same passage.
"""

from __future__ import annotations

import asyncio
import threading
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from raglan import tenancy
from raglan.cache import Cache, digest
from raglan.deadline import Deadline
from raglan.encoders.model import EncoderModel
from raglan.encoders.sessions import Run, TokenIds, pad
from raglan.encoders.tokenizer import LocatedIds, Tokenizers
from raglan.errors import Internal
from raglan.health import Health
from raglan.readability import NO_WORDS, credit_between
from raglan.scheduling import Dispatcher, Lane, Pool

from raglan_reranker.engines import MEASURED_PASSAGES, MakeDispatcher, Prepared, Scored

Matrix = NDArray[np.float32]
"""Token vectors of one text, (tokens, dim), rows L2-normalised."""

Encode = Callable[[Sequence[TokenIds]], Sequence[Matrix | Exception]]
"""Token ids of a batch -> token vectors of each text, or why there are none. One caller at a
time."""


@dataclass(frozen=True, slots=True)
class Rounded:
    """Token vectors of a passage in 8 bits a value: `steps * scale` has rows of length 1."""

    steps: NDArray[np.int8]
    scale: NDArray[np.float32]

    @classmethod
    def of(cls, vectors: Matrix) -> Rounded:
        """`vectors`, (tokens, dim), each row rounded to 127 steps either side of 0."""
        largest = np.maximum(np.abs(vectors).max(axis=1, keepdims=True), 1e-12)
        steps = np.rint(vectors * (127 / largest))
        scale = 1 / np.maximum(np.linalg.norm(steps, axis=1), 1.0)
        return cls(steps.astype(np.int8), scale.astype(np.float32))

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.steps.nbytes + self.scale.nbytes


@dataclass(frozen=True, slots=True)
class Passage:
    """Tokens, and their vectors if they are known from an earlier query."""

    tokens: LocatedIds
    key: bytes
    vectors: Rounded | None


class LateInteraction:
    """One encoder behind a queue; query and passages of a call run on all its streams.

    Args:
        streams: token vectors of batches; see `normalising`.
        tokenizers: of the model; see `tokenizers_of`.
        dispatcher: makes the queue before the streams.
        cache_bytes: of passages' token vectors that are kept; 0 keeps none.
    """

    name = "late-interaction"

    def __init__(
        self,
        streams: Sequence[Encode],
        model: EncoderModel,
        tokenizers: Tokenizers,
        *,
        device: str,
        dtype: str,
        dispatcher: MakeDispatcher,
        cache_bytes: float = 0,
    ) -> None:
        self.device = device
        self.dtype = dtype
        self.dimension = model.dimension
        self._prompts = (model.query_prompt, model.passage_prompt)
        self._tokenizers = tokenizers
        self.vectors: Cache[Rounded] = Cache(cache_bytes, lambda each: each.nbytes)
        self._vectors_lock = threading.Lock()
        self._queue: Dispatcher[TokenIds, Matrix] = dispatcher(Pool(streams), device)

    async def start(self, *, deadline: Deadline) -> None:
        """Nothing is left to do: the model was loaded before."""

    def prepare(self, query: str, passages: Sequence[str]) -> Prepared:
        """Tokens of each text, special ones included, and the vectors that are kept."""
        for_query, for_passage = self._prompts
        (asked,) = self._tokenizers.located([for_query + query], start=len(for_query), measured=1)
        tokens = self._tokenizers.located(
            [for_passage + text for text in passages],
            start=len(for_passage),
            measured=MEASURED_PASSAGES,
        )
        keys = [digest(tenancy.current(), text) for text in passages]
        with self._vectors_lock:
            kept = [self.vectors.get(key) for key in keys]
        return Prepared(
            query=asked,
            passages=[Passage(*each) for each in zip(tokens, keys, kept, strict=True)],
            query_tokens=len(asked.ids),
            passage_tokens=[len(each.ids) for each in tokens],
            held=frozenset(i for i, vectors in enumerate(kept) if vectors is not None),
            credit=credit_between(
                asked.readability or NO_WORDS,
                [each.readability for each in tokens if each.readability],
            ),
        )

    def fitting(self, prepared: Prepared, *, deadline: Deadline) -> int:
        """Return the number of passages that fit; those with cached vectors cost nothing."""
        fresh = [at for at in range(len(prepared.passages)) if at not in prepared.held]
        tokens = [prepared.query_tokens, *(prepared.passage_tokens[at] for at in fresh)]
        fit = self._queue.fitting(tokens, deadline=deadline, lane=Lane.INTERACTIVE)
        if fit == 0:
            return 0
        # The query is the first item of the call.
        return fresh[fit - 1] if fit <= len(fresh) else len(prepared.passages)

    async def score(self, prepared: Prepared, count: int, *, deadline: Deadline) -> Scored:
        """Mean over the query's tokens of their best cosine in the passage: -1..1."""
        passages: Sequence[Passage] = prepared.passages[:count]
        asked: LocatedIds = prepared.query
        items = [asked.ids, *(each.tokens.ids for each in passages if each.vectors is None)]
        (query, *fresh), timing = await self._queue.run(
            items, [len(ids) for ids in items], deadline=deadline, lane=Lane.INTERACTIVE
        )
        vectors = await asyncio.to_thread(self._vectors, passages, fresh)
        matched = await asyncio.to_thread(self._match, asked, query, passages, vectors)
        return Scored(np.array([score for score, _ in matched]), timing, [at for _, at in matched])

    def _vectors(self, passages: Sequence[Passage], fresh: Sequence[Matrix]) -> list[Rounded]:
        # Rounded whether cached or not: a score never depends on earlier queries.
        rounded = map(Rounded.of, fresh)
        vectors = [next(rounded) if each.vectors is None else each.vectors for each in passages]
        with self._vectors_lock:
            for passage, found in zip(passages, vectors, strict=True):
                if passage.vectors is None:
                    self.vectors.put(passage.key, found)
        return vectors

    def _match(
        self,
        asked: LocatedIds,
        query: Matrix,
        passages: Sequence[Passage],
        vectors: Sequence[Rounded],
    ) -> list[tuple[float, Sequence[int]]]:
        for_query, for_passage = self._prompts
        words = np.array(asked.starts) >= len(for_query)
        found = []
        for passage, held in zip(passages, vectors, strict=True):
            table = cosines(query, held)
            starts = np.array(passage.tokens.starts) - len(for_passage)
            found.append((_mean_best(table), _places(table[words], starts)))
        return found

    def health(self) -> Health:
        """By forward progress."""
        return self._queue.health()

    async def close(self) -> None:
        """Stop the device threads."""
        await self._queue.close()


def tokenizers_of(model: EncoderModel, passage_tokens: int = 0) -> Tokenizers:
    """Read the tokenizer of `model`: up to seconds, so in a thread.

    Args:
        model: the resolved model.
        passage_tokens: of one text that are read; 0 means all that the model can.
    """
    most = min(model.max_tokens, passage_tokens or model.max_tokens)
    return Tokenizers(model.path, most, (model.query_prompt, model.passage_prompt))


def max_sim(query: Matrix, passages: Sequence[Rounded]) -> NDArray[np.float64]:
    """MaxSim of `query` with each passage, divided by the query's tokens."""
    return np.array([_mean_best(cosines(query, passage)) for passage in passages], np.float64)


def cosines(query: Matrix, passage: Rounded) -> Matrix:
    """Of each token of `query` with each of `passage`."""
    table: Matrix = (query @ passage.steps.T.astype(np.float32)) * passage.scale
    return table


def _mean_best(table: Matrix) -> float:
    return float(table.max(axis=1).mean())


def _places(table: Matrix, starts: NDArray[np.int64]) -> Sequence[int]:
    """Return the offset of the best token for each row; special tokens have -1."""
    ours = np.flatnonzero(starts >= 0)
    if not len(ours):
        return ()
    return array("I", starts[ours[table[:, ours].argmax(axis=1)]].tolist())


def normalising(run: Run) -> Encode:
    """A stream of token vectors over a session's run."""

    def encode(batch: Sequence[TokenIds]) -> list[Matrix | Exception]:
        tokens = run(*pad(batch))
        return [_usable(_unit(row[: len(ids)])) for row, ids in zip(tokens, batch, strict=True)]

    return encode


def _usable(vectors: Matrix) -> Matrix | Internal:
    # Rounded to 8 bits, what is not finite would look like any other vector.
    if np.isfinite(vectors).all():
        return vectors
    return Internal("The model gave token vectors that are not numbers.")


def _unit(vectors: Matrix) -> Matrix:
    unit: Matrix = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return unit
