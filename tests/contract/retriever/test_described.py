"""A search by a description that was read before, and may be outdated."""

from __future__ import annotations

from dataclasses import replace

import pytest
from qdrant_client import AsyncQdrantClient
from raglan.errors import Conflict, NotFound
from raglan_retriever.index import Index
from raglan_retriever.query import Limits, Query
from raglan_retriever.stores.qdrant import QdrantStore

pytestmark = pytest.mark.loop_stall_s(2.0)  # the server computes in this process


@pytest.fixture
async def replicas(qdrant_http, chunk, vectors, model):
    """Two retrievers over one server; the second has read the description."""
    url, _ = qdrant_http
    stores = [QdrantStore(AsyncQdrantClient(url, check_compatibility=False)) for _ in range(2)]
    writer, reader = (Index(store, limits=Limits(), language="en") for store in stores)
    await writer.create("c", model, 0, 0)
    await writer.upsert("c", model, [chunk("d#0", "open gates")], vectors(1))
    await reader.versioned(["c"])
    yield writer, reader
    for store in stores:
        await store.close()


def query(vectors, model) -> Query:
    return Query(("c",), "hybrid", 5, "gates", vectors(1)[0], model)


async def test_what_another_replica_wrote_is_found_at_once(replicas, chunk, vectors, model):
    writer, reader = replicas
    before = (await reader.versioned(["c"]))[0].revision
    written = await writer.upsert("c", model, [chunk("e#0", "shut gates")], vectors(1))
    found = await reader.search(query(vectors, model))
    assert {each.chunk.document_id for each in found.found} == {"d", "e"}
    assert before < found.revisions["c"] == written


async def test_a_collection_of_another_model_is_never_searched_by_the_old_one(
    replicas, chunk, vectors, model
):
    """The guess would let the search pass: both models have the same number of dimensions."""
    writer, reader = replicas
    other = replace(model, id="other-model")
    await writer.drop("c")
    await writer.create("c", other, 0, 0)
    await writer.upsert("c", other, [chunk("f#0", "gates")], vectors(1))
    with pytest.raises(Conflict, match="other-model"):
        await reader.search(query(vectors, model))
    assert (await reader.search(query(vectors, other))).found


async def test_a_collection_with_more_dimensions_is_no_internal_error(
    replicas, chunk, vectors, model
):
    writer, reader = replicas
    await writer.drop("c")
    await writer.create("c", replace(model, dimension=16), 0, 0)
    with pytest.raises(Conflict, match="16 dimensions"):
        await reader.search(query(vectors, model))


async def test_a_dropped_collection_is_not_found(replicas, vectors, model):
    writer, reader = replicas
    await writer.drop("c")
    with pytest.raises(NotFound, match="'c'"):
        await reader.search(query(vectors, model))


async def test_a_language_that_came_since_is_searched(replicas, chunk, vectors, model):
    """German words are stemmed another way, so the words by the old description miss them."""
    writer, reader = replicas
    text = "Die Häuser der Städte sind hoch und die Straßen sind lang und breit."
    await writer.upsert("c", model, [chunk("de#0", text)], vectors(1))
    found = await reader.search(Query(("c",), "lexical", 5, "Die Stadt hat ein hohes Haus"))
    assert [each.chunk.document_id for each in found.found] == ["de"]
