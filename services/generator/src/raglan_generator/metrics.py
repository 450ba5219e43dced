"""Metrics of the generator: first token, token rate, failures."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from raglan.errors import DeadlineExceeded, Overloaded, RaglanError
from raglan.telemetry.metrics import Durations

from raglan_generator.generation import Engine, Event, Finished, FinishReason, Load, Usage


class GeneratorMetrics:
    """One registry's worth; `watch` adds what the engine says of itself when it is scraped."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

        def seconds(name: str, text: str) -> Durations:
            return Durations(name, text, (), registry)

        self._first = seconds(
            "raglan_generator_first_token_seconds", "From the request to the first token."
        )
        self._per_token = seconds(
            "raglan_generator_per_token_seconds", "Mean time between the tokens of an answer."
        )
        self._queue = seconds(
            "raglan_generator_queue_seconds", "Wait until the engine began to read the prompt."
        )
        self._tokens = Counter(
            "raglan_generator_tokens_total",
            "Tokens by kind: prompt (read), cached (of the prompt, found in the prefix cache), "
            "completion (written).",
            ["kind"],
            registry=registry,
        )
        self._answers = Counter(
            "raglan_generator_answers_total", "Answers by end: stop, length, abstained.", ["end"],
            registry=registry,
        )  # fmt: skip
        self._aborted = Counter(
            "raglan_generator_aborted_total",
            "Answers that did not come to an end, by reason: refused, deadline, left, failed.",
            ["reason"],
            registry=registry,
        )
        # From the start, because a counter that appears at 1 has not risen, to Prometheus.
        for kind in ("prompt", "cached", "completion"):
            self._tokens.labels(kind)
        for end in FinishReason:
            self._answers.labels(end.value)
        for reason in ("refused", "deadline", "left", "failed"):
            self._aborted.labels(reason)

    def watch(self, engine: Engine) -> None:
        """Show the engine's own numbers, read when scraped."""
        Gauge(
            "raglan_backlog_seconds",
            "Queued tokens over measured speed: the one signal to scale by.",
            registry=self._registry,
        ).set_function(lambda: engine.load().backlog_s)
        self._registry.register(_LoadCollector(engine.load))

    async def measured(self, events: AsyncGenerator[Event]) -> AsyncGenerator[Event]:
        """The same events, counted."""
        begun, first, ended = time.monotonic(), 0.0, False
        try:
            async with aclosing(events):
                async for event in events:
                    if not first:
                        first = time.monotonic()
                        self._first.observe(first - begun)
                    if isinstance(event, Finished):
                        ended = True
                        self._finished(event, time.monotonic() - first)
                    yield event
        except RaglanError as error:
            self._aborted.labels(_reason(error)).inc()
            raise
        except (asyncio.CancelledError, GeneratorExit):
            if not ended:
                self._aborted.labels("left").inc()
            raise

    def count_tokens(self, usage: Usage) -> None:
        """Count the tokens that a model read and wrote."""
        self._tokens.labels("prompt").inc(usage.prompt_tokens)
        self._tokens.labels("cached").inc(usage.cached_tokens)
        self._tokens.labels("completion").inc(usage.completion_tokens)

    def _finished(self, event: Finished, writing_s: float) -> None:
        usage = event.usage
        self._answers.labels(event.reason.value).inc()
        self._queue.observe(event.queue_ns / 1e9)
        if usage.completion_tokens > 1:
            self._per_token.observe(writing_s / (usage.completion_tokens - 1))
        self.count_tokens(usage)


def _reason(error: RaglanError) -> str:
    match error:
        case DeadlineExceeded():
            return "deadline"
        case Overloaded():
            return "refused"
        case _:
            return "failed"


_GAUGES: Final = {
    "running": "Answers being written.",
    "waiting": "Questions without a first token.",
    "kv_use": "Share of the memory for keys and values in use.",
}
_TOTALS: Final = {
    "prefix_tokens": "Prompt tokens looked up in the prefix cache.",
    "prefix_hits": "Prompt tokens found in the prefix cache.",
    "drafted": "Tokens that speculation proposed.",
    "accepted": "Tokens that speculation proposed and the model kept.",
}


class _LoadCollector(Collector):
    def __init__(self, load: Callable[[], Load]) -> None:
        self._load = load

    def collect(self) -> Iterator[Metric]:
        load = self._load()
        for name, text in _GAUGES.items():
            yield GaugeMetricFamily(f"raglan_generator_{name}", text, value=getattr(load, name))
        for name, text in _TOTALS.items():
            value = getattr(load, f"{name}_total")
            yield CounterMetricFamily(f"raglan_generator_{name}", text, value=value)
