"""All replicas of one service behind one call: choice, breakers, retries and hedges.

gRPC's own policies do not suffice: hedging is ignored in Python, least-request is missing, and a
channel never learns of new replicas behind its name. So each replica has a channel of its own and
the choice between them is made here, by power of two choices on calls in flight.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any, Final

import grpc
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception
from tenacity.wait import wait_random_exponential

from raglan.cancel_scope import CancelScope
from raglan.deadline import Deadline
from raglan.errors import (
    DeadlineExceeded,
    Internal,
    NotSupported,
    Overloaded,
    RaglanError,
    Unavailable,
)
from raglan.resilience.budget import Budget
from raglan.resilience.latency import LatencyWindow
from raglan.rpc import client
from raglan.rpc import tracing as rpc_tracing
from raglan.rpc.attempt import Attempt, FellSilent
from raglan.rpc.endpoint import Endpoint
from raglan.rpc.replicas import NoEndpoint, Replicas
from raglan.telemetry import semconv

ATTEMPTS: Final = 3
"""Of one call, hedges not counted."""
RETRY_SHARE: Final = 0.1
RETRY_FLOOR_PER_S: Final = 3.0
HEDGE_SHARE: Final = 0.05
HEDGE_QUANTILE: Final = 0.95
_HEDGE_AT_LEAST_S: Final = 0.01
"""Below it a hedge would race the noise of the machine."""
_KNOWN_S: Final = 600.0
_KNOWN_CALLS: Final = 5
"""A budget that was missed counts against a replica if at least so many calls were answered within
`_KNOWN_S`, 95 % of them in less time than it gives."""

_PAUSE: Final = wait_random_exponential(multiplier=0.025, max=0.25)
"""Full jitter, 25 ms doubling to 250 ms."""


class EndpointPool:
    """Calls to one service. Make it inside a running event loop, and close it.

    Args:
        target: the service's name, e.g. "embedder".
        addresses: see `Addresses.parse`.
        stub: makes the service's stub from a channel.
        on_attempt: called with "first", "retry" or "hedge" for each attempt.

    Raises:
            ValueError: `addresses` cannot be read.
    """

    def __init__(
        self,
        target: str,
        addresses: str,
        stub: Callable[[grpc.aio.Channel], Any],
        *,
        on_attempt: Callable[[str], None] = lambda kind: None,
    ) -> None:
        self.target = target
        self.replicas = Replicas(target, addresses, stub)
        self._says = f"the {target}"
        self._on_attempt = on_attempt
        self.hedges_won = 0
        """Calls that their hedge answered first."""
        self._retries = Budget(RETRY_SHARE, RETRY_FLOOR_PER_S)
        self._hedges = Budget(HEDGE_SHARE)
        self._latency: defaultdict[str, LatencyWindow] = defaultdict(LatencyWindow)
        """Durations of calls, lower bounds of those cut short included."""
        self._answered: defaultdict[str, LatencyWindow] = defaultdict(
            lambda: LatencyWindow(max_age_s=_KNOWN_S, min_samples=_KNOWN_CALLS)
        )
        """Durations of answered calls."""

    async def close(self) -> None:
        """Close every channel."""
        await self.replicas.close()

    @property
    def budgets(self) -> dict[str, Budget]:
        """Budgets of the extra calls by kind."""
        return {"retry": self._retries, "hedge": self._hedges}

    @property
    def available(self) -> bool:
        """True if a call would find a replica."""
        return bool(self.replicas.candidates()[0])

    async def call(
        self,
        method: str,
        request: Any,
        *,
        deadline: Deadline,
        retry: bool = True,
        hedge: bool = False,
    ) -> Any:
        """The reply to a call with one reply.

        Args:
            method: name of the rpc.
            request: the message.
            deadline: limit of the call.
            retry: whether it is sent to another replica where the first could not be reached or
                asks for that: within the retry budget, never past the deadline. Not for calls
                that change something, nor for a stream of messages, which cannot be sent twice.
            hedge: whether a second replica is called when the first takes longer than 95 % of
                calls do. The first answer wins, and the other call is cancelled.

        Raises:
            RaglanError: as `raglan.rpc.client.call`.
        """
        self._retries.request()
        tried: list[Endpoint] = []

        async def once() -> Any:
            if hedge and not tried:
                return await self._hedged(method, request, deadline, tried)
            return await self._attempt(method, request, deadline, tried)

        return await (self._retried(once, deadline, tried) if retry else once())

    async def stream(
        self,
        method: str,
        request: Any,
        *,
        deadline: Deadline,
        first_by: Deadline | None = None,
        gap_s: float | None = None,
    ) -> AsyncGenerator[Any, None]:
        """The replies to a call with many. Retried like `call`, but never after the first reply.

        Args:
            method: name of the rpc.
            request: the message.
            deadline: limit of the call.
            first_by: when the first reply must be there.
            gap_s: longest silence between two replies, in seconds.

        Raises:
            DeadlineExceeded: a limit has passed.
            RaglanError: as `raglan.rpc.client.stream`.
        """
        self._retries.request()
        tried: list[Endpoint] = []
        first_by = first_by or deadline

        async def begin() -> tuple[Attempt, AsyncGenerator[Any, None], Any]:
            return await self._begin(method, request, deadline, first_by, tried, gap_s)

        attempt, replies, first = await self._retried(begin, first_by, tried)
        try:
            async with aclosing(replies):
                yield first
                async for reply in _without_silence(replies, gap_s, self.target):
                    yield reply
        except RaglanError as error:
            # It had counted as a success when it began.
            if permit := attempt.endpoint.breaker.permit():
                attempt.broke_off(error, permit)
            raise
        finally:
            attempt.endpoint.in_flight -= 1

    async def _begin(
        self,
        method: str,
        request: Any,
        deadline: Deadline,
        first_by: Deadline,
        tried: list[Endpoint],
        gap_s: float | None,
    ) -> tuple[Attempt, AsyncGenerator[Any, None], Any]:
        attempt = await self._choose(method, first_by, tried)
        attempt.span.patience(first_by, gap_s)
        replies = client.stream(
            attempt.endpoint.method(method),
            request,
            deadline=deadline,
            to=self._says,
            attempt=attempt.span,
        )
        attempt.endpoint.in_flight += 1
        began = time.monotonic()
        try:
            first = await self._first(replies, first_by)
        except BaseException as error:
            attempt.endpoint.in_flight -= 1
            await replies.aclose()
            attempt.ended(error)
            self._cut_short(attempt, method, time.monotonic() - began, error)
            raise
        self._took(attempt, method, time.monotonic() - began)
        attempt.ended(None)
        return attempt, replies, first

    async def _first(self, replies: AsyncGenerator[Any, None], first_by: Deadline) -> Any:
        try:
            async with asyncio.timeout(first_by.remaining_s()):
                return await anext(replies)
        except TimeoutError:
            raise DeadlineExceeded(f"The {self.target} did not begin in time.") from None
        except StopAsyncIteration:
            raise Internal(f"The {self.target} ended without a word.") from None

    async def _retried(
        self, once: Callable[[], Awaitable[Any]], deadline: Deadline, tried: list[Endpoint]
    ) -> Any:
        def pause(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            asked = error.retry_after_s if isinstance(error, Overloaded) else None
            # What one replica asks for does not bind the others.
            alone = not self._others(tried)
            return max(_PAUSE(state), asked or 0.0) if alone else _PAUSE(state)

        def stop(state: RetryCallState) -> bool:
            error = state.outcome.exception() if state.outcome else None
            return (
                state.attempt_number >= ATTEMPTS
                or state.upcoming_sleep >= deadline.remaining_s()
                # Of what a replica's version does not have, only another one can.
                or (isinstance(error, NotSupported) and not self._others(tried))
                or not self._retries.try_acquire()
            )

        try:
            return await once()
        except RaglanError as error:
            if not _worth_another(error):
                raise
            failed = [error]

        async def again() -> Any:
            # The first attempt is over; only what follows it is worth the 25 us of a retry loop.
            if failed:
                raise failed.pop()
            return await once()

        retrying = AsyncRetrying(
            retry=retry_if_exception(_worth_another), wait=pause, stop=stop, reraise=True
        )
        return await retrying(again)

    async def _hedged(
        self, method: str, request: Any, deadline: Deadline, tried: list[Endpoint]
    ) -> Any:
        self._hedges.request()
        usual_s = self._latency[method].quantile(HEDGE_QUANTILE)
        if usual_s is None or len(self.replicas) < 2:
            return await self._attempt(method, request, deadline, tried)
        attempt = await self._choose(method, deadline, tried)
        hedge: asyncio.Task[Any] | None = None
        others: list[Attempt] = []

        def ask_another() -> None:
            nonlocal hedge
            if self._may_hedge(tried):
                hedge = asyncio.create_task(self._hedge(method, request, deadline, tried, others))
                hedge.add_done_callback(overtake)

        def overtake(ended: asyncio.Task[Any]) -> None:
            if not ended.cancelled() and not ended.exception():
                attempt.overtake()
                waiting.cancel()

        later_s = max(usual_s, _HEDGE_AT_LEAST_S)
        asking = asyncio.get_running_loop().call_later(later_s, ask_another)
        try:
            async with CancelScope() as waiting:
                try:
                    answer = await self._send(attempt, method, request, deadline)
                    _overtake(others)
                    return answer
                except RaglanError:
                    if hedge is None or (hedge.done() and hedge.exception()):
                        raise
            assert hedge is not None
            answer = await hedge
            self.hedges_won += 1
            return answer
        finally:
            asking.cancel()
            if hedge is not None:
                await _abandon(hedge)

    async def _hedge(
        self,
        method: str,
        request: Any,
        deadline: Deadline,
        tried: list[Endpoint],
        sent: list[Attempt],
    ) -> Any:
        attempt = await self._choose(method, deadline, tried, "hedge")
        sent.append(attempt)
        return await self._send(attempt, method, request, deadline)

    def _may_hedge(self, tried: list[Endpoint]) -> bool:
        """Return whether a hedge has another replica and the pool is not under stress."""
        is_panic = self.replicas.candidates()[1]
        stressed = is_panic or self._retries.share_used >= RETRY_SHARE / 2
        return bool(self._others(tried)) and not stressed and self._hedges.try_acquire()

    def _others(self, tried: list[Endpoint]) -> list[Endpoint]:
        """Return the available replicas that were not tried yet."""
        return [each for each in self.replicas.candidates()[0] if each not in tried]

    async def _attempt(
        self, method: str, request: Any, deadline: Deadline, tried: list[Endpoint]
    ) -> Any:
        attempt = await self._choose(method, deadline, tried)
        return await self._send(attempt, method, request, deadline)

    async def _send(self, attempt: Attempt, method: str, request: Any, deadline: Deadline) -> Any:
        endpoint = attempt.endpoint
        endpoint.in_flight += 1
        began = time.monotonic()
        error: BaseException | None = None
        try:
            return await client.call(
                endpoint.method(method),
                request,
                deadline=deadline,
                to=self._says,
                attempt=attempt.span,
            )
        except BaseException as raised:
            error = raised
            raise
        finally:
            endpoint.in_flight -= 1
            attempt.ended(error)
            if error is None:
                self._took(attempt, method, time.monotonic() - began)
            else:
                self._cut_short(attempt, method, time.monotonic() - began, error)

    def _took(self, attempt: Attempt, method: str, seconds: float) -> None:
        self._latency[method].add(seconds)
        self._answered[method].add(seconds)
        attempt.endpoint.latency.add(seconds)

    def _cut_short(
        self, attempt: Attempt, method: str, seconds: float, error: BaseException
    ) -> None:
        """Learn that a call would have taken more than `seconds`; nothing from one in a hurry."""
        missed = isinstance(error, DeadlineExceeded) and attempt.limit.is_budget
        if attempt.overtaken or missed:
            self._latency[method].add(seconds)
            attempt.endpoint.latency.add(seconds)

    async def _choose(
        self, method: str, deadline: Deadline, tried: list[Endpoint], kind: str = ""
    ) -> Attempt:
        endpoint, permit = await self.replicas.choose(tried, deadline)
        kind = kind or ("retry" if tried else "first")
        self._on_attempt(kind)
        tried.append(endpoint)
        usual_s = self._answered[method].quantile(HEDGE_QUANTILE)
        span = rpc_tracing.Attempt(
            {
                semconv.PEER: endpoint.address,
                semconv.ATTEMPT: kind,
                semconv.BREAKER: endpoint.breaker.state.value,
            }
        )
        return Attempt(endpoint, permit, deadline, usual_s, span)


def _worth_another(error: BaseException) -> bool:
    """Return whether another replica or a later attempt may succeed."""
    if isinstance(error, RaglanError) and error.is_final:
        return False
    if isinstance(error, Overloaded):
        return error.retry_after_s is not None
    return isinstance(error, Unavailable | NotSupported) and not isinstance(error, NoEndpoint)


def _overtake(hedges: Sequence[Attempt]) -> None:
    """Mark the hedges as overtaken: the first attempt won, which says nothing about them."""
    for hedge in hedges:
        hedge.span.overtaken()


async def _abandon(attempt: asyncio.Task[Any]) -> None:
    attempt.cancel()
    await asyncio.wait((attempt,))
    if not attempt.cancelled():
        attempt.exception()  # taken note of, so that asyncio does not report it


async def _without_silence(
    replies: AsyncGenerator[Any, None], gap_s: float | None, target: str
) -> AsyncGenerator[Any, None]:
    while True:
        try:
            async with asyncio.timeout(gap_s):
                reply = await anext(replies, None)
        except TimeoutError:
            raise FellSilent(f"The {target} fell silent for {gap_s:g} s.") from None
        if reply is None:
            return
        yield reply
