"""Stage times of a call, returned to the caller and recorded on its span."""

from __future__ import annotations

from raglan.scheduling import Timing
from raglan.telemetry import semconv, tracing
from raglan.v1 import common_pb2


def record_timing(timing: Timing, *, tokenize_ns: int = 0) -> common_pb2.Timing:
    """Record `timing` on the current span and convert it for the reply."""
    span = tracing.current()
    own = span.get_span_context().trace_id
    for batch in timing.batches:
        if batch.trace_id != own:  # of one that runs in another request's trace
            span.add_link(batch)
    span.set_attributes(
        {
            semconv.QUEUE_MS: round(timing.queue_ns / 1e6, 3),
            semconv.TOKENIZE_MS: round(tokenize_ns / 1e6, 3),
            semconv.COMPUTE_MS: round(timing.compute_ns / 1e6, 3),
            semconv.BATCH_SIZE: timing.batch_size,
            semconv.BATCH_TOKENS: timing.batch_tokens,
        }
    )
    return common_pb2.Timing(
        queue_ns=timing.queue_ns,
        tokenize_ns=tokenize_ns,
        compute_ns=timing.compute_ns,
        batch_size=timing.batch_size,
        batch_tokens=timing.batch_tokens,
    )
