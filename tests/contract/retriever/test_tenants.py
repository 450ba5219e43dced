"""Tenants on every store: one name, three owners, and a store that mixes them up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from raglan import tenancy
from raglan.errors import NotFound
from raglan.filtering.clauses import Terms
from raglan.filtering.terms import term
from raglan_retriever.index import Index
from raglan_retriever.query import Limits, Query
from raglan_retriever.stores.store import Point, Search, Store
from structlog.testing import capture_logs

TENANTS = ("", "acme", "a-c")


def text_of(tenant: str) -> str:
    return f"The lighthouse of {tenant or 'everyone'} is white"


@pytest.fixture
async def filled(index: Index, chunk: Any, vectors: Any, model: Any) -> Index:
    for tenant in TENANTS:
        with tenancy.serving(tenant):
            await index.create("c", model, 0, 0)
            pieces = [chunk("d#0", text_of(tenant)), chunk("e#0", "A lighthouse keeper")]
            await index.upsert("c", model, pieces, vectors(2))
    return index


async def found(index: Index, mode: Any = "lexical", **more: Any) -> list[str]:
    query = Query(("c",), mode, 10, text="lighthouse", **more)
    return sorted(hit.chunk.text for hit in (await index.search(query)).found)


async def test_each_tenant_finds_its_own_chunks_and_counts_them(
    filled: Index, vectors: Any, model: Any
) -> None:
    for tenant in TENANTS:
        with tenancy.serving(tenant):
            expected = sorted([text_of(tenant), "A lighthouse keeper"])
            assert await found(filled) == expected
            assert await found(filled, "dense", vector=vectors(1)[0], model=model) == expected
            of_document = Terms((term("document_id", "d"),))
            assert await found(filled, where=of_document) == [text_of(tenant)]
            assert await filled.count("c", ["d", "e", "none"]) == [1, 1, 0]
            assert [each.text for each in await filled.document("c", "d")] == [text_of(tenant)]
            described, stats = await filled.stats("c")
            assert (described.name, stats.chunks) == ("c", 2)
            assert [each.name for each, _ in await filled.all_stats()] == ["c"]


async def test_all_tenants_collections_are_listed_by_their_qualified_names(filled: Index) -> None:
    listed = await filled.all_stats(all_tenants=True)
    assert sorted(each.name for each, _ in listed) == ["a-c~c", "acme~c", "c"]


async def test_a_change_of_one_tenant_is_none_of_the_others(
    filled: Index, chunk: Any, vectors: Any, model: Any
) -> None:
    async def revision() -> int:
        return (await filled.search(Query(("c",), "lexical", 1, text="x"))).revisions["c"]

    before = {}
    for tenant in TENANTS:
        with tenancy.serving(tenant):
            before[tenant] = await revision()
    with tenancy.serving("acme"):
        assert (await filled.delete("c", ["d"], [])).chunks == 1
        assert await revision() > before["acme"]
        assert await found(filled) == ["A lighthouse keeper"]
        assert (await filled.drop("c")).chunks == 1
        with pytest.raises(NotFound):
            await filled.stats("c")
    for tenant in ("", "a-c"):
        with tenancy.serving(tenant):
            assert await revision() == before[tenant]
            assert len(await found(filled)) == 2


async def test_a_point_names_its_tenant_and_the_mesh_s_own_names_none(
    filled: Index, chunk: Any, store: Store
) -> None:
    id_ = chunk("d#0").point_id
    (own,) = await store.points("c", [id_])
    (acme,) = await store.points("acme~c", [id_])
    assert "tenant" not in own.payload
    assert acme.payload["tenant"] == "acme"


async def test_a_chunk_of_another_tenant_is_dropped_counted_and_logged_without_its_text(
    store: Store, chunk: Any, vectors: Any, model: Any
) -> None:
    """As if a collection held a foreign point, put there past everything else."""
    counted: list[int] = []
    index = Index(store, limits=Limits(), language="en", on_foreign=counted.append)
    with tenancy.serving("acme"):
        await index.create("c", model, 0, 0)
        await index.upsert("c", model, [chunk("d#0", "The white lighthouse")], vectors(1))
        (held,) = await store.points("acme~c", [chunk("d#0").point_id])
        # It passes the filter, which is the second line of defence, and not the check, the third.
        payload = held.payload | {"tenant": "beta", "text": "A secret lighthouse"}
        foreign = replace(held, id=chunk("f#0").point_id, payload=payload)
        await store.upsert("acme~c", [foreign])
        with capture_logs() as logs:
            assert await found(index) == ["The white lighthouse"]
            assert [each.text for each in await index.document("c", "d")] == [
                "The white lighthouse"
            ]
            ids = [chunk("d#0").point_id, foreign.id]
            assert [each.id for each in await index.store.points("c", ids)] == ids[:1]
    assert sum(counted) == 3
    dropped = [line for line in logs if line["event"] == "foreign chunks were dropped"]
    assert len(dropped) == 3
    assert "secret" not in str(dropped)


async def test_a_filter_keeps_foreign_points_out_of_searches_counts_and_deletions(
    index: Index, store: Store, chunk: Any, vectors: Any, model: Any
) -> None:
    """Without a place in the first hits a foreign point costs no own one."""
    with tenancy.serving("acme"):
        await index.create("c", model, 0, 0)
        await index.upsert("c", model, [chunk("d#0", "The white lighthouse")], vectors(1))
        (held,) = await store.points("acme~c", [chunk("d#0").point_id])
        terms = [each for each in held.payload["terms"] if not each.startswith("@")]
        payload = held.payload | {"tenant": "beta", "terms": [*terms, "@beta"]}
        await store.upsert("acme~c", [replace(held, id=chunk("f#0").point_id, payload=payload)])
        searches = [Search(held.dense, 10), Search(held.dense, 10, with_chunks=True)]
        assert [len(hits) for hits in await store.search("acme~c", searches, None)] == [2, 2]
        assert [len(hits) for hits in await index.store.search("c", searches, None)] == [1, 1]
        assert await index.count("c", ["d"]) == [1]
        assert (await index.delete("c", ["d"], [])).chunks == 1
        assert [len(hits) for hits in await store.search("acme~c", searches, None)] == [1, 1]


async def test_metadata_cannot_pass_for_a_tenant(
    index: Index, store: Store, chunk: Callable[..., Any], vectors: Any, model: Any
) -> None:
    with tenancy.serving("acme"):
        await index.create("c", model, 0, 0)
        forged = {"tenant": "beta", "@beta": "@beta", "terms": ["@beta"]}
        await index.upsert("c", model, [chunk("d#0", "Mine", metadata=forged)], vectors(1))
        held: list[Point] = await store.points("acme~c", [chunk("d#0").point_id])
    assert held[0].payload["tenant"] == "acme"
    assert [each for each in held[0].payload["terms"] if each.startswith("@")] == ["@acme"]
