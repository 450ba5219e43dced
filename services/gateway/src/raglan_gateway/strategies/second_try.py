"""The second try: another search where the first answer abstained, or is of low confidence.

It runs once, within what is left of the deadline. The better answer is kept; whatever goes wrong,
the first stands.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Final, Literal, TypeVar

import structlog
from raglan.errors import DeadlineExceeded, Internal, RaglanError
from raglan.telemetry import semconv, tracing
from raglan.v1 import common_pb2, generator_pb2, retriever_pb2

from raglan_gateway.degradation import FALLBACK
from raglan_gateway.query_state import Degradation, QueryState
from raglan_gateway.strategies.strategy import SecondTry

_LEXICAL: Final = retriever_pb2.SEARCH_MODE_LEXICAL

log: Final = structlog.get_logger()

Event = TypeVar("Event")
Reason = Literal["", "abstained", "low_confidence"]


def reason_for(run: QueryState) -> Reason:
    """Return why the answer of `run` deserves a second try; empty where it does not."""
    query, finished = run.query, run.finished
    if query.second_try is SecondTry.NONE or any(d.stage == "generate" for d in run.degraded):
        return ""
    if query.second_try is SecondTry.LEXICAL and query.mode == _LEXICAL:
        return ""
    if finished.reason == generator_pb2.FINISH_REASON_ABSTAINED:
        return "abstained"
    if finished.reason == generator_pb2.FINISH_REASON_CONTENT_FILTER:
        return ""
    return "low_confidence" if finished.confidence < query.second_try_below else ""


async def answer_twice(
    first: QueryState,
    answer: Callable[[QueryState], AsyncGenerator[Event, None]],
    find: Callable[[QueryState], Awaitable[None]],
) -> tuple[QueryState, list[Event]]:
    """Answer, and where that is poor, search and answer again.

    Args:
        first: has its passages.
        answer: yields the events of an answer.
        find: finds the passages of a second run.

    Returns:
        The run whose answer is kept, and its events, which nobody has seen yet.

    Raises:
        RaglanError: the first answer failed.
    """
    events = await _all(answer(first))
    if not (reason := reason_for(first)):
        return first, events
    try:
        with first.stage("second_try"):
            second = _begun(first, reason)
            await find(second)
            first.degraded += [each for each in second.degraded if each.stage == "strategy"]
            if _is_pointless(first, second):
                return first, events
            others = await _all(answer(second))
    # There is an answer: it has to do, whatever happened, and even if the time is up.
    except RaglanError as error:
        return _kept_first(first, error), events
    except Exception:
        log.exception("unexpected error in a second try")
        return _kept_first(first, Internal("The gateway met an error of its own.")), events
    kept = better(first, second)
    tracing.current().set_attribute(semconv.SECOND_TRY_HELPED, kept is second)
    return kept, others if kept is second else events


def _kept_first(first: QueryState, error: RaglanError) -> QueryState:
    first.note(Degradation("second_try", error.message, FALLBACK["second_try"]))
    return first


async def _all(events: AsyncGenerator[Event, None]) -> list[Event]:
    async with aclosing(events):
        return [event async for event in events]


def _begun(first: QueryState, reason: str) -> QueryState:
    """Return the state of a second run.

    Raises:
        DeadlineExceeded: less time is left than the first took.
    """
    query, left_s = first.query, first.deadline.remaining_s()
    taken_s = time.monotonic() - first.started
    if left_s < taken_s:
        raise DeadlineExceeded(
            f"{max(0.0, left_s) * 1e3:.0f} ms are left; the first try took {taken_s * 1e3:.0f} ms."
        )
    first.strategy.second_try, first.strategy.reason = query.second_try, reason
    tracing.current().set_attributes(
        {semconv.STRATEGY: query.second_try.value, semconv.SECOND_TRY_REASON: reason}
    )
    # What the query has to do without was noted of the first run.
    second = QueryState(
        replace(query, missing=()), first.deadline, first.observer, started=first.started
    )
    second.timings_ms["admit"] = first.timings_ms.get("admit", 0.0)
    second.asked, second.search_texts = first.asked, list(first.search_texts)
    second.embedded = first.embedded
    # The tokens of both runs are one sum, whichever answer is kept.
    second.strategy = replace(first.strategy)
    if query.second_try is SecondTry.LEXICAL:
        second.searched = replace(second.searched, mode=_LEXICAL)
        second.search_texts = [
            replace(each, mode=_LEXICAL, embedded=None)
            for each in first.search_texts
            if each.mode != retriever_pb2.SEARCH_MODE_DENSE
        ]
    return second


def _is_pointless(first: QueryState, second: QueryState) -> bool:
    """Return whether the second run would be answered as the first was."""
    return [_place(p) for p in first.passages] == [_place(p) for p in second.passages]


def better(first: QueryState, second: QueryState) -> QueryState:
    """Return the run whose answer is kept."""
    helps = (
        second.finished.reason != generator_pb2.FINISH_REASON_ABSTAINED
        and not any(d.stage == "generate" for d in second.degraded)
        and (
            first.finished.reason == generator_pb2.FINISH_REASON_ABSTAINED
            or second.finished.confidence > first.finished.confidence
        )
    )
    kept, other = (second, first) if helps else (first, second)
    kept.strategy.helped = helps
    kept.strategy.spent(other.finished.usage)
    kept.degraded.extend(each for each in other.degraded if each not in kept.degraded)
    kept.timings_ms["second_try"] = first.timings_ms["second_try"]
    return kept


def _place(passage: common_pb2.Passage) -> tuple[str, str, int, int]:
    return passage.collection, passage.chunk_id, passage.start, passage.end
