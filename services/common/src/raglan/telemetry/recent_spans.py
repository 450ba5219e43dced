"""The spans that a process has made lately, by trace, for who asks before they are forgotten.

They lie here as objects: encoding and sending a span costs twenty times what making it does, and
most traces are never read.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Final

from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

from raglan.telemetry.recording import RecordedSpan

MAX_SPANS: Final = 20_000
"""About 12 s of a gateway under 250 requests/s, and some 20 MB."""

MAX_SPANS_OF_TRACE: Final = 2_000
MAX_AGE_S: Final = 120.0


@dataclass(slots=True)
class _Trace:
    since_ns: int
    """When its first span ended; once that is too long ago, its newest then."""
    spans: list[RecordedSpan]
    crowded: bool = False


class RecentSpans(SpanProcessor):
    """Keeps the newest ended spans. From any thread."""

    def __init__(
        self,
        max_spans: int = MAX_SPANS,
        max_spans_of_trace: int = MAX_SPANS_OF_TRACE,
        max_age_s: float = MAX_AGE_S,
    ) -> None:
        """Args:
        max_spans: past it the oldest trace goes, all of it.
        max_age_s: how long a trace is kept after its newest span.
        """
        self._max_spans = max_spans
        self._max_spans_of_trace = max_spans_of_trace
        self._max_age_ns = int(max_age_s * 1e9)
        self._traces: dict[int, _Trace] = {}  # the oldest first
        self._lock = threading.Lock()
        self._count = 0
        self.crowded_out = 0
        """Spans that were dropped because their trace had too many."""

    def on_end(self, span: ReadableSpan) -> None:
        """Keep `span`."""
        assert isinstance(span, RecordedSpan), "no other tracer ends its spans here"
        trace_id = span.get_span_context().trace_id
        with self._lock:
            known = self._traces.get(trace_id)
            if known is None:
                ended_ns = span.end_time or 0
                self._forget_old(ended_ns)
                self._traces[trace_id] = _Trace(ended_ns, [span])
            elif len(known.spans) < self._max_spans_of_trace:
                known.spans.append(span)
            else:
                # What ends last is what all the others are part of.
                del known.spans[0]
                known.spans.append(span)
                known.crowded = True
                self.crowded_out += 1
                return
            self._count += 1
            while self._count > self._max_spans:
                self._forget(next(iter(self._traces)))

    def of(self, trace_id: int) -> tuple[tuple[RecordedSpan, ...], bool]:
        """The spans of a trace that are still here, as they ended, and whether it had more."""
        with self._lock:
            self._forget_old(time.time_ns())
            known = self._traces.get(trace_id)
            return (tuple(known.spans), known.crowded) if known else ((), False)

    def __len__(self) -> int:
        return self._count

    def shutdown(self) -> None:
        """Forget everything."""
        with self._lock:
            self._traces.clear()
            self._count = 0

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing is on its way anywhere."""
        return True

    def _forget_old(self, now_ns: int) -> None:
        horizon = now_ns - self._max_age_ns
        while self._traces:
            trace_id, oldest = next(iter(self._traces.items()))
            if oldest.since_ns > horizon:
                return
            newest_ns = oldest.spans[-1].end_time or 0
            if newest_ns > horizon:
                # A long one that still grows: it is as old as its newest span.
                oldest.since_ns = newest_ns
                self._traces[trace_id] = self._traces.pop(trace_id)
            else:
                self._forget(trace_id)

    def _forget(self, trace_id: int) -> None:
        self._count -= len(self._traces.pop(trace_id).spans)
