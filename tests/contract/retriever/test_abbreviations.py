"""Abbreviations that documents define are searched in both forms."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from raglan import tenancy
from raglan_retriever.abbreviations import Forms, definitions
from raglan_retriever.index import Index
from raglan_retriever.query import Query
from raglan_retriever.searching import Results

STEM = "Mesenchymal stem cells (MSCs) are multipotent."
LONG = "Grafts of mesenchymal stem cells lower the rate of rejection."
SHORT = "MSC therapy was stopped."
OTHER = "Trains leave from the north gate (NG) at noon."


async def fill(index: Index, model, chunk, vectors, texts: dict[str, str]) -> None:
    await index.create("c", model, 1000, 0)
    chunks = [chunk(f"{id_}#0", text) for id_, text in texts.items()]
    await index.upsert("c", model, chunks, vectors(len(chunks)))


async def search(index: Index, text: str, **more) -> Results:
    return await index.search(Query(("c",), "lexical", 10, text, **more))


def documents(results: Results) -> set[str]:
    return {each.chunk.document_id for each in results.found}


@pytest.mark.parametrize(
    ("asked", "form", "other"),
    [
        ("Do MSCs help?", "MSCs", ["Mesenchymal stem cells"]),
        ("Do mesenchymal stem cells help?", "Mesenchymal stem cells", ["MSCs"]),
    ],
)
async def test_both_forms_are_found(index, model, chunk, vectors, asked, form, other):
    texts = {"stem": STEM, "long": LONG, "short": SHORT, "other": OTHER}
    await fill(index, model, chunk, vectors, texts)
    results = await search(index, asked)
    assert documents(results) == {"stem", "long", "short"}
    assert results.synonyms == {form: other}


async def test_a_query_with_both_forms_is_left_as_it_is(index, model, chunk, vectors):
    await fill(index, model, chunk, vectors, {"stem": STEM, "long": LONG, "short": SHORT})
    assert (await search(index, "mesenchymal stem cells (MSCs)")).synonyms == {}


async def test_a_definition_goes_with_its_document(index, model, chunk, vectors):
    await fill(index, model, chunk, vectors, {"stem": STEM, "long": LONG, "short": SHORT})
    await index.delete("c", ["stem"], [])
    results = await search(index, "Do MSCs help?")
    assert results.synonyms == {}
    assert documents(results) == {"short"}


async def test_a_later_document_defines(index, model, chunk, vectors):
    await fill(index, model, chunk, vectors, {"long": LONG, "short": SHORT})
    assert documents(await search(index, "MSC")) == {"short"}
    await index.upsert("c", model, [chunk("stem#0", STEM)], vectors(1))
    assert documents(await search(index, "MSC")) == {"stem", "long", "short"}


async def test_another_tenant_defines_nothing(index, model, chunk, vectors):
    with tenancy.serving("them"):
        await fill(index, model, chunk, vectors, {"stem": STEM})
    with tenancy.serving("us"):
        await fill(index, model, chunk, vectors, {"long": LONG, "short": SHORT})
        results = await search(index, "MSC")
    assert results.synonyms == {}
    assert documents(results) == {"short"}


async def test_two_expansions_are_both_searched(index, model, chunk, vectors):
    texts = {
        "a": "The internet protocol (IP) moves packets.",
        "b": "Intellectual property (IP) is protected.",
        "c": "A packet of the internet protocol has a header.",
        "d": "Intellectual property can be sold.",
    }
    await fill(index, model, chunk, vectors, texts)
    results = await search(index, "rules of IP")
    assert sorted(results.synonyms["IP"]) == ["Intellectual property", "internet protocol"]
    assert documents(results) == {"a", "b", "c", "d"}


async def test_the_expansion_of_most_documents_wins(index, model, chunk, vectors):
    texts = {f"net{n}": f"The internet protocol (IP) moves packet {n}." for n in range(3)}
    texts["law"] = "Intellectual property (IP) is protected."
    await fill(index, model, chunk, vectors, texts)
    assert (await search(index, "rules of IP")).synonyms == {"IP": ["internet protocol"]}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("HPA (Horizontal Pod Autoscaler) scales.", [("HPA", "Horizontal Pod Autoscaler")]),
        ("See above (Smith 2003), and f(x).", []),
        ("(" * 100_000, []),
        ("( " * 100_000, []),
        ("\U0001f600 (\U0001f600)", []),
        ("", []),
    ],
)
def test_definitions_of_a_text(text, expected):
    assert [(each.short, each.long) for each in definitions(text)] == expected


async def test_definitions_are_read_beside_other_work(index, model, chunk, vectors, monkeypatch):
    """Tens of milliseconds for chunks full of them: not on the event loop."""
    threads = set()
    other = Forms.other

    def noted(self: Forms, *arguments: Any) -> Any:
        threads.add(threading.current_thread())
        return other(self, *arguments)

    monkeypatch.setattr(Forms, "other", noted)
    await fill(index, model, chunk, vectors, {"stem": STEM, "long": LONG})
    assert (await search(index, "Do MSCs help?")).synonyms == {"MSCs": ["Mesenchymal stem cells"]}
    assert len(threads) == 1
    assert threading.main_thread() not in threads
