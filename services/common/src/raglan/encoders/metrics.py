"""Metrics of embedder and reranker: stage times, batch fill, rejected and failed work."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from raglan.scheduling import Batch, Dispatcher, Lane
from raglan.telemetry.metrics import Durations

_TOKENS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
DROPPED: Final = ("refused", "late", "cancelled", "failed")
_ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class EncoderMetrics:
    """The scheduler's observer. Histograms are by lane: what queries see hides behind bulk.

    Args:
        cache: what the service keeps, e.g. "vectors".
    """

    def __init__(self, registry: CollectorRegistry, *, cache: str) -> None:

        def seconds(name: str, text: str) -> Durations:
            return Durations(name, text, ("lane",), registry)

        self._queue = seconds("raglan_encoder_queue_seconds", "Wait of a text for its batch.")
        self._tokenize = seconds("raglan_encoder_tokenize_seconds", "Tokenising of a call.")
        self._compute = seconds("raglan_encoder_compute_seconds", "Run of a batch.")
        self._items = Histogram(
            "raglan_encoder_batch_texts", "Texts of a batch.", ["lane"], buckets=_ITEMS,
            registry=registry,
        )  # fmt: skip
        self._tokens = Histogram(
            "raglan_encoder_batch_padded_tokens", "Padded tokens of a batch.", ["lane"],
            buckets=_TOKENS, registry=registry,
        )  # fmt: skip
        self._closed = Counter(
            "raglan_encoder_batches_total",
            "Batches by what ended their growth: idle, token_cap, item_cap, padding, deadline.",
            ["lane", "closed"],
            registry=registry,
        )
        dropped = Counter(
            "raglan_encoder_dropped_texts_total",
            "Texts that got no result: refused, late, cancelled, failed.",
            ["reason"],
            registry=registry,
        )
        # From the start, because a counter that appears at 1 has not risen, to Prometheus.
        self._dropped = {reason: dropped.labels(reason) for reason in DROPPED}
        lookups = Counter(
            "raglan_cache_lookups_total", "Lookups by layer and outcome: hit, miss.",
            ["layer", "outcome"], registry=registry,
        )  # fmt: skip
        self._hits, self._misses = lookups.labels(cache, "hit"), lookups.labels(cache, "miss")
        self._backlog = Gauge(
            "raglan_backlog_seconds",
            "Queued work over measured speed: the one signal to scale by.",
            registry=registry,
        )
        self._waiting = Gauge(
            "raglan_encoder_waiting_texts", "Texts that wait.", ["lane"], registry=registry
        )

    def watch(self, dispatcher: Dispatcher[Any, Any]) -> None:
        """Show what waits in `dispatcher`, read when scraped."""
        self._backlog.set_function(dispatcher.backlog_s)
        for lane in Lane:
            self._waiting.labels(lane.name.lower()).set_function(partial(dispatcher.waiting, lane))

    def ran(self, batch: Batch, seconds: float, queued_s: Sequence[float]) -> None:
        """A batch ended."""
        lane = batch.lane.name.lower()
        for waited_s in queued_s:
            self._queue.observe(waited_s, lane)
        self._compute.observe(seconds, lane)
        self._items.labels(lane).observe(len(queued_s))
        self._tokens.labels(lane).observe(batch.padded_tokens)
        self._closed.labels(lane, batch.closed.value).inc()

    def dropped(self, reason: str, items: int) -> None:
        """Texts left without a result."""
        self._dropped[reason].inc(items)

    def tokenized(self, lane: Lane, seconds: float) -> None:
        """The texts of a call were tokenised."""
        self._tokenize.observe(seconds, lane.name.lower())

    def looked_up(self, hits: int, misses: int) -> None:
        """So many texts were found in the cache, and so many not."""
        self._hits.inc(hits)
        self._misses.inc(misses)
