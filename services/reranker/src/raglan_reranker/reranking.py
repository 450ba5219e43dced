"""A query and what retrieval found, to a better order of as much of it as time and tokens allow."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from raglan.deadline import Deadline
from raglan.encoders.queue import Timing
from raglan.errors import InvalidInput, PayloadTooLarge

from raglan_reranker.budget import affordable, blend
from raglan_reranker.engines import Engine
from raglan_reranker.latency import LatencyModel


@dataclass(frozen=True, slots=True)
class Candidate:
    """A passage as retrieval scored it: any scale, higher is better."""

    text: str
    retrieval_score: float


@dataclass(frozen=True, slots=True)
class Ranked:
    """A candidate that was scored."""

    index: int
    score: float
    """Blended; what to sort by."""

    raw_score: float
    """The model's own."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """Best first; candidates that are missing keep their order below."""

    ranked: list[Ranked]
    tokenize_ns: int
    timing: Timing


@dataclass(frozen=True, slots=True)
class Limits:
    """What a call may hold, and what may be spent on it."""

    candidates: int
    chars: int
    scored: int
    tokens: int
    margin_s: float
    """Kept back for the way home."""


SHARE_OF_TIME = 2 / 3
"""Of the time that is left, what may be planned: the machine may be busier than it has been, and a
candidate less costs little, while a deadline missed costs the whole order."""

_WARM_UP_CANDIDATES = 20
_NOTHING_RUN = Timing(queue_ns=0, compute_ns=0, batch_size=0, batch_tokens=0)


class Reranker:
    """One engine and its budget. Belongs to one event loop; `close` it."""

    def __init__(
        self, engine: Engine, *, limits: Limits, share: float, latency: LatencyModel
    ) -> None:
        """Args:
        share: of the model's score in the blend, 0..1.
        latency: what tokens cost on this machine, kept up to date here.
        """
        self.engine = engine
        self.limits = limits
        self._share = share
        self._latency = latency
        self._tokenizing = ThreadPoolExecutor(1, "tokenize")

    async def rerank(
        self, query: str, candidates: Sequence[Candidate], *, deadline: Deadline
    ) -> Ranking:
        """Score candidates from the top, as many as count, tokens and deadline allow.

        Raises:
            InvalidInput: nothing to score, or a limit passed; the message names it.
            Overloaded: the queue has no room.
            DeadlineExceeded: the time ran out in the middle.
        """
        self._check(query, candidates)
        started_ns = time.monotonic_ns()
        prepared = await asyncio.get_running_loop().run_in_executor(
            self._tokenizing,
            self.engine.prepare,
            query,
            [candidate.text for candidate in candidates[: self.limits.scored]],
        )
        tokenize_ns = time.monotonic_ns() - started_ns
        left_s = SHARE_OF_TIME * (deadline.remaining_s() - self.limits.margin_s)
        count = affordable(
            prepared.query_tokens,
            prepared.passage_tokens,
            count=self.limits.scored,
            tokens=min(self.limits.tokens, self._latency.tokens_within(left_s)),
        )
        if count == 0:
            return Ranking([], tokenize_ns, _NOTHING_RUN)
        submitted_ns = time.monotonic_ns()
        scores, timing = await self.engine.score(prepared, count, deadline=deadline)
        tokens = prepared.query_tokens + sum(prepared.passage_tokens[:count])
        self._latency.observe(tokens, (time.monotonic_ns() - submitted_ns) / 1e9)
        retrieval = np.array([each.retrieval_score for each in candidates[:count]], np.float64)
        blended = blend(scores, retrieval, self._share)
        ranked = [Ranked(i, float(blended[i]), float(scores[i])) for i in range(count)]
        ranked.sort(key=lambda each: (-each.score, each.index))
        return Ranking(ranked, tokenize_ns, timing)

    async def warm_up(self, *, deadline: Deadline) -> None:
        """Score calls of several sizes: first runs are slow, and the latency model learns."""
        for words in (1, 20, 60, 120, 120):
            text = "warm " * words
            candidates = [Candidate(text, 0.0)] * min(self.limits.scored, _WARM_UP_CANDIDATES)
            await self.rerank("warm up", candidates, deadline=deadline)

    async def close(self) -> None:
        """Stop the threads."""
        await self.engine.close()
        self._tokenizing.shutdown(wait=False, cancel_futures=True)

    def _check(self, query: str, candidates: Sequence[Candidate]) -> None:
        limits = self.limits
        if not query or query.isspace():
            raise InvalidInput("query is empty or white space; nothing to rank by.")
        if not candidates:
            raise InvalidInput("candidates is empty; give at least one.")
        if len(candidates) > limits.candidates:
            raise InvalidInput(
                f"candidates holds {len(candidates)}; the limit is {limits.candidates} a call "
                "(RAGLAN_RERANKER_MAX_CANDIDATES)."
            )
        texts = [("query", query)]
        texts += [(f"candidates[{i}].text", each.text) for i, each in enumerate(candidates)]
        for name, text in texts:
            if len(text) > limits.chars:
                raise PayloadTooLarge(
                    f"{name} holds {len(text)} characters; the limit is {limits.chars} "
                    "(RAGLAN_RERANKER_MAX_TEXT_CHARS)."
                )
        for number, candidate in enumerate(candidates):
            if not math.isfinite(candidate.retrieval_score):
                raise InvalidInput(
                    f"candidates[{number}].retrieval_score is {candidate.retrieval_score}; "
                    "it must be a finite number."
                )
