"""A query and what retrieval found, to a better order of as much of it as time and tokens allow."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from raglan import tenancy
from raglan.cache import Cache, digest
from raglan.deadline import Deadline
from raglan.errors import (
    DeadlineExceeded,
    Internal,
    InvalidInput,
    Overloaded,
    PayloadTooLarge,
    RaglanError,
    Unavailable,
)
from raglan.scheduling import Timing
from raglan.telemetry import tracing

from raglan_reranker.budget import affordable, blend, mixed, within_gap
from raglan_reranker.calibration import LOG_ODDS_SPREAD, Calibration, Clamped
from raglan_reranker.engines import Engine, Prepared, Scored


class Candidate(NamedTuple):
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

    calibrated: float | None
    """Relevance of the passage, 0..1, whatever stands beside it; see `calibration`."""

    matches: Sequence[int] = ()
    """Offsets in the passage, in characters, of the best match of each query token; empty
    where the engine does not report them."""


class Pair(NamedTuple):
    """A query and a passage to score."""

    score: float
    matches: Sequence[int]


@dataclass(frozen=True, slots=True)
class Ranking:
    """Best first; candidates that are missing keep their order below."""

    ranked: list[Ranked]
    tokenize_ns: int
    timing: Timing
    unreadable: bool = False
    """The model does not read the language of these texts, so nothing was scored."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a call and its budget."""

    candidates: int
    chars: int
    scored: int
    tokens: int
    gap: float = math.inf
    """Standard deviations a retrieval score may lie below the best; past it, nothing is scored."""


_WARM_UP_CANDIDATES = 20


class Reranker:
    """One engine and its budget. Belongs to one event loop; `close` it.

    Args:
        share: of the model's score in the blend, 0..1.
        pairs: what is known of pairs already seen; without it, each is scored every time.
        identity: what a score depends on other than the two texts: model, revision, precision.
        calibration: of the model's scores; without it, replies hold no calibrated ones.
        is_absolute: whether the order follows what a score says by itself, by `calibration`,
            and not how it compares to the others of the call.
        looked_up: called with each call's cache hits and misses.
        tokenized: called with each call's tokenising time in seconds.
        ranked: called with the number of scored and of offered candidates of each call.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        limits: Limits,
        share: float,
        pairs: Cache[Pair] | None = None,
        identity: Sequence[str] = (),
        calibration: Calibration | Clamped | None = None,
        is_absolute: bool = False,
        looked_up: Callable[[int, int], None] = lambda hits, misses: None,
        tokenized: Callable[[float], None] = lambda seconds: None,
        ranked: Callable[[int, int], None] = lambda scored, offered: None,
    ) -> None:
        self.engine = engine
        self.limits = limits
        self.pairs: Cache[Pair] = pairs if pairs is not None else Cache(0)
        self._share = share
        self._identity = tuple(identity)
        self._calibration = calibration
        self._is_absolute = is_absolute
        self._looked_up = looked_up
        self._tokenized = tokenized
        self._told_ranked = ranked
        self._tokenizing = ThreadPoolExecutor(1, "tokenize")

    async def rerank(
        self, query: str, candidates: Sequence[Candidate], *, deadline: Deadline
    ) -> Ranking:
        """Score candidates from the top, as many as count, gap, tokens and deadline allow.

        At least the first is scored or the call fails: an order that no score went into is not
        passed off as the model's.

        Nothing is scored where the model does not read the language of the texts; where it reads
        it in part, its share of the order is smaller. What is known already counts as tokens, so
        that the order does not depend on the cache, but not as time.

        Raises:
            InvalidInput: nothing to score, or a limit passed; the message names it.
            Overloaded: the queue has no room, or there is no time for a single candidate.
            DeadlineExceeded: the time ran out in the middle.
            Internal: the model gave scores that are not numbers.
        """
        self._check(query, candidates)
        offered = candidates[: self.limits.scored]
        retrieval = np.array([each.retrieval_score for each in offered], np.float64)
        texts = [each.text for each in offered[: within_gap(retrieval, self.limits.gap)]]
        started_ns = time.monotonic_ns()
        prepared, keys = await asyncio.get_running_loop().run_in_executor(
            self._tokenizing, copy_context().run, self._prepare, query, texts
        )
        tokenize_ns = time.monotonic_ns() - started_ns
        self._tokenized(tokenize_ns / 1e9)
        if prepared.credit <= 0:
            self._told_ranked(0, len(candidates))
            return Ranking([], tokenize_ns, Timing(), unreadable=True)
        count = affordable(
            prepared.query_tokens,
            prepared.passage_tokens,
            count=len(texts),
            tokens=self.limits.tokens,
        )
        count = max(count, 1)
        known = [self.pairs.get(key) for key in keys[:count]]
        unknown = known.count(None)
        self._looked_up(len(known) - unknown, unknown)
        tracing.looked_up("scores", len(known) - unknown, unknown)
        try:
            found, timing = await self._pairs(prepared, known, deadline)
        except RaglanError:
            self._told_ranked(0, len(candidates))
            raise
        self._told_ranked(len(found), len(candidates))
        for key, pair in zip(keys, found, strict=False):
            self.pairs.put(key, pair)
        share = self._share * prepared.credit
        return Ranking(self._ranked(found, retrieval, share), tokenize_ns, timing)

    def _prepare(self, query: str, texts: Sequence[str]) -> tuple[Prepared, list[bytes]]:
        # Neither time nor depth of a ranking may tell a tenant what another one has asked.
        owner = tenancy.current()
        keys = [digest(owner, *self._identity, query, text) for text in texts]
        return self.engine.prepare(query, texts), keys

    async def _pairs(
        self, prepared: Prepared, known: Sequence[Pair | None], deadline: Deadline
    ) -> tuple[list[Pair], Timing]:
        """Pairs from the top, as many as there is time for; those `known` need none.

        Where the first is not known it is tried in any case: the queue refuses it where it is sure
        to be late, and an estimate that is wrong is unlearnt.
        """
        missing = [at for at, pair in enumerate(known) if pair is None]
        if not missing:
            return [pair for pair in known if pair is not None], Timing()
        fit = self.engine.fitting(prepared.only(missing), deadline=deadline)
        if missing[0] == 0:
            fit = max(fit, 1)
        count = missing[fit] if fit < len(missing) else len(known)
        timing = Timing()
        fresh: list[Pair] = []
        if fit:
            wanted = prepared.only(missing[:fit])
            scored = await self.engine.score(wanted, fit, deadline=deadline)
            fresh, timing = _fresh(scored), scored.timing
        others = iter(fresh)
        return [next(others) if pair is None else pair for pair in known[:count]], timing

    def _ranked(
        self, pairs: Sequence[Pair], retrieval: NDArray[np.float64], share: float
    ) -> list[Ranked]:
        scores = np.array([pair.score for pair in pairs], np.float64)
        if self._is_absolute and self._calibration is not None:
            heights = self._calibration.log_odds(scores) / LOG_ODDS_SPREAD
            blended = mixed(heights, retrieval, share)
        else:
            blended = blend(scores, retrieval, share)
        chances: Sequence[float | None] = [None] * len(scores)
        if self._calibration is not None:
            chances = self._calibration.probabilities(scores).tolist()
        ranked = [
            Ranked(
                index, score=score, raw_score=pair.score, calibrated=chance, matches=pair.matches
            )
            for index, (score, pair, chance) in enumerate(
                zip(blended.tolist(), pairs, chances, strict=True)
            )
        ]
        return sorted(ranked, key=lambda each: (-each.score, each.index))

    async def warm_up(self, *, deadline: Deadline) -> None:
        """Score calls of several sizes: first runs are slow, and the queue learns the speed.

        Raises:
            Unavailable: they did not end in time; the message says what to change.
        """
        try:
            for number, words in enumerate((1, 20, 60, 120, 120)):
                # No two calls alike: what is known already would not be run.
                text = f"{number} " + "warm " * words
                candidates = [Candidate(text, 0.0)] * min(self.limits.scored, _WARM_UP_CANDIDATES)
                await self.rerank("warm up", candidates, deadline=deadline)
        except (DeadlineExceeded, Overloaded):
            raise Unavailable(
                f"The first runs of the model did not end in time, with {_WARM_UP_CANDIDATES} "
                "candidates of 120 words. Spend less on a call (RAGLAN_RERANKER_MAX_TOKENS), or "
                "take a faster device, precision or model."
            ) from None

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


def _fresh(scored: Scored) -> list[Pair]:
    if not np.isfinite(scored.scores).all():
        raise Internal("The model gave scores that are not numbers.")
    return [
        Pair(score, matches)
        for score, matches in zip(scored.scores.tolist(), scored.matches, strict=True)
    ]
