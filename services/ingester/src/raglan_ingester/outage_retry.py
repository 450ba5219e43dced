"""Retries through an outage: one clock for all callers of a service."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from raglan.errors import DeadlineExceeded, Overloaded, RaglanError, Unavailable, wire
from raglan.telemetry import semconv, tracing
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type
from tenacity.wait import wait_random_exponential

T = TypeVar("T")

TRANSIENT: Final = (Unavailable, Overloaded, DeadlineExceeded)
_MAX_PAUSE_S: Final = 5.0

UNSEEN_S: Final = 90.0
"""Longer than a call and the pause after it may take, so than any two failures of an outage lie
apart while someone waits for its end."""


class OutageRetry:
    """Repeats calls that fail for the time being, until the callee has been away for `limit_s`.

    The clock is shared: when one call finds the callee gone for too long, the calls after it try
    once and give up, so that a job of 10,000 documents does not wait 10,000 times. It is wound
    back by the first success, by the cancellation of the only caller, and where no call failed for
    `UNSEEN_S`: its state in between is unknown.
    """

    def __init__(self, limit_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit_s = limit_s
        self._clock = clock
        self._away_since: float | None = None
        self._failed_at = 0.0
        """Time of the last failure."""
        self._callers = 0
        self._backoff = wait_random_exponential(multiplier=0.1, max=_MAX_PAUSE_S)

    async def call(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """The result of `attempt`, however many tries it takes.

        Raises:
            RaglanError: what the last try raised; at once, when no further try can help.
        """

        async def once() -> T:  # tenacity awaits only what it sees to be a coroutine function
            return await attempt()

        retrying = AsyncRetrying(
            retry=retry_if_exception_type(TRANSIENT),
            stop=self._gone_for_too_long,
            wait=self._pause,
            before_sleep=_note,
            reraise=True,
        )
        self._callers += 1
        try:
            result: T = await retrying(once)
        except asyncio.CancelledError:
            if self._callers == 1:
                self._away_since = None
            raise
        finally:
            self._callers -= 1
        self._away_since = None
        return result

    def _gone_for_too_long(self, _: RetryCallState) -> bool:
        now = self._clock()
        if self._away_since is None or now - self._failed_at > UNSEEN_S:
            self._away_since = now
        self._failed_at = now
        return now - self._away_since >= self._limit_s

    def _pause(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = error.retry_after_s if isinstance(error, RaglanError) else None
        return max(self._backoff(state), min(asked or 0.0, _MAX_PAUSE_S))


def _note(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    why = wire(error).type if isinstance(error, RaglanError) else ""
    tracing.current().add_event(semconv.RETRY, {semconv.ERROR_TYPE: why})
