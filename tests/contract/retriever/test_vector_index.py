"""The vector index of the edge store: planned by size, built aside without disturbing anyone."""

from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest
from raglan_retriever.index import Index
from raglan_retriever.query import Limits, Query
from raglan_retriever.stores import rebuilding
from raglan_retriever.stores.plans import Planner, Row

ROWS = (Row(0, "none", 100, 1.0), Row(4_000, "int8", 100, 1.0))
PLANNER = Planner(0.95, 2**30, ROWS)
DIMENSION = 8
ASKED = np.random.default_rng(7).standard_normal((20, DIMENSION)).astype(np.float32)


@pytest.fixture
async def index(open_edge, tmp_path):
    store = open_edge(tmp_path, optimize_after_chunks=2_000, quiet_s=0.05, planner=PLANNER)
    await store.open()
    yield Index(store, limits=Limits(), language="en")
    await store.close()


@pytest.fixture
def add(index, chunk, vectors, model):
    async def added(count: int, first: int = 0, name: str = "c") -> None:
        for start in range(first, first + count, 1_000):
            chunks = [chunk(f"d{n}#0", f"word{n}") for n in range(start, start + 1_000)]
            await index.upsert(name, model, chunks, vectors(1_000, seed=start))

    return added


async def described(index, name: str = "c"):
    return (await index.stats(name))[1].index


async def until_ready(index, name: str = "c", **wanted):
    """Wait for an index whose plan has these fields, and return it."""
    give_up = time.monotonic() + 60
    while True:
        found = await described(index, name)
        if found.state == "ready" and all(getattr(found.plan, k) == v for k, v in wanted.items()):
            return found
        assert time.monotonic() < give_up, f"the index is {found}"
        await asyncio.sleep(0.02)


async def nearest(index, model, name: str = "c") -> list[list[str]]:
    found = []
    for vector in ASKED:
        query = Query((name,), "dense", 5, vector=vector, model=model)
        results = await index.search(query)
        found.append([each.chunk.chunk_id for each in results.found])
    return found


async def test_a_small_collection_is_scanned(index, add, model):
    await index.create("c", model, 0, 0)
    await add(1_000)
    found = await described(index)
    assert (found.state, found.chunks, found.plan) == ("scanned", 0, None)
    assert found.recall_target == 0.95


async def test_the_plan_follows_the_size_without_writing_chunks_again(index, add, model):
    await index.create("c", model, 0, 0)
    await add(3_000)
    assert (await until_ready(index, quantization="none")).chunks == 3_000
    await add(1_000, first=3_000)
    asked_before = await nearest(index, model)
    grown = await until_ready(index, quantization="int8")
    assert grown.chunks == 4_000
    assert await nearest(index, model) == asked_before


async def test_another_recall_builds_another_index_while_questions_are_answered(
    index, add, model, monkeypatch
):
    await index.create("c", model, 0, 0)
    await add(3_000)
    await until_ready(index, m=16)
    before = await nearest(index, model)
    going = asyncio.Event()
    optimize = rebuilding.optimize

    async def waits(*args, **kwargs):
        await going.wait()
        await optimize(*args, **kwargs)

    monkeypatch.setattr(rebuilding, "optimize", waits)
    await index.set_recall("c", 0.99)
    give_up = time.monotonic() + 30
    while (await described(index)).state != "building":
        assert time.monotonic() < give_up
        await asyncio.sleep(0.02)
    assert await nearest(index, model) == before
    going.set()
    found = await until_ready(index, m=32)
    assert found.recall_target == 0.99
    assert await nearest(index, model) == before


async def test_a_recall_that_only_searches_differ_in_builds_nothing(index, add, model, monkeypatch):
    await index.create("c", model, 0, 0)
    await add(3_000)
    await until_ready(index, ef=100)

    async def builds(*args, **kwargs):
        raise AssertionError("an index is built")

    monkeypatch.setattr(rebuilding, "optimize", builds)
    await index.set_recall("c", 0.97)
    await until_ready(index, ef=200)


async def test_writers_of_another_collection_do_not_wait_for_a_copy(index, add, model, monkeypatch):
    """The copy of a million chunks takes seconds."""
    for name in ("c", "other"):
        await index.create(name, model, 0, 0)
    copying, copied = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    copytree = rebuilding.shutil.copytree

    def waits(*args, **kwargs):
        loop.call_soon_threadsafe(copying.set)
        asyncio.run_coroutine_threadsafe(copied.wait(), loop).result(30)
        return copytree(*args, **kwargs)

    monkeypatch.setattr(rebuilding.shutil, "copytree", waits)
    await add(2_000)
    async with asyncio.timeout(30):
        await copying.wait()
        await add(1_000, name="other")
    assert (await index.stats("other"))[1].chunks == 1_000
    copied.set()
    await until_ready(index)
