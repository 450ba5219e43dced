"""An exact match leads a hybrid search, and a text is found in its own language."""

from __future__ import annotations

from dataclasses import replace

import identifier_set
import numpy as np
import pytest
from raglan.errors import Conflict
from raglan_retriever.index import Index
from raglan_retriever.query import Query

DIMENSION = 8


async def fill(index: Index, model, chunk, texts: dict[str, str], rows: np.ndarray) -> None:
    await index.create("c", model, 1000, 0)
    chunks = [chunk(f"{id_}#0", text) for id_, text in texts.items()]
    for start in range(0, len(chunks), 500):
        some = slice(start, start + 500)
        await index.upsert("c", model, chunks[some], rows[some])


async def search(index: Index, model, text: str, vector: np.ndarray | None = None, **more):
    vector = np.eye(DIMENSION, dtype=np.float32)[0] if vector is None else vector
    return (await index.search(Query(("c",), "hybrid", 10, text, vector, model, **more))).found


@pytest.mark.parametrize("is_long", [False, True])
async def test_an_identifier_leads_before_hundreds_of_neighbours(index, model, chunk, is_long):
    """The texts that look like the question lie in its direction, those wanted opposite to it."""
    held = identifier_set.make(is_long=is_long)
    rng = np.random.default_rng(0)
    rows = rng.normal(0, 0.2, (len(held.texts), DIMENSION)).astype(np.float32)
    rows[:, 0] += [-1 if id_.startswith("notice") else 1 for id_ in held.texts]
    await fill(index, model, chunk, held.texts, rows)
    first, flagged = [], []
    for name, holder in held.holders.items():
        for question in identifier_set.QUESTIONS:
            found = await search(index, model, question.format(name))
            first.append(found[0].chunk.document_id == holder)
            flagged.append(found[0].exact)
    assert np.mean(first) >= 0.98
    assert np.mean(flagged) >= 0.98


async def test_a_part_of_an_identifier_never_competes_with_the_whole(index, model, chunk):
    """The text with the part alone is short, so by BM25 it would be worth more."""
    texts = {f"h{n}": f"Heading {n}" for n in range(15300, 15700)}
    texts["one"] = f"{'The options are read at the start. ' * 9}The threshold is value_15555."
    rows = np.random.default_rng(0).normal(0, 1, (len(texts), DIMENSION)).astype(np.float32)
    await fill(index, model, chunk, texts, rows)
    for question in ("value_15555", "What is value_15555?", "heading of value_15555"):
        found = await search(index, model, question)
        assert [each.chunk.document_id for each in found if each.exact][:1] == ["one"]
        assert found[0].chunk.document_id == "one"
    # A name that no text holds is found by its parts.
    assert (await search(index, model, "size_15666"))[0].chunk.document_id == "h15666"


async def test_an_identifier_leads_in_a_small_collection(index, model, chunk):
    texts = {
        "code": "E4711 says that the disk is full.",
        "near": "Errors of the disk: call the operator, who will fix the error by its code.",
        "other": "Trains leave from the north gate.",
    }
    await fill(index, model, chunk, texts, np.eye(3, DIMENSION, 1, dtype=np.float32))
    near = np.eye(DIMENSION, dtype=np.float32)[2]
    for question in ("E4711", "How do I fix error code E4711?"):
        found = await search(index, model, question, near)
        assert (found[0].chunk.document_id, found[0].exact) == ("code", True)
        assert not any(each.exact for each in found[1:])
    claim = "The error code of a full disk, E4711, was seen by the operator of trains at the gate."
    assert not any(each.exact for each in await search(index, model, claim, near))


async def test_words_of_many_chunks_are_no_exact_match(index, model, chunk):
    texts = {f"d{n}": f"The valve number {n} holds steam." for n in range(300)}
    rows = np.random.default_rng(0).normal(0, 1, (300, DIMENSION)).astype(np.float32)
    await fill(index, model, chunk, texts, rows)
    assert not any(each.exact for each in await search(index, model, "valve steam"))


async def test_a_text_is_found_by_the_words_of_its_language(index, model, chunk):
    texts = {
        "de": "Die Häuser wurden im Jahr 1850 aus roten Ziegeln gebaut.",
        "en": "The houses were built of red bricks in the year 1850.",
        "ru": "Дома были построены из красного кирпича в тысяча восемьсот пятидесятом году.",
    }
    await fill(index, model, chunk, texts, np.eye(3, DIMENSION, dtype=np.float32))
    described, _ = await index.stats("c")
    assert set(described.languages) == {"de", "en", "ru"}
    for query, wanted in (("Wann wurde das Haus gebaut?", "de"), ("кирпичи", "ru")):
        found = (await index.search(Query(("c",), "lexical", 3, query))).found
        assert found[0].chunk.document_id == wanted


async def test_a_chunk_says_its_language(index, model, chunk):
    await index.create("c", model, 1000, 0)
    await index.upsert(
        "c",
        model,
        [replace(chunk("d#0", "Kosten"), language="de")],
        np.ones((1, DIMENSION), np.float32),
    )
    assert (await index.stats("c"))[0].languages == ("de",)


async def test_terms_of_an_older_analysis_are_refused_but_not_vectors(index, model, chunk):
    await fill(index, model, chunk, {"d": "steam"}, np.ones((1, DIMENSION), np.float32))
    held, _ = await index.stats("c")
    await index.store.describe(replace(held, analysis=0))
    with pytest.raises(Conflict, match="ingest its documents again"):
        await search(index, model, "steam")
    with pytest.raises(Conflict, match="ingest its documents again"):
        await index.upsert("c", model, [chunk("e#0", "x")], np.ones((1, DIMENSION), np.float32))
    dense = Query(("c",), "dense", 1, "", np.ones(DIMENSION, np.float32), model)
    assert len((await index.search(dense)).found) == 1
