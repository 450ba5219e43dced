"""Metrics of the retriever: duration of the parts of a search, size of the index."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge
from raglan.background import keep_running
from raglan.errors import Conflict, NotFound, RaglanError, StorageFull
from raglan.telemetry.metrics import Durations

from raglan_retriever.stores.store import Store

EVERY_S: Final = 15.0
"""Interval of samples of the index: the usual scrape interval of Prometheus."""

_LOOK_S: Final = 10.0
"""Timeout of a sample; past it the figures of the last one stay."""


class RetrieverMetrics:
    """Metrics in one registry. Sizes are sums over all collections, whose names are private."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._legs = Durations(
            "raglan_retriever_leg_seconds",
            "A search's parts: search (all legs), expand (other forms of abbreviations), fetch.",
            ("leg",),
            registry,
        )

        self._foreign = Counter(
            "raglan_foreign_chunks",
            "Chunks of another tenant that were found and dropped; any is a fault of ours.",
            registry=registry,
        )

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"raglan_index_{name}", text, registry=registry)

        self._collections = gauge("collections", "Collections.")
        self._damaged = gauge("damaged_collections", "Collections set aside: damaged or too new.")
        self._chunks = gauge("chunks", "Chunks in the index.")
        self._unindexed = gauge(
            "unindexed_chunks", "Chunks that a search reads one by one: the lag of the index."
        )
        self._bytes = gauge("disk_bytes", "Space on disk; 0 where the store cannot tell.")
        self._looked_at = gauge("looked_at_timestamp_seconds", "When these figures were read.")
        self._looking: asyncio.Task[None] | None = None

    @contextmanager
    def leg(self, name: str) -> Iterator[None]:
        """Time a part of a search."""
        begun = time.monotonic()
        try:
            yield
        finally:
            self._legs.observe(time.monotonic() - begun, name)

    def foreign(self, chunks: int) -> None:
        """Count chunks of another tenant that a store returned."""
        self._foreign.inc(chunks)

    def watch(self, store: Store) -> None:
        """Sample the sizes of `store` until `close`."""
        Gauge(
            "raglan_backlog_seconds",
            "Waiting reads over measured speed: the one signal to scale by.",
            registry=self._registry,
        ).set_function(store.backlog_s)
        self._looking = asyncio.create_task(keep_running("index size", partial(self._look, store)))

    async def close(self) -> None:
        """Stop sampling."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait((self._looking,))

    async def _look(self, store: Store) -> None:
        while True:
            with suppress(RaglanError, TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self._read(store)
            await asyncio.sleep(EVERY_S)

    async def _read(self, store: Store) -> None:
        collections = await store.collections()
        sizes = []
        for each in collections:
            with suppress(NotFound, Conflict, StorageFull):
                sizes.append(await store.size(each.name))
        self._collections.set(len(collections))
        self._damaged.set(len(store.set_aside()))
        self._chunks.set(sum(size.chunks for size in sizes))
        self._unindexed.set(sum(size.unindexed_chunks for size in sizes))
        self._bytes.set(sum(size.disk_bytes for size in sizes))
        self._looked_at.set_to_current_time()
