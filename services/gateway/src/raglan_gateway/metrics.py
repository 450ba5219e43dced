"""What the gateway counts, in Prometheus' terms."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from raglan_gateway.mesh import Mesh
from raglan_gateway.pipeline import Pipeline

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
        self.attempts = Counter(
            "raglan_gateway_attempts_total",
            "Calls that left for a service: first ones, retries and hedges.",
            ("service", "kind"),
            registry=self.registry,
        )
        Gauge(
            "raglan_gateway_tasks", "Tasks of the gateway's event loop.", registry=self.registry
        ).set_function(lambda: len(asyncio.all_tasks()))

    def attempted(self, service: str, kind: str) -> None:
        """One more call left."""
        self.attempts.labels(service, kind).inc()

    def watch(self, mesh: Mesh, pipeline: Pipeline) -> None:
        """Show what `mesh` and `pipeline` are like at each scrape."""
        self.registry.register(_State(mesh, pipeline))


class _State(Collector):
    """What is read when it is asked for rather than counted."""

    def __init__(self, mesh: Mesh, pipeline: Pipeline) -> None:
        self._mesh = mesh
        self._pipeline = pipeline

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The families of one scrape."""
        replicas = ("service", "address")
        breaker = GaugeMetricFamily(
            "raglan_breaker_state",
            "1 for the state that a replica's breaker is in.",
            labels=(*replicas, "state"),
        )
        reach = GaugeMetricFamily(
            "raglan_endpoint_state", "1 for the state of a replica.", labels=(*replicas, "state")
        )
        in_flight = GaugeMetricFamily(
            "raglan_endpoint_in_flight", "Calls in hand at a replica.", labels=replicas
        )
        for seen in self._mesh.seen():
            breaker.add_metric((seen.service, seen.address, seen.breaker), 1)
            reach.add_metric((seen.service, seen.address, seen.state), 1)
            in_flight.add_metric((seen.service, seen.address), seen.in_flight)
        yield from (breaker, reach, in_flight)
        limiters = {"door": self._pipeline.door} | {
            stage.name: stage.limiter for stage in self._pipeline.stages
        }
        for name, says in (
            ("limit", "Queries that may be in a stage at a time."),
            ("running", "Queries in a stage."),
            ("waiting", "Queries that wait for a stage."),
        ):
            family = GaugeMetricFamily(f"raglan_limiter_{name}", says, labels=("stage",))
            for stage, limiter in limiters.items():
                family.add_metric((stage,), getattr(limiter, name))
            yield family
        budget = GaugeMetricFamily(
            "raglan_stage_budget_seconds", "How long a stage may take now.", labels=("stage",)
        )
        for each in self._pipeline.stages:
            budget.add_metric((each.name,), each.budget_s)
        yield budget
