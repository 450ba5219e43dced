"""Metrics of served calls and of the replicas that a process calls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from raglan.rpc.pool import EndpointPool
from raglan.telemetry.metrics import OTHER, Durations, OnLoop

KINDS: Final = ("first", "retry", "hedge")
"""Of attempts."""


class ServedCalls:
    """Rate, errors and duration of each rpc that a service answers."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._durations = Durations(
            "raglan_rpc_server_duration_seconds",
            "From a call's arrival to its end, of a stream to the end of the stream, by gRPC "
            "status.",
            ("method", "status"),
            registry,
        )
        self._running = Gauge(
            "raglan_rpc_server_running", "Calls being served.", ["method"], registry=registry
        )
        self._short: dict[str, tuple[str, Gauge]] = {}

    def began(self, method: str) -> None:
        """A call of a method that exists, e.g. "/raglan.v1.EmbedderService/Embed"."""
        self._known(method)[1].inc()

    def ended(self, method: str, status: str, seconds: float) -> None:
        """It ended with a gRPC status, by name."""
        short, running = self._known(method)
        running.dec()
        self._durations.observe(seconds, short, status)

    def unknown(self) -> None:
        """A call of a method that does not exist was refused."""
        self._durations.observe(0.0, OTHER, "UNIMPLEMENTED")

    def _known(self, method: str) -> tuple[str, Gauge]:
        if known := self._short.get(method):
            return known
        short = "/".join(part.rpartition(".")[2] for part in method.strip("/").split("/"))
        made = self._short[method] = short, self._running.labels(short)
        return made


class CalledPools:
    """Replicas of the services that this process calls, and its attempts on them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._attempts = Counter(
            "raglan_attempts_total",
            "Calls that left for a service: first ones, retries and hedges.",
            ["service", "kind"],
            registry=registry,
        )
        self._by_kind: dict[tuple[str, str], Counter] = {}

    def attempted(self, service: str, kind: str) -> None:
        """One more call left for `service`; `kind` is one of `KINDS`."""
        counter = self._by_kind.get((service, kind))
        if counter is None:
            counter = self._by_kind[service, kind] = self._attempts.labels(service, kind)
        counter.inc()

    def watch(self, pools: Mapping[str, EndpointPool]) -> None:
        """Show `pools`, by service, as they are at each scrape."""
        for service in pools:
            for kind in KINDS:
                self._by_kind[service, kind] = self._attempts.labels(service, kind)
        self._registry.register(OnLoop(partial(_seen, pools)))


def _seen(pools: Mapping[str, EndpointPool]) -> Iterator[Metric]:
    """Addresses are those of the list that the pool was given, never a caller's."""
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
        "raglan_endpoint_in_flight", "Calls in flight at a replica.", labels=replicas
    )
    won = CounterMetricFamily(
        "raglan_hedges_won", "Calls that their hedge answered first.", labels=("service",)
    )
    refused = CounterMetricFamily(
        "raglan_extra_calls_refused",
        "Retries and hedges that would have been made, had the budget allowed it.",
        labels=("service", "kind"),
    )
    for service, pool in pools.items():
        for each in pool.replicas.all:
            breaker.add_metric((service, each.address, each.breaker.state.value), 1)
            reach.add_metric((service, each.address, each.reach.value), 1)
            in_flight.add_metric((service, each.address), each.in_flight)
        won.add_metric((service,), pool.hedges_won)
        for kind, budget in pool.budgets.items():
            refused.add_metric((service, kind), budget.refused)
    yield from (breaker, reach, in_flight, won, refused)
