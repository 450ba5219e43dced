"""Versions of documents on every store: found as of their time, by no path at another one."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from raglan import access_tags
from raglan.errors import Conflict
from raglan.filtering.clauses import Terms
from raglan.filtering.terms import term
from raglan_retriever.collection import Retention
from raglan_retriever.index import Index
from raglan_retriever.neighbours import Neighbourhood
from raglan_retriever.query import Query
from raglan_retriever.stores.store import Store
from raglan_retriever.validity import KeptVersions, Version

FIRST = "The bilge pump (BP) of hull AX-1234 is old"
SECOND = "The bilge pump (BP) of hull AX-1234 is new"


@pytest.fixture(autouse=True)
def everything() -> Any:
    with access_tags.serving(None):
        yield


@pytest.fixture
async def filled(index: Index, chunk: Any, vectors: Any, model: Any) -> Index:
    """Document "d" with an earlier version of two chunks until 2000, and the present one."""
    await index.create("c", model, 0, 0, versions=Retention(5))
    pieces = [
        replace(
            chunk(f"d#{number}.{n}", f"{text} {n}", ordinal=n, metadata={"state": state}),
            document_id="d",
            access=access,
            version=Version(number, 1_000 * number),
        )
        for number, text, state, access in (
            (1, FIRST, "old", ("crew", "yard")),
            (2, SECOND, "new", ("crew",)),
        )
        for n in range(2)
    ]
    await index.upsert("c", model, pieces, vectors(4))
    kept = KeptVersions(2, ("crew",), {1: 2_000})
    assert (await index.keep_versions("c", {"d": kept})).chunks == 0
    return index


async def found(index: Index, as_of_ms: int | None, model: Any = None, **how: Any) -> list[str]:
    query = Query(("c",), "lexical", 50, text="bilge pump", as_of_ms=as_of_ms)
    hits = (await index.search(replace(query, model=model, **how))).found
    return sorted(hit.chunk.chunk_id for hit in hits)


OLD, NEW = ["d#1.0", "d#1.1"], ["d#2.0", "d#2.1"]


@pytest.mark.parametrize(
    ("as_of_ms", "expected"),
    [(999, []), (1_000, OLD), (1_999, OLD), (2_000, NEW), (10**15, NEW), (None, NEW)],
)
async def test_every_way_to_find_a_chunk_keeps_to_the_time(
    filled: Index, vectors: Any, model: Any, as_of_ms: int | None, expected: list[str]
) -> None:
    assert await found(filled, as_of_ms) == expected
    assert await found(filled, as_of_ms, text="AX-1234") == expected
    assert await found(filled, as_of_ms, text="BP") == expected  # by its definition
    row = vectors(1)[0].astype(np.float32)
    for mode in ("dense", "hybrid"):
        assert await found(filled, as_of_ms, model, mode=mode, vector=row) == expected
    is_old = Terms((term("state", "old"),))
    assert await found(filled, as_of_ms, where=is_old) == (expected if expected == OLD else [])
    for number in (1, 2):
        around = Neighbourhood("c", f"d#{number}.0", 0, 0, 1)
        near = await filled.neighbours([around], None, as_of_ms)
        assert sorted(chunk.chunk_id for _, chunk in near) == [
            id_ for id_ in expected if id_.startswith(f"d#{number}")
        ]


async def test_counts_and_chunks_are_those_of_the_present_version(filled: Index) -> None:
    assert await filled.count("c", ["d"]) == [2]
    assert [c.chunk_id for c in await filled.document("c", "d")] == NEW
    assert [c.chunk_id for c in await filled.document("c", "d", 1)] == OLD
    # What an attempt left behind goes, earlier versions stay.
    assert (await filled.delete("c", ["d"], NEW[:1])).chunks == 1
    assert await found(filled, 1_500) == OLD
    assert (await filled.delete("c", ["d"], ())).chunks == 3
    assert await found(filled, 1_500) == []


async def test_versions_that_are_not_kept_go_and_keeping_again_changes_nothing(
    filled: Index, store: Store
) -> None:
    ids = [chunk.point_id for chunk in await filled.document("c", "d", 1)]
    before = await store.points("c", ids)
    await filled.keep_versions("c", {"d": KeptVersions(2, ("crew",), {1: 9_999})})
    assert [p.payload for p in await store.points("c", ids)] == [p.payload for p in before]
    assert (await filled.keep_versions("c", {"d": KeptVersions(2, ("crew",), {})})).chunks == 2
    assert await found(filled, 1_500) == []
    assert await found(filled, 2_500) == NEW


async def test_an_earlier_version_lets_in_whom_both_it_and_the_document_let_in(
    filled: Index,
) -> None:
    async def reached(*tags: str) -> tuple[list[str], list[str]]:
        with access_tags.serving(tags):
            return await found(filled, 1_500), await found(filled, None)

    # "yard" was let in by the version, and is no longer by the document.
    assert await reached("yard") == ([], [])
    assert await reached("crew") == (OLD, NEW)
    for access, crew, nobody in (((), (OLD, NEW), ([], NEW)), (("board",), ([], []), ([], []))):
        await filled.label("c", {"d": ('{"state":"edited"}', access)})
        assert await reached("crew") == crew
        assert await reached() == nobody
        assert await found(filled, 1_500) == OLD  # who reaches everything
    (chunk, _) = await filled.document("c", "d", 1)
    assert json.loads(chunk.metadata_json) == {"state": "old"}
    await filled.label("c", {"d": ("{}", ["crew"])})
    assert await reached("crew") == (OLD, NEW)


async def test_a_time_is_refused_where_no_versions_are_kept(
    index: Index, chunk: Any, vectors: Any, model: Any
) -> None:
    await index.create("c", model, 0, 0)
    await index.upsert("c", model, [chunk("a#1.0", FIRST)], vectors(1))
    assert await found(index, None) == ["a#1.0"]
    with pytest.raises(Conflict, match="keeps no versions"):
        await found(index, 1_000)
    with pytest.raises(Conflict, match="no earlier versions"):
        await index.create("c", model, 0, 0, versions=Retention(5))
