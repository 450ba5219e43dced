"""Several collections in one search: each with its time, its budget and its error."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from raglan.errors import Conflict, DeadlineExceeded, InvalidInput, NotFound, RaglanError
from raglan_retriever.collection import Model
from raglan_retriever.index import Index
from raglan_retriever.query import Limits, Query
from raglan_retriever.searching import Results
from stalling_store import StallingStore

# Edge holds the interpreter while it opens a collection, whatever thread calls it.
pytestmark = pytest.mark.loop_stall_s(1.0)

BUDGET_S = 3.0
OTHER = Model("other-model", "r1", 4)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[StallingStore]:
    made = StallingStore(tmp_path)
    await made.open()
    yield made
    made.released.set()
    await made.close()


@pytest.fixture
async def index(store: StallingStore, chunk: Callable, vectors: Callable, model: Model) -> Index:
    """Collections a, b and c with three chunks each; d has vectors of another model."""
    made = Index(store, limits=Limits(), language="en")
    for number, name in enumerate("abc"):
        await made.create(name, model, 0, 0)
        rows = vectors(3, seed=number)
        texts = [chunk(f"{name}{n}", f"pears number{n} of {name}") for n in range(3)]
        await made.upsert(name, model, texts, rows)
    await made.create("d", OTHER, 0, 0)
    await made.upsert("d", OTHER, [chunk("d0", "pears")], vectors(1, dimension=4))
    return made


def asked(model: Model, names: str, **changes: Any) -> Query:
    row = np.ones(model.dimension, np.float32) / np.sqrt(model.dimension)
    query = Query(tuple(names), "hybrid", 20, "pears", row, model, collection_budget_s=BUDGET_S)
    return replace(query, **changes)


def outcome(results: Results) -> dict[str, type[RaglanError] | None]:
    return {each.collection: type(each.error) if each.error else None for each in results.searched}


async def test_each_collection_has_its_time_and_its_hits(index: Index, model: Model) -> None:
    results = await index.search(asked(model, "ab"))
    assert [(each.collection, each.hits, each.error) for each in results.searched] == [
        ("a", 3, None),
        ("b", 3, None),
    ]
    assert all(0 < each.seconds < BUDGET_S for each in results.searched)
    assert set(results.revisions) == {"a", "b"}


async def test_a_budget_changes_nothing_where_all_answer(index: Index, model: Model) -> None:
    free = await index.search(asked(model, "abc", collection_budget_s=None))
    assert (await index.search(asked(model, "abc"))).found == free.found


@pytest.mark.parametrize("stalls_fetch", [False, True], ids=["search", "fetch"])
async def test_a_collection_that_stalls_is_left_out_at_its_budget(
    index: Index, store: StallingStore, model: Model, stalls_fetch: bool
) -> None:
    store.stalled, store.stalls_fetch = "b", stalls_fetch
    began = time.monotonic()
    results = await index.search(asked(model, "abc"))
    assert time.monotonic() - began < 10 * BUDGET_S
    assert outcome(results) == {"a": None, "b": DeadlineExceeded, "c": None}
    assert {each.collection for each in results.found} == {"a", "c"}
    assert set(results.revisions) == {"a", "c"}


async def test_a_stalled_collection_leaves_threads_to_the_others(
    index: Index, store: StallingStore, model: Model
) -> None:
    """Its hung calls would fill the threads; it has been left out, and they hang on."""
    store.stalled = "b"
    stalled = [asyncio.create_task(index.search(asked(model, "ab"))) for _ in range(4)]
    assert [outcome(await each)["a"] for each in stalled] == [None] * 4
    alone = await index.search(asked(model, "ac"))
    assert outcome(alone) == {"a": None, "c": None}
    assert max(each.seconds for each in alone.searched) < BUDGET_S


async def test_a_collection_of_another_model_is_left_out(index: Index, model: Model) -> None:
    results = await index.search(asked(model, "ad"))
    assert outcome(results) == {"a": None, "d": Conflict}
    assert "other-model" in str(results.searched[1].error)
    assert len(results.found) == 3


async def test_words_find_collections_of_all_models(index: Index, model: Model) -> None:
    results = await index.search(asked(model, "ad", mode="lexical"))
    assert outcome(results) == {"a": None, "d": None}
    assert len(results.found) == 4


async def test_a_missing_collection_fails_the_search(index: Index, model: Model) -> None:
    with pytest.raises(NotFound, match="'z'"):
        await index.search(asked(model, "abz"))


async def test_a_search_that_no_collection_answers_fails(
    index: Index, store: StallingStore, model: Model
) -> None:
    with pytest.raises(Conflict, match="other-model"):
        await index.search(asked(model, "d"))
    store.stalled = "b"
    with pytest.raises(DeadlineExceeded, match="'b'"):
        await index.search(asked(model, "bd"))


async def test_without_a_budget_the_first_error_is_the_search_s(index: Index, model: Model) -> None:
    with pytest.raises(Conflict, match="other-model"):
        await index.search(asked(model, "ad", collection_budget_s=None))


async def test_too_many_collections_are_refused(index: Index, model: Model) -> None:
    names = tuple(f"c{number}" for number in range(17))
    with pytest.raises(InvalidInput, match="17 collections; the limit is 16"):
        await index.search(asked(model, "", collections=names))


def test_a_budget_is_at_most_half_of_the_time_left(model: Model) -> None:
    query = asked(model, "ab")
    assert query.within(10).collection_budget_s == BUDGET_S
    assert query.within(0.2).collection_budget_s == pytest.approx(0.1)
    assert asked(model, "ab", collection_budget_s=None).within(0.2).collection_budget_s is None
