"""Metrics of spans: kept, evicted and exported by this process."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from raglan.telemetry import tracing


def register(registry: CollectorRegistry) -> None:
    """Show them in `registry`."""
    registry.register(SpanCollector())


class SpanCollector(Collector):
    """Reads what the process traces with at each scrape."""

    def collect(self) -> Iterator[Metric]:
        """The families of one scrape."""
        traces = tracing.installed()
        kept = GaugeMetricFamily(
            "raglan_recent_spans", "Spans kept in memory for who asks for their trace."
        )
        kept.add_metric((), len(traces.recent))
        sent = CounterMetricFamily(
            "raglan_spans_exported_total",
            "Spans that a collector has taken (OTEL_EXPORTER_OTLP_*).",
        )
        sent.add_metric((), traces.export.exported if traces.export else 0)
        dropped = CounterMetricFamily(
            "raglan_spans_dropped_total",
            "Spans let go of: crowded (too many in one trace), collector (it was full, away or "
            "refused them).",
            labels=("reason",),
        )
        dropped.add_metric(("crowded",), traces.recent.crowded_out)
        dropped.add_metric(("collector",), traces.export.dropped if traces.export else 0)
        yield from (kept, sent, dropped)
