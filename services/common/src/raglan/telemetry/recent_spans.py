"""The recent spans of a process, by trace, until they are evicted.

They lie here packed, not encoded: encoding and sending a span costs several times what making it
does, and most traces are never read.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from typing import Final

from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

from raglan.telemetry.recording import Packed, RecordedSpan, Tracer
from raglan.telemetry.variables import MAX_SPANS

MAX_SPANS_OF_TRACE: Final = 2_000
MAX_AGE_S: Final = 120.0


class _Trace(list[Packed]):
    """One object a trace, because the garbage collector walks them."""

    __slots__ = ("crowded", "since_ns")

    def __init__(self, since_ns: int, first: Packed) -> None:
        super().__init__((first,))
        self.since_ns = since_ns
        """End of its first span; of its newest once that is too long ago. Nanoseconds."""
        self.crowded = False


class RecentSpans(SpanProcessor):
    """Keeps the newest ended spans. From any thread.

    Args:
        max_spans: past it the oldest trace goes, all of it.
        max_age_s: how long a trace is kept after its newest span.
    """

    def __init__(
        self,
        max_spans: int = MAX_SPANS,
        max_spans_of_trace: int = MAX_SPANS_OF_TRACE,
        max_age_s: float = MAX_AGE_S,
    ) -> None:
        self._max_spans = max_spans
        self._max_spans_of_trace = max_spans_of_trace
        self._max_age_ns = int(max_age_s * 1e9)
        # The oldest first. A dict would look for its first key past all that were taken before it.
        self._traces: OrderedDict[int, _Trace] = OrderedDict()
        self._tracer: Tracer | None = None
        """The tracer of the process."""
        self._lock = threading.Lock()
        self._count = 0
        self.crowded_out = 0
        """Spans that were dropped because their trace had too many."""

    def on_end(self, span: ReadableSpan) -> None:
        """Keep `span`."""
        assert isinstance(span, RecordedSpan), "no other tracer ends its spans here"
        trace_id, ended_ns, packed = span.get_span_context().trace_id, span.end_time, span.packed()
        with self._lock:
            self._tracer = span.tracer
            known = self._traces.get(trace_id)
            if known is None:
                self._forget_old(ended_ns or 0)
                self._traces[trace_id] = _Trace(ended_ns or 0, packed)
            elif len(known) < self._max_spans_of_trace:
                known.append(packed)
            else:
                # What ends last is what all the others are part of.
                del known[0]
                known.append(packed)
                known.crowded = True
                self.crowded_out += 1
                return
            self._count += 1
            while self._count > self._max_spans:
                self._count -= len(self._traces.popitem(last=False)[1])

    def of(self, trace_id: int) -> tuple[tuple[RecordedSpan, ...], bool]:
        """The spans of a trace that are still here, as they ended, and whether it had more."""
        with self._lock:
            self._forget_old(time.time_ns())
            known, tracer = self._traces.get(trace_id), self._tracer
            if known is None or tracer is None:
                return (), False
            spans, crowded = tuple(known), known.crowded
        return tuple(RecordedSpan.unpacked(tracer, trace_id, each) for each in spans), crowded

    def __len__(self) -> int:
        return self._count

    def shutdown(self) -> None:
        """Forget everything."""
        with self._lock:
            self._traces.clear()
            self._count = 0

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Return at once: nothing is buffered."""
        return True

    def _forget_old(self, now_ns: int) -> None:
        horizon = now_ns - self._max_age_ns
        while self._traces:
            trace_id, oldest = next(iter(self._traces.items()))
            if oldest.since_ns > horizon:
                return
            newest_ns = oldest[-1][0]
            if newest_ns > horizon:
                # A long one that still grows: it is as old as its newest span.
                oldest.since_ns = newest_ns
                self._traces.move_to_end(trace_id)
            else:
                self._count -= len(self._traces.pop(trace_id))
