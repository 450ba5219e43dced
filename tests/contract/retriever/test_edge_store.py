"""What holds for the edge store alone: its folder, its locks, and its index built aside."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import machine
import pytest
from raglan.errors import Internal, Overloaded, Unavailable
from raglan.filtering.clauses import Terms
from raglan.filtering.terms import term
from raglan_retriever.index import Index
from raglan_retriever.query import Limits, Query
from raglan_retriever.stores import rebuilding
from raglan_retriever.stores.optimizing import optimize
from raglan_retriever.stores.shard import Shard
from raglan_retriever.stores.shard_vectors import Vectors
from raglan_retriever.stores.threads import BoundedPool

LIMITS = Limits()


async def opened(open_edge, path: Path, **settings) -> Index:
    store = open_edge(path, **settings)
    await store.open()
    return Index(store, limits=LIMITS, language="en")


async def until(condition, limit_s: float = 30) -> None:
    """Wait until `await condition()` holds."""
    give_up = time.monotonic() + limit_s
    while not await condition():
        assert time.monotonic() < give_up, "the condition never held"
        await asyncio.sleep(0.02)


async def test_what_was_stored_is_there_after_a_restart(open_edge, tmp_path, chunk, vectors, model):
    first = await opened(open_edge, tmp_path)
    await first.create("c", model, 7, 3)
    await first.upsert("c", model, [chunk("d#0", "kept")], vectors(1))
    described = (await first.stats("c"))[0]
    await first.store.close()
    second = await opened(open_edge, tmp_path)
    assert (await second.stats("c"))[0] == described
    assert (await second.document("c", "d"))[0].text == "kept"
    await second.store.close()


async def test_a_second_store_on_the_folder_is_refused_with_the_holder(open_edge, tmp_path):
    first = await opened(open_edge, tmp_path)
    with pytest.raises(Unavailable, match=r"pid \d+\) holds .*RAGLAN_RETRIEVER_DATA_DIR"):
        await open_edge(tmp_path).open()
    await first.store.close()
    third = await opened(open_edge, tmp_path)
    await third.store.close()


def test_a_shard_that_another_process_has_open_is_named(tmp_path):
    path = tmp_path / "shard"
    Shard.create(path, Vectors(2))
    code = f"import qdrant_edge,sys; s=qdrant_edge.EdgeShard.load({str(path)!r}); print(1); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "1\n"
        with pytest.raises(Unavailable, match="Another process has the index at"):
            Shard(path)
        holder.communicate("\n")


async def test_what_a_crash_left_half_made_is_cleared(open_edge, tmp_path, model):
    first = await opened(open_edge, tmp_path)
    await first.create("whole", model, 0, 0)
    await first.store.close()
    (tmp_path / ".new-half" / "shard-1").mkdir(parents=True)
    (tmp_path / ".old-gone-1").mkdir()
    (tmp_path / "whole" / "shard-stray").mkdir()
    second = await opened(open_edge, tmp_path)
    assert [c.name for c, _ in await second.all_stats()] == ["whole"]
    await second.create("half", model, 0, 0)
    await second.store.close()
    assert {path.name for path in tmp_path.iterdir()} == {".lock", ".revisions", "whole", "half"}
    assert len(list((tmp_path / "whole").glob("shard-*"))) == 1


async def test_dropping_removes_the_folder(open_edge, tmp_path, model):
    index = await opened(open_edge, tmp_path)
    await index.create("c", model, 0, 0)
    assert json.loads((tmp_path / "c" / "collection.json").read_text())["collection"]["name"] == "c"
    await index.drop("c")
    assert {path.name for path in tmp_path.iterdir()} == {".lock", ".revisions"}
    await index.store.close()


async def test_disk_bytes_are_told(open_edge, tmp_path, chunk, vectors, model):
    index = await opened(open_edge, tmp_path)
    await index.create("c", model, 0, 0)
    await index.upsert("c", model, [chunk(f"d#{n}") for n in range(100)], vectors(100))
    assert (await index.stats("c"))[1].disk_bytes > 100 * 8 * 4
    await index.store.close()


class Building:
    """An index of 3,000 chunks whose building is held until it is let go."""

    count = 3000
    closed = False

    def __init__(self, index, chunk, vectors, model):
        self.index, self.chunk, self.vectors, self.model = index, chunk, vectors, model
        self.going = asyncio.Event()

    async def fill(self) -> None:
        await self.index.create("c", self.model, 0, 0)
        for start in range(0, self.count, 1000):
            chunks = [self.chunk(f"d{n}#0", f"word{n}") for n in range(start, start + 1000)]
            await self.index.upsert("c", self.model, chunks, self.vectors(1000, seed=start))

    def building(self) -> bool:
        return self.index.all_tenants._shards.get("c").changed is not None

    async def begun(self) -> bool:
        return self.building()

    async def built(self) -> bool:
        self.going.set()
        return (await self.index.stats("c"))[1].unindexed_chunks < 100 and not self.building()


@pytest.fixture
async def building(open_edge, tmp_path, chunk, vectors, model, monkeypatch):
    index = await opened(open_edge, tmp_path, optimize_after_chunks=2500, quiet_s=0.1)
    made = Building(index, chunk, vectors, model)
    optimize = rebuilding.optimize

    async def held(*args, **kwargs):
        await made.going.wait()
        await optimize(*args, **kwargs)

    monkeypatch.setattr(rebuilding, "optimize", held)
    await made.fill()
    yield made
    if not made.closed:
        await index.store.close()


async def test_the_index_is_built_once_writers_pause(building, tmp_path):
    assert (await building.index.stats("c"))[1].unindexed_chunks == building.count
    await until(building.built)
    assert len(list((tmp_path / "c").glob("shard-*"))) == 1
    assert (await building.index.stats("c"))[1].chunks == building.count


async def test_searches_and_upserts_are_served_while_the_index_is_built(building):
    index, model = building.index, building.model
    query = Query(("c",), "hybrid", 5, text="word7", vector=building.vectors(1)[0], model=model)
    await until(building.begun)
    for written in range(4):
        for _ in range(10):
            assert len((await index.search(query)).found) == 5
        fresh = [building.chunk(f"new{written}#0", "fresh")]
        await index.upsert("c", model, fresh, building.vectors(1, seed=written))
        if written == 1:
            assert building.building()
            building.going.set()
    assert await index.store.count("c", None) == building.count + 4


async def test_what_changes_while_the_index_is_built_is_kept(building):
    index, model = building.index, building.model
    await until(building.begun)
    await index.upsert("c", model, [building.chunk("d5#0", "changed")], building.vectors(1))
    await index.upsert("c", model, [building.chunk("new#0", "fresh")], building.vectors(1))
    assert (await index.delete("c", ["d6"], [])).chunks == 1
    assert building.building()
    await until(building.built)
    assert (await index.document("c", "d5"))[0].text == "changed"
    assert await index.count("c", ["d5", "d6", "d7", "new"]) == [1, 0, 1, 1]
    found = (await index.search(Query(("c",), "lexical", 5, text="changed fresh"))).found
    assert {hit.chunk.chunk_id for hit in found} == {"d5#0", "new#0"}


async def test_a_collection_can_be_dropped_while_its_index_is_built(building, tmp_path):
    await until(building.begun)
    await building.index.drop("c")
    assert not (tmp_path / "c").exists()
    await building.index.create("c", building.model, 0, 0)
    assert await building.index.store.count("c", None) == 0


# Edge holds the interpreter while it flushes and closes, whatever thread calls it.
@pytest.mark.loop_stall_s(1.0)
async def test_closing_gives_the_building_up_and_loses_nothing(building, open_edge, tmp_path):
    await until(building.begun)
    await building.index.store.close()
    building.closed = True
    again = await opened(open_edge, tmp_path)
    assert await again.store.count("c", None) == building.count
    assert await again.store.count("c", Terms((term("document_id", "d2999"),))) == 1
    await again.store.close()


async def test_a_large_upsert_leaves_the_loop_free(open_edge, tmp_path, chunk, vectors, model):
    index = await opened(open_edge, tmp_path)
    await index.create("c", model, 0, 0)
    lags = []

    async def watch():
        while True:
            begun = time.monotonic() - machine.without_core_s()
            await asyncio.sleep(0.005)
            lags.append(time.monotonic() - machine.without_core_s() - begun - 0.005)

    watching = asyncio.create_task(watch())
    text = " ".join(f"word{n}" for n in range(200))
    started = time.monotonic()
    for round_ in range(3):
        chunks = [chunk(f"d{round_}#{n}", text) for n in range(1000)]
        await index.upsert("c", model, chunks, vectors(1000))
    each_s = (time.monotonic() - started) / 3
    watching.cancel()
    await index.store.close()
    assert len(lags) > 20
    # A share of the upsert's own time, however fast and however busy the machine is.
    assert sorted(lags)[int(len(lags) * 0.95)] < each_s / 5, each_s


async def test_a_pool_refuses_more_than_may_wait():
    pool = BoundedPool("testing", threads=1, max_waiting=1)
    release = asyncio.Event()
    loop = asyncio.get_running_loop()

    def hold() -> None:
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result(10)

    held = [asyncio.create_task(pool.run(hold)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded) as refused:
        await pool.run(hold)
    assert refused.value.retry_after_s
    release.set()
    await asyncio.gather(*held)
    assert await pool.run(lambda: 5) == 5
    pool.close()


def files_with(folder: Path, word: bytes) -> list[Path]:
    """The files below `folder` that hold `word`; those that go meanwhile do not count."""
    found = []
    for root, _, names in os.walk(folder):
        for path in (Path(root) / name for name in names):
            with contextlib.suppress(FileNotFoundError):
                if word in path.read_bytes():
                    found.append(path)
    return found


@pytest.mark.parametrize("how", ["deleted", "replaced"])
async def test_text_of_deleted_and_replaced_chunks_leaves_the_files(
    open_edge, tmp_path, chunk, vectors, model, how
):
    index = await opened(open_edge, tmp_path, quiet_s=0.05)
    await index.create("c", model, 7, 3)
    pieces = [chunk("old#0", "the zanzibarword"), chunk("kept#0", "kept")]
    await index.upsert("c", model, pieces, vectors(2))
    assert await asyncio.to_thread(files_with, tmp_path, b"zanzibarword")

    if how == "deleted":
        await index.delete("c", ["old"], [])
    else:
        await index.upsert("c", model, [chunk("old#0", "another")], vectors(1, seed=1))

    async def gone() -> bool:
        return not await asyncio.to_thread(files_with, tmp_path, b"zanzibarword")

    await until(gone)
    assert (await index.document("c", "kept"))[0].text == "kept"
    await index.store.close()


async def test_text_that_a_restart_came_before_is_erased_after_it(
    open_edge, tmp_path, chunk, vectors, model
):
    first = await opened(open_edge, tmp_path, quiet_s=60)
    await first.create("c", model, 7, 3)
    await first.upsert("c", model, [chunk("old#0", "the zanzibarword")], vectors(1))
    await first.delete("c", ["old"], [])
    await first.store.close()

    second = await opened(open_edge, tmp_path, quiet_s=0.05)

    async def gone() -> bool:
        return not await asyncio.to_thread(files_with, tmp_path, b"zanzibarword")

    await until(gone)
    await second.store.close()


def shard_folders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("c/shard-*"))


async def test_an_index_that_cannot_be_built_is_tried_again_and_leaves_no_copy(
    open_edge, tmp_path, chunk, vectors, model, monkeypatch
):
    """The process that builds it is killed the first time, as by the kernel out of memory."""
    tries: list[list[str]] = []

    async def fails_once(path: Path, **settings) -> None:
        tries.append(shard_folders(tmp_path))
        if len(tries) == 1:
            path.with_name(f"{path.name}.rewritten").mkdir()
            raise Internal("optimizing ended with status -9")
        await optimize(path, **settings)

    monkeypatch.setattr(rebuilding, "optimize", fails_once)
    index = await opened(open_edge, tmp_path, optimize_after_chunks=50, quiet_s=0.01)
    index.all_tenants._rebuilds._retry_s = 0.5
    await index.create("c", model, 0, 0)
    await index.upsert("c", model, [chunk(f"d{n}#0") for n in range(60)], vectors(60))
    await until(lambda: asyncio.sleep(0, len(tries) == 1))
    await until(lambda: asyncio.sleep(0, len(shard_folders(tmp_path)) == 1))
    await index.upsert("c", model, [chunk("new#0", "fresh")], vectors(1))
    await until(lambda: asyncio.sleep(0, len(tries) == 2))

    async def built() -> bool:
        return (await index.stats("c"))[1].unindexed_chunks == 0

    await until(built)
    assert await index.store.count("c", None) == 61
    await index.store.close()
    assert len(shard_folders(tmp_path)) == 1


async def test_a_flush_does_not_wait_for_the_index_of_another_collection(
    open_edge, tmp_path, chunk, vectors, model, monkeypatch
):
    building, flushed = asyncio.Event(), []

    async def builds_for_ever(path: Path, **settings) -> None:
        building.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(rebuilding, "optimize", builds_for_ever)
    index = await opened(open_edge, tmp_path, optimize_after_chunks=5, quiet_s=0.01)
    for name in ("large", "small"):
        await index.create(name, model, 0, 0)
    await index.upsert("large", model, [chunk(f"d{n}#0") for n in range(6)], vectors(6))
    await building.wait()
    flush = index.all_tenants._flush
    monkeypatch.setattr(
        index.all_tenants, "_flush", lambda name: (flush(name), flushed.append(name))
    )
    await index.upsert("small", model, [chunk("d#0")], vectors(1))
    await until(lambda: asyncio.sleep(0, "small" in flushed))
    await index.store.close()


async def test_text_deleted_during_a_rewrite_stays_erased(
    open_edge, tmp_path, chunk, vectors, model, monkeypatch
):
    """Text deleted while the shard is rewritten is erased even after a restart."""
    rewriting, may_go_on = asyncio.Event(), asyncio.Event()

    async def waits(path: Path, **settings) -> None:
        rewriting.set()
        await may_go_on.wait()
        await optimize(path, **settings)

    monkeypatch.setattr(rebuilding, "optimize", waits)
    first = await opened(open_edge, tmp_path, quiet_s=0.01)
    await first.create("c", model, 7, 3)
    pieces = [chunk("old#0", "old"), chunk("later#0", "the zanzibarword"), chunk("kept#0", "kept")]
    await first.upsert("c", model, pieces, vectors(3))
    await first.delete("c", ["old"], [])
    await rewriting.wait()
    await first.delete("c", ["later"], [])
    may_go_on.set()
    await until(lambda: asyncio.sleep(0, first.all_tenants._shards.get("c").changed is None))
    await first.store.close()

    second = await opened(open_edge, tmp_path, quiet_s=0.01)

    async def gone() -> bool:
        return not await asyncio.to_thread(files_with, tmp_path, b"zanzibarword")

    await until(gone)
    assert (await second.document("c", "kept"))[0].text == "kept"
    await second.store.close()
