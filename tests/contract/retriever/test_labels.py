"""Metadata and access tags of documents on every store: changed in place, and enforced."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from raglan import access_tags, tenancy
from raglan.errors import InvalidInput, NotFound
from raglan.filtering.clauses import Numbers, Terms
from raglan.filtering.terms import term
from raglan_retriever.index import Index
from raglan_retriever.query import Limits, Query
from raglan_retriever.stores.store import Store
from structlog.testing import capture_logs

TAGS = ("hr", "legal", "board")


@pytest.fixture(autouse=True)
def everything() -> Any:
    with access_tags.serving(None):
        yield


@pytest.fixture
async def filled(index: Index, chunk: Any, vectors: Any, model: Any) -> Index:
    await index.create("c", model, 0, 0)
    pieces = [
        replace(chunk(f"{name}#{n}", f"The lighthouse {name} {n}", metadata={"v": 1}), title="T")
        for name in ("a", "b")
        for n in range(3)
    ]
    await index.upsert("c", model, pieces, vectors(6))
    return index


async def found(index: Index, where: Any = None, **more: Any) -> list[str]:
    query = Query(("c",), more.pop("mode", "lexical"), 50, text="lighthouse", where=where, **more)
    return sorted(hit.chunk.chunk_id for hit in (await index.search(query)).found)


def held_by(*tags: str) -> Any:
    return access_tags.serving(tags)


async def test_labels_replace_metadata_and_keep_everything_else(
    filled: Index, store: Store, chunk: Any
) -> None:
    ids = [chunk(f"a#{n}").point_id for n in range(3)]
    before = await store.points("c", ids)
    (old,) = await store.versioned(["c"])
    changed = await filled.label("c", {"a": ('{"v":2,"when":"2026-11-29"}', ["hr"])})
    (new,) = await store.versioned(["c"])
    assert (changed.chunks, changed.revision) == (3, new.revision)
    assert new.revision > old.revision
    after = await store.points("c", ids)
    assert [p.payload["text"] for p in after] == [p.payload["text"] for p in before]
    assert np.allclose([p.dense for p in after], [p.dense for p in before])
    assert [p.lexical for p in after] == [p.lexical for p in before]
    assert await found(filled, Terms((term("v", 2),))) == ["a#0", "a#1", "a#2"]
    assert await found(filled, Terms((term("v", 1),))) == ["b#0", "b#1", "b#2"]
    assert await found(filled, Terms((term("title", "T"),))) == await found(filled)
    assert await found(filled, Numbers("v", gte=2)) == ["a#0", "a#1", "a#2"]
    await filled.label("c", {"a": ("{}", [])})
    assert await found(filled, Numbers("v", gte=2)) == []
    assert (await filled.document("c", "a"))[0].metadata_json == "{}"


async def test_labels_that_are_refused_change_nothing(filled: Index) -> None:
    for wrong in (("[]", []), ("{", []), ("{}", ["a b"]), ("{}", ["x" * 65]), ("{}", ["+"])):
        with pytest.raises(InvalidInput):
            await filled.label("c", {"b": ("{}", []), "a": wrong})
    with pytest.raises(InvalidInput, match="the limit is 64"):
        await filled.label("c", {"a": ("{}", [f"t{n}" for n in range(65)])})
    assert len(await found(filled, Terms((term("v", 1),)))) == 6
    assert (await filled.label("c", {"none": ("{}", [])})).chunks == 0
    with pytest.raises(NotFound):
        await filled.label("none", {"a": ("{}", [])})


async def test_a_caller_finds_open_documents_and_those_of_its_tags(
    filled: Index, vectors: Any, model: Any
) -> None:
    await filled.label("c", {"a": ("{}", ["hr", "legal"])})
    a, b = [f"a#{n}" for n in range(3)], [f"b#{n}" for n in range(3)]
    for tags, expected in (((), b), (("board",), b), (("legal", "x"), a + b), (None, a + b)):
        with access_tags.serving(tags):
            assert await found(filled) == expected
            dense = await found(filled, mode="dense", vector=vectors(1)[0], model=model)
            assert dense == expected
            assert await filled.count("c", ["a", "b"]) == [3 if "a#0" in expected else 0, 3]
    with held_by("board"), pytest.raises(NotFound):
        await filled.document("c", "a")


async def test_tags_travel_with_a_chunk_into_another_index(
    filled: Index, chunk: Any, vectors: Any, model: Any
) -> None:
    tagged = replace(chunk("z#0", "The lighthouse z"), access=("hr",))
    await filled.upsert("c", model, [tagged], vectors(1))
    (kept,) = await filled.document("c", "z")
    assert kept.access == ("hr",)
    with held_by():
        assert "z#0" not in await found(filled)


async def test_a_chunk_beyond_reach_is_dropped_although_it_passes_the_filter(
    store: Store, chunk: Any, vectors: Any, model: Any
) -> None:
    counted: list[int] = []
    index = Index(store, limits=Limits(), language="en", on_foreign=counted.append)
    await index.create("c", model, 0, 0)
    await index.upsert("c", model, [chunk("d#0", "The white lighthouse")], vectors(1))
    (held,) = await store.points("c", [chunk("d#0").point_id])
    payload = held.payload | {"access": ["hr"], "text": "A secret lighthouse"}
    await store.upsert("c", [replace(held, payload=payload)])
    with held_by("legal"), capture_logs() as logs:
        assert await found(index) == []
        with pytest.raises(NotFound):
            await index.document("c", "d")
        assert await index.store.points("c", [held.id]) == []
    assert sum(counted) == 3
    assert "secret" not in str(logs)
    with held_by("hr"):
        assert await found(index) == ["d#0"]


def _reached(access: Sequence[str], tags: Sequence[str]) -> bool:
    return not access or bool(set(access) & set(tags))


async def test_random_callers_never_find_what_their_tags_do_not_reach(
    index: Index, chunk: Any, vectors: Any, model: Any
) -> None:
    """`make bench-knowledge ONLY=documents` does it with 100,000 results."""
    rng = random.Random(16)
    access: dict[str, list[str]] = {}
    for tenant in ("", "acme"):
        with tenancy.serving(tenant):
            await index.create("c", model, 0, 0)
            pieces = [chunk(f"{n}#0", f"lighthouse {n}") for n in range(200)]
            await index.upsert("c", model, pieces, vectors(200))
    results = foreign = missing = 0
    while results < 4_000:
        labels = {str(n): rng.sample(TAGS, rng.randrange(3)) for n in rng.sample(range(200), 40)}
        await index.label("c", {id_: ("{}", tags) for id_, tags in labels.items()})
        access |= labels
        for _ in range(4):
            tags = tuple(rng.sample(TAGS, rng.randrange(3)))
            expected = {id_ for id_ in map(str, range(200)) if _reached(access.get(id_, []), tags)}
            for mode in ("lexical", "dense"):
                query = Query(
                    ("c",), mode, 200, text="lighthouse", vector=vectors(1)[0], model=model
                )
                with held_by(*tags):
                    hits = {hit.chunk.document_id for hit in (await index.search(query)).found}
                results += len(hits)
                foreign += len(hits - expected)
                missing += len(expected - hits)
    assert (foreign, missing) == (0, 0)


async def test_metadata_of_a_chunk_alone_outlives_labels(
    index: Index, chunk: Any, vectors: Any, model: Any
) -> None:
    await index.create("c", model, 0, 0)
    pieces = [
        replace(
            chunk(f"a#{n}", f"The lighthouse {n}", metadata={"v": 1}),
            own_metadata_json=f'{{"log":{{"level":"{level}"}},"v":9}}',
        )
        for n, level in enumerate(("error", "info"))
    ]
    await index.upsert("c", model, pieces, vectors(2))
    errors = Terms((term("log.level", "error"),))
    assert await found(index, errors) == ["a#0"]
    assert await found(index, Terms((term("v", 9),))) == []
    await index.label("c", {"a": ('{"v":2}', [])})
    assert await found(index, errors) == ["a#0"]
    assert await found(index, Terms((term("v", 2),))) == ["a#0", "a#1"]


async def test_metadata_of_a_chunk_alone_must_be_an_object(
    index: Index, chunk: Any, vectors: Any, model: Any
) -> None:
    await index.create("c", model, 0, 0)
    wrong = replace(chunk("a#0", "The lighthouse"), own_metadata_json="[1]")
    with pytest.raises(InvalidInput, match="alone is not a JSON object"):
        await index.upsert("c", model, [wrong], vectors(1))
