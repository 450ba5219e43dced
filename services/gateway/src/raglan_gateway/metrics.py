"""What the gateway counts, in Prometheus' terms."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram

BUCKETS: Final = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120,
)  # fmt: skip


class Metrics:
    """The gateway's metrics in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Histogram(
            "raglan_gateway_request_duration_seconds",
            "Time from a request's arrival to the end of its reply.",
            ("method", "route", "status"),
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.stages = Histogram(
            "raglan_gateway_stage_duration_seconds",
            "Time a query spent in a stage, as the gateway saw it.",
            ("stage",),
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.degraded = Counter(
            "raglan_gateway_degraded_total",
            "Queries for which a stage fell back.",
            ("stage", "fallback"),
            registry=self.registry,
        )
