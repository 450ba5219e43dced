"""What a backup reads of one index makes the same index elsewhere."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from raglan.errors import Conflict, InvalidInput, NotFound
from raglan_retriever import wire
from raglan_retriever.collection import FORMAT, Model
from raglan_retriever.index import Index
from raglan_retriever.query import Limits, Query
from raglan_retriever.stores.qdrant import QdrantStore
from raglan_retriever.transfer import Transfer

TEXTS = (
    "Cats purr when they are content",
    "A cat sleeps most of the day",
    "Birds sing in the morning",
    "¿",
)


@pytest.fixture
async def filled(index: Index, chunk: Any, vectors: Any, model: Model) -> Index:
    """Collection "animals": one chunk with no word in it."""
    await index.create("animals", model, 1000, 100)
    chunks = [chunk(f"d{n}#v.0", text, metadata={"n": n}) for n, text in enumerate(TEXTS)]
    await index.upsert("animals", model, chunks, vectors(len(chunks)), [0.5] * len(chunks))
    return index


@pytest.fixture(params=["edge", pytest.param("qdrant", marks=pytest.mark.loop_stall_s(2.0))])
async def elsewhere(
    request: pytest.FixtureRequest, tmp_path: Path, open_edge: Any, open_local: Any
) -> Any:
    """Another index, of each kind of store."""
    is_edge = request.param == "edge"
    store = open_edge(tmp_path / "elsewhere") if is_edge else QdrantStore(open_local())
    await store.open()
    yield Index(store, limits=Limits(), language="de")
    await store.close()


async def found(index: Index, query: Query) -> list[tuple[str, float | None, float | None]]:
    hits = (await index.search(query)).found
    return [(hit.chunk.chunk_id, hit.dense, hit.lexical) for hit in hits]


def over_the_wire(name: str, held: Any) -> Any:
    return wire.indexed_from_proto(wire.indexed_to_proto(name, held))


async def test_a_copy_gives_the_same_chunks_scores_and_description(
    filled: Index, elsewhere: Index, chunk: Any, vectors: Any, model: Model
) -> None:
    source, target = Transfer(filled), Transfer(elsewhere)
    ids = [f"d{n}#v.0" for n in range(len(TEXTS))]
    held = over_the_wire("animals", await source.chunks("animals", [*ids, "gone#v.0"]))
    assert [each.chunk_id for each in held.chunks] == ids

    described = wire.description_to_proto(await source.description("animals"))
    await target.create(wire.description_from_proto(described))
    await target.add("animals", held)

    assert await target.description("animals") == await source.description("animals")
    assert (await elsewhere.document("animals", "d1"))[0] == held.chunks[1]
    for query in (
        Query(("animals",), "dense", 9, vector=vectors(4)[1], model=model),
        Query(("animals",), "lexical", 9, text="sleeping cats"),
    ):
        copied, first = await found(elsewhere, query), await found(filled, query)
        assert [row[0] for row in copied] == [row[0] for row in first] != []
        for mine, theirs in zip(copied, first, strict=True):
            assert mine[1:] == pytest.approx(theirs[1:], abs=1e-6)


async def test_chunks_of_an_earlier_analysis_are_analysed_anew(
    filled: Index, elsewhere: Index
) -> None:
    source, target = Transfer(filled), Transfer(elsewhere)
    held = await source.chunks("animals", ["d0#v.0", "d1#v.0"])
    old = replace(await source.description("animals"), analysis=0, languages=("fr",))
    made = await target.create(old)
    assert made.languages == ()
    await target.add("animals", replace(held, analysis=0, lexical=[]))
    assert len(await found(elsewhere, Query(("animals",), "lexical", 9, text="cat"))) == 2


async def test_vectors_that_do_not_fit_are_refused_whole(filled: Index, elsewhere: Index) -> None:
    source, target = Transfer(filled), Transfer(elsewhere)
    held = await source.chunks("animals", ["d0#v.0", "d1#v.0"])
    await target.create(await source.description("animals"))
    with pytest.raises(InvalidInput, match="shape"):
        await target.add("animals", replace(held, vectors=np.zeros((1, 8), np.float32)))
    with pytest.raises(Conflict, match="come from"):
        await target.add("animals", replace(held, model=Model("other", "1", 8)))
    assert await elsewhere.count("animals", ["d0", "d1"]) == [0, 0]


async def test_unknown_collections_and_bad_descriptions_are_refused(index: Index) -> None:
    transfer = Transfer(index)
    with pytest.raises(NotFound):
        await transfer.chunks("none", ["a"])
    with pytest.raises(InvalidInput, match="1 to 1000"):
        await transfer.chunks("none", [])
    message = wire.retriever_pb2.CollectionDescription(name="c", json="[]")
    with pytest.raises(InvalidInput, match="not one that a retriever wrote"):
        wire.description_from_proto(message)


async def test_a_page_holds_what_fits_and_at_least_one_chunk(filled: Index) -> None:
    held = await Transfer(filled).chunks("animals", ["d0#v.0", "d1#v.0", "d2#v.0"])
    assert len(wire.indexed_to_proto("animals", held, page_bytes=1).chunks) == 1
    page = wire.indexed_from_proto(wire.indexed_to_proto("animals", held, page_bytes=200))
    assert 1 <= len(page.chunks) < 3
    assert len(page.vectors) == len(page.lexical) == len(page.chunks)


def raise_format(path: Path) -> None:
    held = json.loads(path.read_text())
    held["collection"] |= {"format": FORMAT + 1, "shape": "unheard of"}
    path.write_text(json.dumps(held))


async def test_a_collection_of_a_newer_version_is_set_aside_in_one_line(
    tmp_path: Path, open_edge: Any, model: Model
) -> None:
    """And keeps its files: the newer version serves it again."""
    store = open_edge(tmp_path)
    await store.open()
    index = Index(store, limits=Limits(), language="en")
    for name in ("newer", "today"):
        await index.create(name, model, 0, 0)
    await store.close()
    path = tmp_path / "newer" / "collection.json"
    raise_format(path)
    written = path.read_text()

    store = open_edge(tmp_path)
    await store.open()
    try:
        assert [each.name for each in await store.collections()] == ["today"]
        reason = store.set_aside()["newer"]
        assert f"newer version of Raglan (format {FORMAT + 1}; this one reads up to" in reason
        assert "damaged" not in reason
        assert "\n" not in reason
        with pytest.raises(Conflict, match="upgrade the retriever"):
            await store.count("newer", None)
        assert path.read_text() == written
    finally:
        await store.close()


async def test_a_field_of_a_later_version_is_left_out(filled: Index) -> None:
    held = await filled.store.collection("animals")
    assert held.from_json(held.to_json() | {"colour": "green"}) == held


async def test_qdrant_sets_a_collection_of_a_newer_version_aside(
    open_local: Any, model: Model
) -> None:
    from raglan_retriever.stores.qdrant import QdrantStore

    client = open_local()
    store = QdrantStore(client)
    index = Index(store, limits=Limits(), language="en")
    for name in ("newer", "today"):
        await index.create(name, model, 0, 0)
    stored = (await store.collection("newer")).to_json() | {"format": FORMAT + 1}
    await client.update_collection("newer", metadata={"raglan": stored})

    assert [each.name for each in await store.collections()] == ["today"]
    assert "upgrade the retriever" in store.set_aside()["newer"]
    with pytest.raises(Conflict, match="upgrade the retriever"):
        await store.collection("newer")
    await store.drop("newer")
    await store.collections()
    assert store.set_aside() == {}
    await store.close()
