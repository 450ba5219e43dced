"""The revision of a collection, which every store must keep alike."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from raglan.errors import Conflict, NotFound
from raglan_retriever.chunks import Chunk
from raglan_retriever.collection import Model
from raglan_retriever.index import Index
from raglan_retriever.query import Limits, Query
from raglan_retriever.stores.edge import EdgeStore
from raglan_retriever.stores.null import NullStore
from raglan_retriever.stores.qdrant import QdrantStore
from raglan_retriever.stores.qdrant_revisions import REVISIONS
from raglan_retriever.stores.store import Store

MakeChunk = Callable[..., Chunk]
MakeVectors = Callable[..., np.ndarray]


@pytest.fixture
async def filled(index: Index, chunk: MakeChunk, vectors: MakeVectors, model: Model) -> Index:
    """Collections "c" and "other", each with the documents "a" and "b"."""
    for name in ("c", "other"):
        await index.create(name, model, 0, 0)
        await index.upsert(name, model, [chunk("a#0"), chunk("b#0")], vectors(2))
    return index


async def revision(index: Index, name: str = "c") -> int:
    found = await index.search(Query((name,), "lexical", 10, text="words"))
    return found.revisions[name]


async def test_each_change_raises_the_revision(
    filled: Index, chunk: MakeChunk, vectors: MakeVectors, model: Model
) -> None:
    seen = [await revision(filled)]
    for change in (
        lambda: filled.upsert("c", model, [chunk("d#0")], vectors(1)),
        lambda: filled.upsert("c", model, [chunk("a#0", "other words")], vectors(1)),
        lambda: filled.delete("c", ["a"], []),
        lambda: filled.delete("c", ["b", "d"], ["d#0"]),
    ):
        changed = await change()
        told = changed if isinstance(changed, int) else changed.revision
        seen.append(await revision(filled))
        assert told == seen[-1]
    assert seen == sorted(set(seen))


async def test_what_changes_nothing_leaves_the_revision(
    filled: Index, chunk: MakeChunk, vectors: MakeVectors, model: Model
) -> None:
    before = await revision(filled)
    assert await filled.delete("c", ["ghost"], []) == (0, before)
    assert await filled.delete("c", [], []) == (0, before)
    assert await filled.upsert("c", model, [], vectors(0)) == before
    await filled.upsert("other", model, [chunk("d#0")], vectors(1))
    await filled.create("c", model, 0, 0)
    await filled.stats("c")
    with pytest.raises(Conflict):
        await filled.upsert("c", Model("other", "r1", 8), [chunk("x#0")], vectors(1))
    assert await revision(filled) == before


async def test_a_collection_made_anew_continues_above(
    filled: Index, chunk: MakeChunk, vectors: MakeVectors, model: Model
) -> None:
    before = await revision(filled)
    dropped = (await filled.drop("c")).revision
    await filled.create("c", model, 0, 0)
    empty = await revision(filled)
    await filled.upsert("c", model, [chunk("a#0")], vectors(1))
    assert before < dropped <= empty < await revision(filled)


async def test_a_search_tells_the_revision_of_each_collection(filled: Index) -> None:
    found = await filled.search(Query(("c", "other", "c"), "lexical", 10, text="words"))
    assert found.revisions == {
        "c": await revision(filled),
        "other": await revision(filled, "other"),
    }


async def test_an_unknown_collection_has_no_revision(index: Index, store: Store) -> None:
    with pytest.raises(NotFound, match="'ghost'"):
        await store.versioned(["ghost"])


async def test_concurrent_changes_each_raise_it(
    filled: Index, chunk: MakeChunk, vectors: MakeVectors, model: Model
) -> None:
    """Whoever reads the revision after a change must not find one from before it."""

    async def change(number: int) -> None:
        before = await revision(filled)
        await filled.upsert("c", model, [chunk(f"{number}#0")], vectors(1))
        assert await revision(filled) > before

    await asyncio.gather(*(change(number) for number in range(8)))


@pytest.mark.parametrize("is_crash", [False, True])
async def test_an_edge_store_opened_again_goes_on(
    open_edge: Callable[..., EdgeStore],
    tmp_path: Path,
    chunk: MakeChunk,
    vectors: MakeVectors,
    model: Model,
    is_crash: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After a crash it is raised: what was written last may not be what was searched last."""
    index = Index(open_edge(tmp_path), limits=Limits(), language="en")
    await index.store.open()
    await index.create("c", model, 0, 0)
    await index.upsert("c", model, [chunk("a#0")], vectors(1))
    before = await revision(index)
    if is_crash:
        monkeypatch.setattr(
            "raglan_retriever.stores.folders.Folders.write_counts", lambda *_: False
        )
    await index.store.close()
    monkeypatch.undo()
    # A clock that was set back must not bring revisions back.
    monkeypatch.setattr("time.time_ns", lambda: 0)
    index = Index(open_edge(tmp_path), limits=Limits(), language="en")
    await index.store.open()
    after = await revision(index)
    assert after > before if is_crash else after == before
    assert (await index.drop("c")).revision > before
    await index.store.close()


async def test_a_lost_file_of_revisions_brings_none_back(
    open_edge: Callable[..., EdgeStore], tmp_path: Path, model: Model
) -> None:
    last = 0
    for _ in range(2):
        index = Index(open_edge(tmp_path), limits=Limits(), language="en")
        await index.store.open()
        await index.create("c", model, 0, 0)
        assert await revision(index) > last
        last = (await index.drop("c")).revision
        await index.store.close()
        (tmp_path / ".revisions").unlink()


@pytest.mark.loop_stall_s(2.0)
async def test_retrievers_on_one_qdrant_agree(
    open_local: Callable[[], object], chunk: MakeChunk, vectors: MakeVectors, model: Model
) -> None:
    """Replicas change and search one collection at random; the content decides what is right.

    What a search finds at a revision may be newer than the revision, and never older.
    """
    client = open_local()
    replicas = [
        Index(QdrantStore(client), limits=Limits(), language="en")  # type: ignore[arg-type]
        for _ in range(3)
    ]
    await replicas[0].create("c", model, 0, 0)
    chance = random.Random(1)
    done = 0
    lasting: list[tuple[int, int]] = []
    """Changes that were over when a search began, and the revision that it told."""

    async def change(index: Index, number: int) -> None:
        nonlocal done
        await index.upsert("c", model, [chunk(f"{number}#0")], vectors(1))
        done += 1

    async def search(index: Index) -> None:
        before = done
        told = await revision(index)
        lasting.append((told, before))

    for number in range(40):
        work = [change(chance.choice(replicas), 2 * number + half) for half in range(2)]
        work += [search(chance.choice(replicas)) for _ in range(3)]
        chance.shuffle(work)
        await asyncio.gather(*work)
        await search(chance.choice(replicas))
    by_revision: dict[int, int] = {}
    for told, before in lasting:
        by_revision[told] = max(by_revision.get(told, 0), before)
    counts = [by_revision[told] for told in sorted(by_revision)]
    assert counts == sorted(counts)
    assert len(counts) >= 40


@pytest.mark.loop_stall_s(2.0)
async def test_qdrant_collections_without_a_revision_get_one(
    open_local: Callable[[], object], chunk: MakeChunk, vectors: MakeVectors, model: Model
) -> None:
    client = open_local()
    index = Index(QdrantStore(client), limits=Limits(), language="en")  # type: ignore[arg-type]
    await index.create("c", model, 0, 0)
    before = await revision(index)
    await client.delete_collection(REVISIONS)  # type: ignore[attr-defined]
    after = await revision(index)
    assert after > before
    assert await revision(index) == after


async def test_the_null_store_never_changes() -> None:
    index = Index(NullStore(), limits=Limits(), language="en")
    assert await revision(index) == await revision(index) == 1
