"""Every span of the process to a collector, by OTLP: on a thread, bounded, and never waited for."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence
from typing import Final

import structlog
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from raglan import tls_trust
from raglan.telemetry import otlp
from raglan.telemetry.recording import RecordedSpan

log: Final = structlog.get_logger()

MAX_WAITING: Final = 8_192
"""Spans that wait for a collector; past it, new ones are dropped."""

_CERTIFICATES: Final = ("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE")
_BATCH: Final = 512
_EVERY_MS: Final = 1_000
_CLOSE_S: Final = 2.0
"""Time a shutdown waits for the collector to accept the remaining spans, in seconds."""


class CollectorExport(SpanProcessor):
    """Hands ended spans to the sdk's batch processor as long as that keeps up.

    A guard, because the sdk's own queue logs a line for each span that it drops, in the thread of
    the request, and waits 30 s at the end for a collector that hangs.

    Args:
        exporter: where they go; by default what the variables `OTEL_EXPORTER_OTLP_*` name.
    """

    def __init__(
        self, exporter: SpanExporter | None = None, max_waiting: int = MAX_WAITING
    ) -> None:
        # It has a line for every attempt; `_Counted` has one for every change.
        logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)
        self._counted = _Counted(exporter or _Otlp())
        self._batches = BatchSpanProcessor(
            self._counted,
            max_queue_size=max_waiting,
            schedule_delay_millis=_EVERY_MS,
            max_export_batch_size=min(_BATCH, max_waiting),
        )
        self._max_waiting = max_waiting
        self._given = 0
        self._lock = threading.Lock()
        self._overflowed = 0

    @property
    def exported(self) -> int:
        """Spans that the collector has taken."""
        return self._counted.exported

    @property
    def dropped(self) -> int:
        """Spans that it never got: the queue was full, or it refused or did not answer."""
        return self._overflowed + self._counted.failed

    @property
    def waiting(self) -> int:
        """Spans in the queue."""
        return self._given - self._counted.taken

    def on_end(self, span: ReadableSpan) -> None:
        """Queue `span`, or drop it; at once either way."""
        with self._lock:
            if self.waiting >= self._max_waiting:
                self._overflowed += 1
                return
            self._given += 1
        self._batches.on_end(span)

    def shutdown(self) -> None:
        """Send what is left, for two seconds at most."""
        closing = threading.Thread(target=self._batches.shutdown, daemon=True)
        closing.start()
        closing.join(_CLOSE_S)
        if closing.is_alive():
            # Else its thread would send and repeat what is left for minutes.
            self._counted.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Send what waits; in the caller's thread, so for tests and the end of a process."""
        return self._batches.force_flush(timeout_millis)


class _Otlp(OTLPSpanExporter):
    """The sdk's exporter with our encoder: its own would cost more than all else of a span."""

    def __init__(self) -> None:
        # Its own variables for a certificate come first.
        named = any(os.environ.get(name) for name in _CERTIFICATES)
        super().__init__(certificate_file=None if named else tls_trust.file())

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        # An ExportTraceServiceRequest has the one field that a TracesData has.
        sent = self._client.export(otlp.encode([s for s in spans if isinstance(s, RecordedSpan)]))
        return SpanExportResult.SUCCESS if sent.success else SpanExportResult.FAILURE


class _Counted(SpanExporter):
    """Counts what becomes of spans, on the one thread that exports, and says so once a change."""

    def __init__(self, inner: SpanExporter) -> None:
        self._inner = inner
        self._works = True
        self.taken = self.exported = self.failed = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.taken += len(spans)
        try:
            result = self._inner.export(spans)
        except Exception:
            log.exception("spans cannot be exported")
            result = SpanExportResult.FAILURE
        works = result is SpanExportResult.SUCCESS
        if works:
            self.exported += len(spans)
        else:
            self.failed += len(spans)
        if works is not self._works:
            self._works = works
            log.info("the collector takes spans again") if works else log.warning(
                "the collector takes no spans; they are dropped until it does"
            )
        return result

    def shutdown(self) -> None:
        self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._inner.force_flush(timeout_millis)
