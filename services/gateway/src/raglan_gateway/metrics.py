"""Prometheus metrics of the gateway.

No value of a label comes from a request: routes are templates, methods and everything else are
taken from lists, and what is on none of them counts as "other".
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from functools import partial
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from raglan.errors import (
    Cancelled,
    DeadlineExceeded,
    Internal,
    Overloaded,
    RaglanError,
    Unavailable,
)
from raglan.resilience.limiter import AdaptiveLimiter
from raglan.rpc.metrics import CalledPools
from raglan.rpc.tracing import status_of
from raglan.telemetry.metrics import OTHER, Durations, OnLoop
from raglan.telemetry.process import ProcessMetrics

from raglan_gateway.admission.checks import Check
from raglan_gateway.caches.entry import Layer
from raglan_gateway.caches.similar import SimilarQuestions
from raglan_gateway.caches.store import CacheStore
from raglan_gateway.degradation import FALLBACK, LEVELS, current_level
from raglan_gateway.mesh import Mesh
from raglan_gateway.pipeline import Pipeline
from raglan_gateway.query_state import QueryState
from raglan_gateway.strategies.strategy import REASONS, SecondTry, Strategy

METHODS: Final = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
LAG_EVERY_S: Final = 0.02
"""The load shedder follows the loop's lag, and has to react quickly."""

QUERY_STAGES: Final = (
    *("strategy", "embed", "retrieve", "rerank", "expand", "generate", "cite", "second_try"),
)
_NO_QUERIES: Final = frozenset({"", "share", "ingest"})
"""Stages that no query falls back from."""
_LEVELS: Final = {level.stage: level.name for level in LEVELS}


class Outcome(StrEnum):
    """Outcome of a valid query."""

    COMPLETE = "complete"
    DEGRADED = "degraded"
    """Answered without one of the services."""
    KEPT = "kept"
    """Answered by a stale answer."""
    REFUSED = "refused"
    """There was no place for it."""
    LATE = "late"
    """Its deadline passed."""
    FAILED = "failed"
    LEFT = "left"
    """Its client did not wait for the end."""


class Metrics:
    """The gateway's metrics in a registry of their own."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        self.called = CalledPools(registry)
        self._requests = Durations(
            "raglan_gateway_request_duration_seconds",
            "Time from a request's arrival to the end of its reply.",
            ("method", "route", "status"),
            registry,
        )
        self._stages = Durations(
            "raglan_gateway_stage_duration_seconds",
            "Time a query spent in a stage, as the gateway saw it, by how the stage ended.",
            ("stage", "status"),
            registry,
        )
        self._remaining = Durations(
            "raglan_gateway_remaining_deadline_seconds",
            "What was left of a query's deadline when it came to a stage.",
            ("stage",),
            registry,
        )
        self._waits = Durations(
            "raglan_limiter_wait_seconds",
            "Wait of queries that found no place at once, in a stage or in the load shedder.",
            ("stage",),
            registry,
        )
        self._first_token = Durations(
            "raglan_gateway_first_token_seconds",
            "Time from a query's arrival to the first piece of its answer.",
            (),
            registry,
        )
        self._lost_answers = Counter(
            "raglan_gateway_lost_answers_total",
            "Answers that could not be kept for their sessions.",
            registry=registry,
        )
        self._refusals = _refusals(registry)
        self._by_outcome = _outcomes(registry)
        self._fell_back = _degradations(registry)
        self._strategies = _strategies(registry)
        self._second_tries = _second_tries(registry)
        self._kept = _stale_lookups(registry)
        self._cached, self._joined = _cache_lookups(registry)
        self._saved = _saved_seconds(registry)

    def process(self, lagged: Callable[[float], None]) -> ProcessMetrics:
        """Create the metrics of the process; `lagged` is called with the loop's lag in seconds."""
        loop = asyncio.get_running_loop()
        Gauge(
            "raglan_gateway_tasks", "Tasks of the gateway's event loop.", registry=self.registry
        ).set_function(lambda: len(asyncio.all_tasks(loop)))
        return ProcessMetrics(self.registry, "gateway", lagged=lagged, lag_every_s=LAG_EVERY_S)

    def watch(self, mesh: Mesh, pipeline: Pipeline, also_away: Callable[[], list[str]]) -> None:
        """Show what `mesh` and `pipeline` are like at each scrape.

        Args:
            mesh: source of the replicas.
            pipeline: source of limits and budgets.
            also_away: services that are away and not in `mesh`, e.g. "redis".
        """
        self.called.watch(mesh.pools)
        limiters = {"door": pipeline.load_shedder.limiter} | {
            each.name: each.limiter for each in pipeline.stages
        }
        for name, limiter in limiters.items():
            self._waits.expect(name)
            limiter.on_wait = partial(self._waited, name)
        self.registry.register(OnLoop(lambda: _stages(pipeline, limiters)))
        self.registry.register(OnLoop(lambda: _rung(mesh, also_away())))

    # --- Requests ---------------------------------------------------------------------------------

    def served(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request was answered.

        Args:
            method: HTTP method.
            route: the template of the route that it matched, or "other".
            status: HTTP status.
            seconds: duration of the request.
        """
        known = method if method in METHODS else OTHER
        self._requests.observe(seconds, known, route, str(status))

    def refused(self, check: Check) -> None:
        """Count a request that was refused before it ran."""
        self._refusals[check].inc()

    # --- Queries ----------------------------------------------------------------------------------

    def answered(self, run: QueryState) -> None:
        """A query was answered."""
        self._by_outcome[Outcome.DEGRADED if run.degraded else Outcome.COMPLETE].inc()
        for fallen in run.degraded:
            self._fell_back[fallen.stage].inc()
        outcome = run.strategy
        # A cached answer was counted when it was made.
        if run.entry is None and outcome.name is not Strategy.NONE:
            self._strategies[outcome.name].inc()
        if run.entry is None and outcome.second_try is not SecondTry.NONE:
            self._second_tries[outcome.second_try, outcome.reason, outcome.helped].inc()
        if first_ms := run.timings_ms.get("first_token"):
            self._first_token.observe(first_ms / 1e3)

    def lost_answers(self, count: int) -> None:
        """So many answers could not be kept."""
        self._lost_answers.inc(count)

    def record_stale_lookup(self, *, found: bool) -> None:
        """Count a query whose passages could not be retrieved."""
        self._kept["hit" if found else "miss"].inc()
        if found:
            self._by_outcome[Outcome.KEPT].inc()
            self._fell_back["retrieve"].inc()

    def looked_up(self, layer: Layer, saved_s: float | None) -> None:
        """Count a lookup in a cache of queries: what a hit saved, or None."""
        self._cached[layer, "miss" if saved_s is None else "hit"].inc()
        if saved_s is not None:
            self._saved[layer].inc(saved_s)

    def joined(self) -> None:
        """Count a query that shared the run of an identical one."""
        self._joined.inc()

    def watch_cache(self, store: CacheStore, similar: SimilarQuestions) -> None:
        """Show the size of the caches of queries at each scrape."""
        Gauge(
            "raglan_gateway_cache_bytes",
            "Memory of this gateway's cached vectors, passages, answers and their questions.",
            registry=self.registry,
        ).set_function(lambda: store.bytes_held + similar.bytes_held)
        self.registry.register(OnLoop(lambda: _damaged(store)))

    def failed(self, error: BaseException) -> None:
        """A query was not answered. Its own mistakes do not count."""
        if outcome := _outcome(error):
            self._by_outcome[outcome].inc()

    def _waited(self, stage: str, seconds: float) -> None:
        self._waits.observe(seconds, stage)

    def stage_began(self, stage: str, remaining_s: float) -> None:
        """A query with so much time left came to `stage`."""
        self._remaining.observe(remaining_s, stage)

    def stage_ended(self, stage: str, seconds: float, error: BaseException | None) -> None:
        """It left it, because of `error` if there is one."""
        self._stages.observe(seconds, stage, status_of(error))


# Counters are made with all their labels: one that appears at 1 has not risen, to Prometheus.


def _refusals(registry: CollectorRegistry) -> dict[Check, Counter]:
    refusals = Counter(
        "raglan_gateway_refused_requests_total",
        "Requests that were refused before they ran, by the check that they did not pass.",
        ["check"],
        registry=registry,
    )
    return {check: refusals.labels(check.value) for check in Check}


def _outcomes(registry: CollectorRegistry) -> dict[Outcome, Counter]:
    queries = Counter(
        "raglan_gateway_queries_total",
        "Queries by outcome: complete, degraded, kept, refused, late, failed, left.",
        ["outcome"],
        registry=registry,
    )
    return {outcome: queries.labels(outcome.value) for outcome in Outcome}


def _degradations(registry: CollectorRegistry) -> dict[str, Counter]:
    degraded = Counter(
        "raglan_gateway_degraded_total",
        "Queries for which a stage fell back, by the rung of the ladder.",
        ["stage", "fallback", "rung"],
        registry=registry,
    )
    return {
        stage: degraded.labels(stage, fallback, _LEVELS[stage])
        for stage, fallback in FALLBACK.items()
        if stage not in _NO_QUERIES
    }


def _strategies(registry: CollectorRegistry) -> dict[Strategy, Counter]:
    strategies = Counter(
        "raglan_gateway_strategies_total",
        "Queries whose passages were found with search texts of a model, by strategy.",
        ["strategy"],
        registry=registry,
    )
    return {each: strategies.labels(each.value) for each in Strategy if each is not Strategy.NONE}


def _second_tries(registry: CollectorRegistry) -> dict[tuple[SecondTry, str, bool], Counter]:
    tries = Counter(
        "raglan_gateway_second_tries_total",
        "Second tries by strategy, reason (abstained, low_confidence), and whether the answer "
        "is theirs (helped: yes, no).",
        ["strategy", "reason", "helped"],
        registry=registry,
    )
    return {
        (each, reason, helped): tries.labels(each.value, reason, "yes" if helped else "no")
        for each in SecondTry
        if each is not SecondTry.NONE
        for reason in REASONS
        for helped in (True, False)
    }


def _stale_lookups(registry: CollectorRegistry) -> dict[str, Counter]:
    lookups = Counter(
        "raglan_cache_lookups_total",
        "Lookups by layer and outcome: hit, miss.",
        ["layer", "outcome"],
        registry=registry,
    )
    return {hit: lookups.labels("kept_answers", hit) for hit in ("hit", "miss")}


def _cache_lookups(
    registry: CollectorRegistry,
) -> tuple[dict[tuple[Layer, str], Counter], Counter]:
    cached = Counter(
        "raglan_gateway_cache_lookups_total",
        "Lookups in the caches of queries by layer (embedding, evidence, answer, semantic) and "
        "outcome (hit, miss); outcome joined: a query that shared the run of an identical one.",
        ["layer", "outcome"],
        registry=registry,
    )
    counters = {
        (layer, outcome): cached.labels(layer.value, outcome)
        for layer in Layer
        for outcome in ("hit", "miss")
    }
    return counters, cached.labels(Layer.ANSWER.value, "joined")


def _saved_seconds(registry: CollectorRegistry) -> dict[Layer, Counter]:
    saved = Counter(
        "raglan_gateway_cache_saved_seconds_total",
        "Time that making the cached values had taken, summed over the hits.",
        ["layer"],
        registry=registry,
    )
    return {layer: saved.labels(layer.value) for layer in Layer}


def _outcome(error: BaseException) -> Outcome | None:
    match error:
        case Overloaded():
            return Outcome.REFUSED
        case DeadlineExceeded():
            return Outcome.LATE
        case Cancelled() | asyncio.CancelledError() | GeneratorExit():
            return Outcome.LEFT
        case Unavailable() | Internal():
            return Outcome.FAILED
        case RaglanError():
            return None
        case _:
            return Outcome.FAILED


def _stages(pipeline: Pipeline, limiters: Mapping[str, AdaptiveLimiter]) -> Iterator[Metric]:
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
    for each in pipeline.stages:
        budget.add_metric((each.name,), each.budget_s)
    yield budget


def _damaged(store: CacheStore) -> Iterator[Metric]:
    yield CounterMetricFamily(
        "raglan_gateway_cache_damaged",
        "Values in Redis that were damaged or of another version, and counted as misses.",
        store.damaged,
    )


def _rung(mesh: Mesh, also_away: list[str]) -> Iterator[Metric]:
    away = [name for name, pool in mesh.pools.items() if not pool.available]
    current = current_level([*away, *also_away])
    family = GaugeMetricFamily(
        "raglan_gateway_rung", "1 for the rung that the mesh stands on.", labels=("rung",)
    )
    for level in LEVELS:
        family.add_metric((level.name,), level is current)
    yield family
