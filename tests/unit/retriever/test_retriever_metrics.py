"""What the retriever shows: the size of its index, what waits for it, the parts of a search."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator

import pytest
from prometheus_client import CollectorRegistry
from raglan.errors import Unavailable
from raglan_retriever.collection import Collection
from raglan_retriever.index import Index
from raglan_retriever.metrics import RetrieverMetrics
from raglan_retriever.query import Limits, Query
from raglan_retriever.stores.null import PASSAGES, NullStore
from raglan_retriever.stores.store import Size
from raglan_retriever.stores.threads import BoundedPool


class Sized(NullStore):
    """Three collections; away when told so."""

    away = False
    waits_s = 0.0

    async def collections(self) -> list[Collection]:
        if self.away:
            raise Unavailable("Qdrant cannot be reached.")
        return 3 * await super().collections()

    async def size(self, name: str) -> Size:
        return Size(chunks=10, unindexed_chunks=2, disk_bytes=1000)

    def backlog_s(self) -> float:
        return self.waits_s


class Counted:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.metrics = RetrieverMetrics(self.registry)
        self.store = Sized()

    def value(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"raglan_{name}", labels) or 0.0

    async def until(self, name: str, value: float) -> None:
        async with asyncio.timeout(30):
            while self.value(name) != value:
                await asyncio.sleep(0.005)


@pytest.fixture
async def counted() -> AsyncIterator[Counted]:
    counted = Counted()
    yield counted
    await counted.metrics.close()


async def test_sizes_are_those_of_all_collections_together(counted: Counted) -> None:
    counted.metrics.watch(counted.store)
    await counted.until("index_collections", 3)
    assert counted.value("index_chunks") == 30
    assert counted.value("index_unindexed_chunks") == 6
    assert counted.value("index_disk_bytes") == 3000
    assert counted.value("index_looked_at_timestamp_seconds") == pytest.approx(time.time(), abs=10)


async def test_a_store_that_is_away_is_looked_at_again(
    counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raglan_retriever.metrics.EVERY_S", 0.01)
    counted.store.away = True
    counted.metrics.watch(counted.store)
    await asyncio.sleep(0)
    counted.store.away = False
    await counted.until("index_chunks", 30)


async def test_the_backlog_is_read_when_it_is_asked_for(counted: Counted) -> None:
    counted.metrics.watch(counted.store)
    counted.store.waits_s = 1.5
    assert counted.value("backlog_seconds") == 1.5


async def test_a_search_counts_the_parts_that_it_has(counted: Counted) -> None:
    index = Index(
        counted.store, limits=Limits(), language="en", timed=counted.metrics.leg
    )  # fmt: skip
    found = (await index.search(Query(("default",), "lexical", limit=5, text="stage"))).found
    assert len(found) == 5 < PASSAGES
    count = "retriever_leg_seconds_count"
    assert counted.value(count, leg="search") == 1
    assert counted.value(count, leg="fetch") == 1
    assert counted.value(count, leg="expand") == 0


async def test_what_waits_for_a_thread_is_counted_in_the_seconds_that_calls_take() -> None:
    pool = BoundedPool("reading", threads=1, max_waiting=10)
    for _ in range(3):
        await pool.run(time.sleep, 0.01)
    assert pool.backlog_s == 0
    busy, go_on = threading.Event(), threading.Event()

    def work() -> None:
        busy.set()
        go_on.wait(5)

    calls = [asyncio.create_task(pool.run(work)) for _ in range(4)]
    await asyncio.to_thread(busy.wait, 5)
    one_s = pool.backlog_s / 3
    assert one_s > 0
    go_on.set()
    await asyncio.gather(*calls)
    pool.close()
