"""Metrics of the tracer, read at each scrape."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from raglan_tracer.receiver import Receiver
from raglan_tracer.recorder import TraceRecorder


def families(traces: TraceRecorder, receiver: Receiver) -> Iterator[Metric]:
    """The families of one scrape."""
    kept = CounterMetricFamily(
        "raglan_traces_kept", "Traces kept, by the first reason for it.", labels=("reason",)
    )
    for reason, count in traces.kept.items():
        kept.add_metric((reason,), count)
    dropped = CounterMetricFamily(
        "raglan_traces_dropped",
        "Traces that should be kept and are not: too many a second, too many at a time, or "
        "the file would not take them.",
        labels=("cause",),
    )
    for cause, count in (
        ("rate", traces.sampler.refused),
        ("crowded", traces.dropped),
        ("store", traces.store.dropped),
    ):
        dropped.add_metric((cause,), count)
    received = CounterMetricFamily(
        "raglan_trace_spans_received",
        "Spans that were sent here by OTLP, taken in or refused.",
        labels=("outcome",),
    )
    received.add_metric(("accepted",), receiver.accepted)
    received.add_metric(("refused",), receiver.refused)
    waiting = GaugeMetricFamily(
        "raglan_traces_waiting", "Traces whose spans are still being collected."
    )
    waiting.add_metric((), traces.waiting)
    yield from (kept, dropped, received, waiting)
