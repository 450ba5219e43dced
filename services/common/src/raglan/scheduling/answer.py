"""A dispatcher's answer with its stage times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from opentelemetry.trace import SpanContext

Result = TypeVar("Result")


class Answer(NamedTuple, Generic[Result]):
    """One item's result and where its time went."""

    result: Result
    queue_ns: int
    """From submission until its batch started."""

    compute_ns: int
    batch_size: int
    batch_tokens: int
    """Padded."""

    batch: SpanContext | None = None
    """The span of the batch, where there is one."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Stage times of one call in nanoseconds; zeros when nothing had to run."""

    queue_ns: int = 0
    """Until its first batch started."""

    compute_ns: int = 0
    """From then until its last batch ended."""

    batch_size: int = 0
    """Items of the largest batch it was in."""

    batch_tokens: int = 0
    """Padded tokens of the largest."""

    batches: tuple[SpanContext, ...] = ()
    """The spans of its batches."""

    @classmethod
    def over(cls, answers: Sequence[Answer[Any]]) -> Timing:
        """Of all `answers` of a call."""
        if not answers:
            return cls()
        first = min(answer.queue_ns for answer in answers)
        return cls(
            queue_ns=first,
            compute_ns=max(answer.queue_ns + answer.compute_ns for answer in answers) - first,
            batch_size=max(answer.batch_size for answer in answers),
            batch_tokens=max(answer.batch_tokens for answer in answers),
            batches=tuple({b.span_id: b for each in answers if (b := each.batch)}.values()),
        )
