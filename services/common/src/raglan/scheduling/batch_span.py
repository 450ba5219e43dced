"""The span of a batch that ran on a device."""

from __future__ import annotations

import time
from collections.abc import Sequence

from opentelemetry.trace import SpanContext

from raglan.scheduling.work import Batch
from raglan.telemetry import semconv, tracing


def record(
    batch: Batch,
    asked_by: Sequence[SpanContext | None],
    interval_ns: tuple[int, int],
    error: Exception | None,
) -> SpanContext | None:
    """In the trace of its first request, with links to all of them; None without tracing.

    Args:
        batch: the batch that ran.
        asked_by: for each item that was run, the span of its request.
        interval_ns: on the clock of `time.monotonic_ns`, as a stream's thread measured it.
        error: failure of the batch, or None.
    """
    requests = list({each.span_id: each for each in asked_by if each is not None}.values())
    if not requests:
        return None
    since = time.time_ns() - time.monotonic_ns()
    return tracing.record(
        semconv.BATCH,
        {
            semconv.BATCH_SIZE: len(asked_by),
            semconv.BATCH_TOKENS: batch.padded_tokens,
            semconv.BATCH_CLOSED: batch.closed.value,
            semconv.BATCH_REQUESTS: len(requests),
            semconv.LANE: batch.lane.name.lower(),
        },
        parent=requests[0],
        links=requests,
        interval_ns=(since + interval_ns[0], since + interval_ns[1]),
        error=error,
    )
