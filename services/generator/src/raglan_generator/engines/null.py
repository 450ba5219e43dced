"""Engine `null`: writes numbered words by the clock, at no cost and without a model.

What is left of the service around it is the mesh itself, which can so be measured and rehearsed;
the numbers show how much of an answer has arrived.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator

from raglan.deadline import Deadline
from raglan.errors import DeadlineExceeded
from raglan.health import Health

from raglan_generator.generation import (
    ABSTENTION,
    Citation,
    Delta,
    EngineInfo,
    Event,
    Finished,
    FinishReason,
    Load,
    Request,
    Support,
    Usage,
)


class NullEngine:
    """Answers "word1 word2 ... wordN [1]", a word a token; the marker cites the first passage.

    Args:
        tokens: of an answer whose request allows as many.
        first_token_s: from the request until the first.
        token_s: from each token to the next.
    """

    def __init__(self, *, tokens: int, first_token_s: float = 0.0, token_s: float = 0.0) -> None:
        self._tokens = tokens
        self._first_token_s = first_token_s
        self._token_s = token_s
        self._running = 0

    @property
    def info(self) -> EngineInfo:
        """Named `null`."""
        return EngineInfo(engine="null", model="null", limits={"tokens": self._tokens})

    def load(self) -> Load:
        """Number of running answers; none is ever queued."""
        return Load(running=self._running)

    def health(self) -> Health:
        """Always well."""
        return Health.SERVING

    async def start(self) -> None:
        """Nothing to load."""

    async def close(self) -> None:
        """Nothing to give back."""

    async def generate(self, request: Request, deadline: Deadline) -> AsyncGenerator[Event]:
        """See `Engine.generate`. Abstains without passages."""
        began = time.monotonic()
        deadline.check("the answer was begun")
        if not any(passage.text.strip() for passage in request.passages):
            yield Delta(ABSTENTION)
            yield _finished(FinishReason.ABSTAINED, 0, 0.0)
            return
        tokens = min(self._tokens, request.max_tokens)
        self._running += 1
        try:
            await self._first(request, deadline, began)
            for number in range(1, tokens + 1):
                due = began + self._first_token_s + (number - 1) * self._token_s
                await _until(due, deadline, "The deadline passed before the answer ended.")
                gap, end = " " if number > 1 else "", " [1]" if number == tokens else ""
                yield Delta(f"{gap}word{number}{end}")
        finally:
            self._running -= 1
        first = request.passages[0]
        yield Citation(1, 0, first.text, first.start, first.start + len(first.text))
        whole = tokens == self._tokens
        planned_s = self._first_token_s + (tokens - 1) * self._token_s
        yield _finished(FinishReason.STOP if whole else FinishReason.LENGTH, tokens, planned_s)

    async def _first(self, request: Request, deadline: Deadline, began: float) -> None:
        limit_s = request.first_token_s
        limit = deadline if limit_s is None else deadline.within(limit_s)
        late = (
            "The answer did not begin in time."
            if limit.at < deadline.at
            else "The deadline passed before the answer began."
        )
        await _until(began + self._first_token_s, limit, late)


def _finished(reason: FinishReason, tokens: int, planned_s: float) -> Finished:
    """Report the planned time as computed; any further delay is the mesh's."""
    answered = float(reason is not FinishReason.ABSTAINED)
    return Finished(
        reason=reason,
        usage=Usage(0, tokens),
        support=Support(confidence=answered, groundedness=answered),
        model="null",
        compute_ns=round(planned_s * 1e9),
    )


async def _until(due: float, limit: Deadline, late: str) -> None:
    """Wait until `due` by `time.monotonic()`; raise DeadlineExceeded(late) at `limit` instead."""
    now = time.monotonic()
    if limit.at <= max(due, now):
        await asyncio.sleep(max(0.0, limit.at - now))
        raise DeadlineExceeded(late)
    await asyncio.sleep(max(0.0, due - now))
