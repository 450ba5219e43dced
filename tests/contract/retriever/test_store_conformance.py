"""What both stores must do alike."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest
from raglan.errors import Conflict, InvalidInput, NotFound
from raglan.filtering.clauses import All, Terms
from raglan.filtering.terms import term
from raglan_retriever.collection import Model
from raglan_retriever.index import Index
from raglan_retriever.query import Fusion, Query


@pytest.fixture
async def filled(index, chunk, vectors, model):
    """Collection "animals": four chunks of two documents."""
    await index.create("animals", model, 1000, 100)
    chunks = [
        chunk("cats#0", "Cats purr when they are content", ordinal=0, metadata={"legs": 4}),
        chunk("cats#1", "A cat sleeps most of the day", ordinal=1, metadata={"legs": 4}),
        chunk("birds#0", "Birds sing in the morning", ordinal=0, metadata={"legs": 2}),
        chunk("birds#1", "Some birds do not fly", ordinal=1, metadata={"legs": 2}),
    ]
    await index.upsert("animals", model, chunks, vectors(4))
    return index


async def ids(index: Index, query: Query) -> list[str]:
    return [found.chunk.chunk_id for found in (await index.search(query)).found]


def lexical(text: str, *names: str, limit: int = 10) -> Query:
    return Query(names or ("animals",), "lexical", limit, text=text)


async def test_a_chunk_comes_back_as_it_went_in(index, chunk, vectors, model):
    await index.create("c", model, 1000, 100)
    there = replace(
        chunk("d#0", "Zürich \x00 天气 🎉", heading_path=("One", "Two"), title="T"),
        metadata_json='{"big": 9007199254740993, "nested": {"a": [1, null]}}',
        start=5,
        end=17,
        ordinal=3,
    )
    await index.upsert("c", model, [there], vectors(1))
    assert await index.document("c", "d") == [there]


async def test_the_nearest_vector_comes_first_with_its_cosine(filled, vectors, model):
    query = vectors(4)[2] * 3
    query = Query(("animals",), "dense", 4, vector=query, model=model)
    found = (await filled.search(query)).found
    cosines = sorted((vectors(4) @ vectors(4)[2]).tolist(), reverse=True)
    assert found[0].chunk.chunk_id == "birds#0"
    assert [hit.dense for hit in found] == pytest.approx(cosines, abs=1e-5)
    assert all(hit.fused is None and hit.lexical is None for hit in found)


async def test_words_are_found_by_their_stem(filled):
    assert set(await ids(filled, lexical("sleeping cats"))) == {"cats#0", "cats#1"}


async def test_a_rare_word_weighs_more_than_a_common_one(filled):
    assert (await ids(filled, lexical("birds purr")))[0] == "cats#0"


async def test_title_and_headings_are_found_too(index, chunk, vectors, model):
    await index.create("c", model, 0, 0)
    chunks = [chunk("a#0", title="Zebra"), chunk("b#0", heading_path=("Okapi",)), chunk("c#0")]
    await index.upsert("c", model, chunks, vectors(3))
    assert set(await ids(index, lexical("zebra okapi", "c"))) == {"a#0", "b#0"}


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("今天天气很好", "天气"),
        ("مرحبا بالعالم", "بالعالم"),
        ("Привет мир", "мир"),
        ("v1.5", "1.5"),
    ],
)
async def test_other_scripts_and_numbers_match(index, chunk, vectors, model, text, query):
    await index.create("c", model, 0, 0)
    await index.upsert("c", model, [chunk("x#0", text), chunk("y#0", "plain")], vectors(2))
    assert await ids(index, lexical(query, "c")) == ["x#0"]


@pytest.mark.parametrize("text", ["🎉", "the of and", "???", "\x00"])
async def test_a_query_without_words_finds_nothing_and_does_not_fail(filled, text):
    assert await ids(filled, lexical(text)) == []


async def test_hybrid_finds_what_either_leg_finds(filled, vectors, model):
    query = Query(("animals",), "hybrid", 4, text="purr", vector=vectors(4)[3], model=model)
    found = {hit.chunk.chunk_id: hit for hit in (await filled.search(query)).found}
    assert len(found) == 4
    assert found["cats#0"].lexical is not None
    assert found["birds#1"].lexical is None
    assert found["birds#1"].dense == pytest.approx(1.0, abs=1e-5)
    assert all(hit.fused is not None for hit in found.values())


async def test_the_weights_decide_which_leg_wins(filled, vectors, model):
    query = Query(("animals",), "hybrid", 1, text="purr", vector=vectors(4)[3], model=model)
    dense = replace(query, fusion=Fusion("min_max", 1, 0.1))
    words = replace(query, fusion=Fusion("min_max", 0.1, 1))
    assert await ids(filled, dense) == ["birds#1"]
    assert await ids(filled, words) == ["cats#0"]


async def test_the_same_chunk_id_replaces(filled, chunk, vectors, model):
    await filled.upsert("animals", model, [chunk("cats#0", "Dogs bark")], vectors(1, seed=9))
    assert await ids(filled, lexical("purr")) == []
    assert await ids(filled, lexical("bark")) == ["cats#0"]
    assert (await filled.stats("animals"))[1].chunks == 4


async def test_deleting_a_document_leaves_the_others(filled):
    assert (await filled.delete("animals", ["cats", "ghost"], [])).chunks == 2
    assert await filled.count("animals", ["cats", "birds", "ghost"]) == [0, 2, 0]
    assert await ids(filled, lexical("cat")) == []


async def test_deleting_spares_the_chunks_to_keep(filled):
    assert (await filled.delete("animals", ["cats"], ["cats#1", "birds#0"])).chunks == 1
    assert [c.chunk_id for c in await filled.document("animals", "cats")] == ["cats#1"]


async def test_a_document_comes_in_the_order_of_its_chunks(index, chunk, vectors, model):
    await index.create("c", model, 0, 0)
    shuffled = [int(n) for n in np.random.default_rng(1).permutation(700)]
    chunks = [chunk(f"d#{n}", ordinal=n) for n in shuffled]
    await index.upsert("c", model, chunks, vectors(700))
    assert [c.ordinal for c in await index.document("c", "d")] == list(range(700))


async def test_a_document_that_is_not_there_is_not_found_by_name(filled):
    with pytest.raises(NotFound, match="'ghost'"):
        await filled.document("animals", "ghost")


async def test_statistics_count_chunks_and_documents(filled):
    collection, stats = await filled.stats("animals")
    assert (stats.chunks, stats.documents, stats.unindexed_chunks) == (4, 2, 4)
    assert (collection.max_chars, collection.overlap_chars) == (1000, 100)


async def test_creating_twice_with_the_same_settings_is_the_same(filled, model):
    again = await filled.create("animals", model, 1000, 100)
    assert again.mean_length.chunks == 4
    assert (await filled.stats("animals"))[1].chunks == 4


async def test_creating_twice_with_other_settings_conflicts(filled, model):
    with pytest.raises(Conflict, match="exists with other settings"):
        await filled.create("animals", replace(model, revision="r2"), 1000, 100)


async def test_a_name_that_is_no_folder_name_is_refused(index, model):
    for name in ("", "A", "-a", "_a", "a" * 65, "a/b", "..", "a\n", "a.b", "ä", ".new-a", "a\x00"):
        with pytest.raises(InvalidInput, match="cannot name a collection"):
            await index.create(name, model, 0, 0)


async def test_vectors_of_another_model_are_refused_with_both_names(filled, chunk, vectors, model):
    for other in (
        Model("other", "r1", 8),
        replace(model, revision="r2"),
        replace(model, dimension=9),
    ):
        made = vectors(1, dimension=other.dimension)
        both = f"{model};.*{other}"
        with pytest.raises(Conflict, match=both):
            await filled.upsert("animals", other, [chunk("x#0")], made)
        with pytest.raises(Conflict, match=both):
            await filled.search(Query(("animals",), "dense", 1, vector=made[0], model=other))


async def test_a_dropped_collection_is_gone_and_its_name_is_free(filled, model):
    assert (await filled.drop("animals")).chunks == 4
    with pytest.raises(NotFound, match="'animals'"):
        await filled.stats("animals")
    await filled.create("animals", replace(model, dimension=3), 1, 0)
    assert (await filled.stats("animals"))[1].chunks == 0


async def test_every_call_on_an_unknown_collection_names_it(index, chunk, vectors, model):
    query = Query(("ghost",), "dense", 1, vector=vectors(1)[0], model=model)
    for call in (
        index.stats("ghost"),
        index.drop("ghost"),
        index.upsert("ghost", model, [chunk("x#0")], vectors(1)),
        index.delete("ghost", ["d"], []),
        index.document("ghost", "d"),
        index.count("ghost", ["d"]),
        index.search(query),
    ):
        with pytest.raises(NotFound, match=r"^There is no collection 'ghost'\.$"):
            await call


async def test_several_collections_are_searched_as_one(filled, chunk, vectors, model):
    await filled.create("plants", model, 0, 0)
    await filled.upsert("plants", model, [chunk("moss#0", "Cats ignore moss")], vectors(1, seed=7))
    query = Query(
        ("animals", "plants", "animals"),
        "hybrid",
        9,
        text="cats",
        vector=vectors(4)[0],
        model=model,
    )
    found = (await filled.search(query)).found
    assert len(found) == 5
    assert {hit.collection for hit in found} == {"animals", "plants"}
    dense = [(hit.dense, hit.chunk.chunk_id) for hit in found if hit.dense is not None]
    assert max(dense)[1] == "cats#0"


async def test_collections_of_two_models_are_not_searched_together(filled, vectors, model):
    await filled.create("other", replace(model, id="other"), 0, 0)
    query = Query(("animals", "other"), "dense", 1, vector=vectors(1)[0], model=model)
    with pytest.raises(Conflict, match="'other'"):
        await filled.search(query)


async def test_a_filter_holds_for_both_legs(filled, vectors, model):
    where = Terms((term("legs", 2),))
    query = Query(
        ("animals",), "hybrid", 9, text="cat bird", vector=vectors(4)[0], model=model, where=where
    )
    assert set(await ids(filled, query)) == {"birds#0", "birds#1"}


async def test_collections_are_listed_by_name(index, model):
    for name in ("b", "a-1", "a"):
        await index.create(name, model, 0, 0)
    assert [c.name for c, _ in await index.all_stats()] == ["a", "a-1", "b"]


async def test_concurrent_upserts_all_arrive(index, chunk, vectors, model):
    await index.create("c", model, 0, 0)
    await asyncio.gather(
        *(
            index.upsert("c", model, [chunk(f"d{i}#{j}") for j in range(5)], vectors(5, seed=i))
            for i in range(10)
        )
    )
    collection, stats = await index.stats("c")
    assert (stats.chunks, stats.documents) == (50, 10)
    assert collection.mean_length.chunks == 50


async def test_refused_chunks_leave_nothing_behind(index, chunk, vectors, model):
    await index.create("c", model, 0, 0)
    bad = replace(chunk("b#0"), metadata_json="[1]")
    with pytest.raises(InvalidInput, match="'b#0'.*JSON object"):
        await index.upsert("c", model, [chunk("a#0"), bad], vectors(2))
    assert (await index.stats("c"))[1].chunks == 0


async def test_counting_by_any_clause_is_exact(filled):
    both = All((Terms((term("legs", 4),)), Terms((term("document_id", "cats"),))))
    assert await filled.store.count("animals", both) == 2
    assert await filled.store.count("animals", None) == 4
