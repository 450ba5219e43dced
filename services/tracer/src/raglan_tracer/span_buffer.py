"""Spans that were sent here, until it is known whether their trace is kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from raglan_tracer.spans import TraceSpans

MAX_SPANS: Final = 20_000
MAX_BYTES: Final = 16 * 1024 * 1024
"""Bytes that they take in memory, about."""

SETTLED_S: Final = 10.0
"""Time for a trace's other spans to come, before it is judged."""

FORGOTTEN_S: Final = 120.0


@dataclass(slots=True, eq=False)
class _Arrived:
    since: float
    spans: TraceSpans
    judged: bool = False


class SpanBuffer:
    """Spans by trace, the oldest first; past the bound the oldest trace goes."""

    def __init__(self, max_spans_of_trace: int, *, clock: Callable[[], float] = time.monotonic):
        self._max_spans_of_trace = max_spans_of_trace
        self._clock = clock
        self._traces: dict[bytes, _Arrived] = {}
        self._count = 0
        self._bytes = 0

    def __len__(self) -> int:
        """Spans held."""
        return self._count

    def add_span(self, resource: Resource, span: Span, cost: int = 0) -> bool:
        """Hold one; False when its ids are none, or its trace has too many."""
        if len(span.trace_id) != 16 or len(span.span_id) != 8:
            return False
        if not any(span.trace_id) or not any(span.span_id):
            return False
        arrived = self._traces.get(span.trace_id)
        if arrived is None:
            arrived = _Arrived(self._clock(), TraceSpans(self._max_spans_of_trace))
            self._traces[span.trace_id] = arrived
            self._bytes += arrived.spans.size
        dropped, size = arrived.spans.dropped, arrived.spans.size
        self._count += arrived.spans.add(resource, span, cost)
        self._bytes += arrived.spans.size - size
        while (self._count > MAX_SPANS or self._bytes > MAX_BYTES) and len(self._traces) > 1:
            self.pop(next(iter(self._traces)))
        return arrived.spans.dropped == dropped

    def of(self, trace_id: bytes) -> TraceSpans | None:
        """Return the buffered spans of a trace."""
        arrived = self._traces.get(trace_id)
        return arrived.spans if arrived else None

    def pop(self, trace_id: bytes) -> TraceSpans | None:
        """Hand over what there is of a trace."""
        if (arrived := self._traces.pop(trace_id, None)) is None:
            return None
        self._count -= len(arrived.spans)
        self._bytes -= arrived.spans.size
        return arrived.spans

    def settled(self) -> Iterator[tuple[bytes, TraceSpans]]:
        """Each trace once, when it is time to judge it. Those long past it are forgotten."""
        now = self._clock()
        for trace_id, arrived in list(self._traces.items()):
            if now - arrived.since > FORGOTTEN_S:
                self.pop(trace_id)
            elif now - arrived.since > SETTLED_S and not arrived.judged:
                arrived.judged = True
                yield trace_id, arrived.spans
