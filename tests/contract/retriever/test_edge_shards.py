"""The edge store: open and set-aside shards, and a full disk."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from raglan.errors import Conflict, StorageFull
from raglan_retriever.index import Index
from raglan_retriever.query import Limits, Query
from raglan_retriever.stores.folders import copy_sparse

# Edge holds the interpreter while it opens, flushes and closes, whatever thread calls it.
pytestmark = pytest.mark.loop_stall_s(1.0)


async def opened(open_edge, path: Path, **settings) -> Index:
    store = open_edge(path, **settings)
    await store.open()
    return Index(store, limits=Limits(), language="en")


async def until(condition: Callable[[], bool], limit_s: float = 30) -> None:
    give_up = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < give_up, "the condition never held"
        await asyncio.sleep(0.02)


def search_threads() -> int:
    """Threads of this process that belong to shards."""
    names = []
    for task in Path("/proc/self/task").iterdir():
        try:
            names.append((task / "comm").read_text())
        except FileNotFoundError:
            continue
    return sum(name.startswith("edge-search") for name in names)


def open_shards(index: Index) -> list[str]:
    shards = index.all_tenants._shards
    return [name for name in shards.names() if shards.get(name).shard is not None]


@pytest.fixture
async def filled(open_edge, tmp_path, chunk, vectors, model):
    """A folder with the collections c0 to c3, a document each."""
    index = await opened(open_edge, tmp_path)
    for number in range(4):
        name = f"c{number}"
        await index.create(name, model, 0, 0)
        await index.upsert(name, model, [chunk("d#0", f"word{number}")], vectors(1, seed=number))
    await index.store.close()
    return tmp_path


async def find(index: Index, number: int) -> list[str]:
    found = (await index.search(Query((f"c{number}",), "lexical", 5, text=f"word{number}"))).found
    return [hit.chunk.text for hit in found]


async def test_no_more_than_the_limit_stay_open_and_all_are_served(filled, open_edge):
    before = search_threads()
    index = await opened(open_edge, filled, max_open=2)
    for _ in range(2):
        for number in range(4):
            assert await find(index, number) == [f"word{number}"]
            assert len(open_shards(index)) <= 2
    # A thread that ends is listed a little longer.
    await until(lambda: search_threads() - before <= 2 * len(os.sched_getaffinity(0)))
    await index.store.close()
    await until(lambda: search_threads() == before)


async def test_listing_opens_no_closed_collection(filled, open_edge, chunk, vectors, model):
    """Closed collections are listed with their sizes without being opened."""
    index = await opened(open_edge, filled, max_open=2)
    was_open = open_shards(index)
    listed = await index.all_stats()
    assert [(c.name, s.chunks, s.documents) for c, s in listed] == [
        (f"c{number}", 1, 1) for number in range(4)
    ]
    assert open_shards(index) == was_open
    closed = next(name for name, _ in ((c.name, s) for c, s in listed) if name not in was_open)
    await index.upsert(closed, model, [chunk("e#0"), chunk("f#0")], vectors(2))
    assert (await index.stats(closed))[1].documents == 3
    await index.store.close()


async def test_what_is_unused_is_closed_and_opened_again(filled, open_edge):
    index = await opened(open_edge, filled, close_after_s=0.1)
    await until(lambda: open_shards(index) == [])
    assert await find(index, 3) == ["word3"]
    assert open_shards(index) == ["c3"]
    await index.store.close()


async def test_a_written_collection_is_counted_anew_after_a_crash(
    filled, open_edge, chunk, vectors, model, tmp_path_factory
):
    index = await opened(open_edge, filled)
    await index.upsert("c1", model, [chunk("e#0", "fresh")], vectors(1))
    crashed = tmp_path_factory.mktemp("crashed") / "index"
    await asyncio.to_thread(shutil.copytree, filled, crashed, copy_function=copy_sparse)
    await index.store.close()
    again = await opened(open_edge, crashed, max_open=1)
    sizes = {c.name: stats.chunks for c, stats in await again.all_stats()}
    assert sizes == {f"c{number}": 2 if number == 1 else 1 for number in range(4)}
    await again.store.close()


async def test_more_collections_than_the_limit_are_refused(filled, open_edge, model):
    index = await opened(open_edge, filled, max_collections=4)
    with pytest.raises(Conflict, match=r"holds 4 .* limit is 4 \(RAGLAN_RETRIEVER_MAX_COLL"):
        await index.create("more", model, 0, 0)
    await index.create("c1", model, 0, 0)
    await index.store.close()


def break_description(folder: Path) -> None:
    (folder / "collection.json").write_text("{")


def remove_description(folder: Path) -> None:
    (folder / "collection.json").unlink()


def break_log(folder: Path) -> None:
    for path in folder.glob("shard-*/wal/open-*"):
        with path.open("r+b") as file:
            file.write(b"\xff" * 4096)


def remove_segment_description(folder: Path) -> None:
    for path in folder.glob("shard-*/segments/*/segment.json"):
        path.unlink()


def remove_shard(folder: Path) -> None:
    for path in folder.glob("shard-*"):
        shutil.rmtree(path)


@pytest.mark.parametrize(
    "damage",
    [
        break_description,
        remove_description,
        break_log,
        remove_segment_description,
        remove_shard,
    ],
)
async def test_a_damaged_collection_is_set_aside_and_the_others_are_served(
    filled, open_edge, model, damage
):
    damage(filled / "c2")
    index = await opened(open_edge, filled)
    for number in (0, 1, 3):
        assert await find(index, number) == [f"word{number}"]
    assert list(index.store.set_aside()) == ["c2"]
    with pytest.raises(Conflict, match="'c2' is set aside: it is damaged: .*restore"):
        await find(index, 2)
    with pytest.raises(Conflict, match="damaged"):
        await index.create("c2", model, 0, 0)
    assert "c2" not in [c.name for c, _ in await index.all_stats()]
    assert (await index.drop("c2")).chunks == 0
    await index.create("c2", model, 0, 0)
    assert index.store.set_aside() == {}
    await index.store.close()


async def test_damage_that_a_search_meets_is_an_error_of_that_collection(filled, open_edge):
    for path in (filled / "c2").glob("shard-*/segments/*/payload_storage/page_0.dat"):
        os.truncate(path, 10)
    index = await opened(open_edge, filled)
    with pytest.raises(Conflict, match="'c2' cannot be read"):
        await find(index, 2)
    assert await find(index, 3) == ["word3"]
    await index.store.close()


async def test_a_collection_whose_opening_ended_the_process_thrice_is_set_aside(filled, open_edge):
    (filled / "c2" / ".opening").write_text("3")
    index = await opened(open_edge, filled)
    with pytest.raises(Conflict, match=r"ended the process 3 times; remove .*\.opening"):
        await find(index, 2)
    await index.store.close()
    (filled / "c2" / ".opening").unlink()
    again = await opened(open_edge, filled)
    assert await find(again, 2) == ["word2"]
    await again.store.close()


async def test_without_space_writes_are_refused_and_reads_go_on(
    filled, open_edge, chunk, vectors, model
):
    more_than_there_is = shutil.disk_usage(filled).total // 1_000_000 + 1
    index = await opened(open_edge, filled, min_free_mb=5 * more_than_there_is)
    with pytest.raises(StorageFull, match="MB free; .*RAGLAN_RETRIEVER_MIN_FREE_MB"):
        await index.upsert("c1", model, [chunk("e#0")], vectors(1))
    with pytest.raises(StorageFull):
        await index.create("new", model, 0, 0)
    with pytest.raises(StorageFull):
        await index.delete("c1", ["d"], [])
    assert await find(index, 1) == ["word1"]
    assert (await index.stats("c1"))[1].chunks == 1
    assert (await index.drop("c1")).chunks == 1
    await index.store.close()


def make_sparse(collection: Path) -> list[Path]:
    """Rewrite a collection without the blocks that hold nothing, as some backups do."""
    sparse = []
    for path in collection.rglob("*.dat"):
        data = path.read_bytes()
        if not any(data):
            path.write_bytes(b"")
            os.truncate(path, len(data))
            sparse.append(path)
    return sparse


async def test_files_get_their_blocks_before_a_shard_is_mapped(filled, open_edge, monkeypatch):
    """Else a full disk ends the process: SIGBUS."""
    sparse = [path for path in make_sparse(filled / "c1") if path.stat().st_size <= 8 << 20]
    assert sparse

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        index = await opened(open_edge, filled)
        with pytest.raises(StorageFull, match="full"):
            await find(index, 1)
        assert await find(index, 2) == ["word2"]
        assert index.store.set_aside() == {}
    assert await find(index, 1) == ["word1"]
    assert all(path.stat().st_blocks * 512 >= path.stat().st_size for path in sparse)
    await index.store.close()


async def test_deletions_may_use_some_of_the_space_that_is_kept_free(
    filled, open_edge, chunk, vectors, model
):
    free = shutil.disk_usage(filled).free // 1_000_000
    index = await opened(open_edge, filled, min_free_mb=2 * free)
    with pytest.raises(StorageFull):
        await index.upsert("c1", model, [chunk("e#0")], vectors(1))
    assert (await index.delete("c1", ["d"], [])).chunks == 1
    await index.store.close()
