"""Conversion of vLLM's outputs to events."""

from __future__ import annotations

from typing import Any

from raglan.deadline import Deadline
from raglan.errors import DeadlineExceeded, Unavailable

from raglan_generator.generation import FinishReason, Usage
from raglan_generator.language_model import End


def end_of(output: Any, tokens: int, deadline: Deadline) -> End:
    """Build the end of an answer from vLLM's last output.

    Args:
        output: a `RequestOutput` that is finished.
        tokens: written in all.
        deadline: at which the request was aborted, if it was.

    Raises:
        DeadlineExceeded: it was.
        Unavailable: it did not come to its own end.
    """
    usage = Usage(len(output.prompt_token_ids), tokens, output.num_cached_tokens or 0)
    return End(_reason(output.outputs[0].finish_reason, deadline), usage, _queue_ns(output))


def _reason(reason: str | None, deadline: Deadline) -> FinishReason:
    match reason:
        case "stop":
            return FinishReason.STOP
        case "length":
            return FinishReason.LENGTH
        case "abort" if not deadline.remaining_s():
            raise DeadlineExceeded("The deadline passed before the answer was whole.")
        case "abort":
            raise Unavailable("The service stops; the answer was not finished.")
        case _:
            raise Unavailable(f"The engine gave the answer up ({reason}); try again.")


def _queue_ns(output: Any) -> int:
    times = output.metrics
    if times is None or not times.scheduled_ts:
        return 0
    waited_s: float = times.scheduled_ts - times.queued_ts
    return max(0, round(waited_s * 1e9))
