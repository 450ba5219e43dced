"""Chunks beside those that a search found, on every store: by version, filter, tenant and tags."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from raglan import access_tags, tenancy
from raglan.errors import InvalidInput
from raglan.filtering.clauses import Terms
from raglan.filtering.terms import term
from raglan_retriever.index import Index
from raglan_retriever.neighbours import MAX_CHUNKS, Neighbourhood


@pytest.fixture
async def filled(index: Index, chunk: Any, vectors: Any, model: Any) -> Index:
    """Six chunks of document "a", of its earlier version four; and one of another document."""
    with access_tags.serving(None):
        await index.create("c", model, 0, 0)
        pieces = [
            replace(
                chunk(f"a#{version}.{n}", f"{version} {n}", ordinal=n, metadata={"odd": n % 2}),
                gap_before="\n\n",
                section=(n, n + 1),
            )
            for version, count in (("new", 6), ("old", 4))
            for n in range(count)
        ]
        pieces.append(chunk("b#new.0", "other"))
        await index.upsert("c", model, pieces, vectors(len(pieces)))
        return index


def around(first: int, last: int, *, collection: str = "c", version: str = "new") -> Neighbourhood:
    return Neighbourhood(collection, f"a#{version}.2", 2, first, last)


async def texts(index: Index, *wanted: Neighbourhood, where: Any = None) -> list[str]:
    return sorted(chunk.text for _, chunk in await index.neighbours(wanted, where))


async def test_neighbours_are_of_the_same_version_each_once(filled: Index) -> None:
    with access_tags.serving(None):
        assert await texts(filled, around(1, 3), around(2, 4)) == [f"new {n}" for n in range(1, 5)]
        assert await texts(filled, around(3, 9, version="old")) == ["old 3"]
        ((_, chunk),) = await filled.neighbours([around(3, 3)], None)
        assert (chunk.gap_before, chunk.section) == ("\n\n", (3, 4))


async def test_the_filter_of_the_search_holds_for_neighbours(filled: Index) -> None:
    with access_tags.serving(None):
        odd = Terms((term("odd", 1),))
        assert await texts(filled, around(0, 5), where=odd) == ["new 1", "new 3", "new 5"]


async def test_ids_that_tell_nothing_and_collections_that_are_gone_have_none(filled: Index) -> None:
    with access_tags.serving(None):
        assert await texts(filled, Neighbourhood("c", "of another writer", 2, 0, 5)) == []
        assert await texts(filled, around(0, 5, collection="gone"), around(1, 1)) == ["new 1"]


async def test_neighbours_of_a_tagged_document_are_read_with_its_tag_alone(filled: Index) -> None:
    with access_tags.serving(None):
        await filled.label("c", {"a": ("{}", ["hr"])})
    for held, expected in (((), 0), (("legal",), 0), (("hr",), 6), (None, 6)):
        with access_tags.serving(held):
            assert len(await texts(filled, around(0, 5))) == expected


async def test_another_tenant_has_no_neighbours_here(filled: Index, model: Any) -> None:
    with access_tags.serving(None), tenancy.serving("acme"):
        assert await texts(filled, around(0, 5)) == []
        await filled.create("c", model, 0, 0)
        assert await texts(filled, around(0, 5)) == []


async def test_more_than_the_limit_are_refused(filled: Index) -> None:
    with pytest.raises(InvalidInput, match=f"the limit is {MAX_CHUNKS}"):
        await filled.neighbours([around(0, MAX_CHUNKS)], None)
