"""Metrics of the reranker beside those of every encoder: calls by the share that was scored."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter

OUTCOMES: Final = ("all", "some", "none")


class RankingMetrics:
    """Calls by how many of their candidates have a score."""

    def __init__(self, registry: CollectorRegistry) -> None:
        calls = Counter(
            "raglan_rerank_calls_total",
            "Calls by how many of their candidates were scored: all, some, none.",
            ["scored"],
            registry=registry,
        )
        # From the start, because a counter that appears at 1 has not risen, to Prometheus.
        self._calls = {outcome: calls.labels(outcome) for outcome in OUTCOMES}

    def ranked(self, scored: int, offered: int) -> None:
        """A call of `offered` candidates ended with scores for `scored` of them."""
        outcome = "none" if scored == 0 else "all" if scored >= offered else "some"
        self._calls[outcome].inc()
