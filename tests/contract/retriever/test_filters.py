"""Filters mean the same in both stores, and what a plain walk over the metadata says."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raglan.filtering.wire import clause_from_proto
from raglan.v1 import retriever_pb2
from raglan_retriever.chunks import Chunk
from raglan_retriever.collection import Model
from raglan_retriever.index import Index
from raglan_retriever.query import Limits
from raglan_retriever.stores.qdrant import QdrantStore

KEYS = ["a", "b", "c d", 'q"uote', "per%cent", "br[]", "ü", "a.b"]
SCALARS: list[Any] = [
    *(0, 1, -1, 2, 2**53, 2**53 + 1, -(2**63), 0.0, 1.0, 1.5, -2.5, 1e300, True, False),
    *("", "1", "true", "x", "ü", "天", "x" * 300, "x" * 299 + "y", "null\x00", '"],["'),
]
SIZE = 300
# Qdrant's local mode computes on the event loop; a server does not.
LOCAL_MODE = pytest.param("qdrant", marks=pytest.mark.loop_stall_s(2.0))
PATHS = [*KEYS, "a.b.a", "b.a", "a.a", "nowhere", "document_id", "c d.ü"]


def random_value(rng: random.Random, depth: int) -> Any:
    kind = rng.random()
    if depth < 3 and kind < 0.2:
        return {k: random_value(rng, depth + 1) for k in rng.sample(KEYS, rng.randint(0, 2))}
    if depth < 3 and kind < 0.4:
        return [random_value(rng, depth + 1) for _ in range(rng.randint(0, 3))]
    return None if kind < 0.5 else rng.choice(SCALARS)


def corpus(count: int) -> dict[str, dict[str, Any]]:
    rng = random.Random(7)
    return {
        f"d{n}": {key: random_value(rng, 0) for key in rng.sample(KEYS, rng.randint(0, 4))}
        for n in range(count)
    }


# The oracle: a filter as nested tuples, evaluated on the metadata itself.


def reach(node: Any, path: str) -> list[Any]:
    """What lies at `path`; arrays are walked through."""
    if isinstance(node, list):
        return [found for item in node for found in reach(item, path)]
    if path == "":
        return [node]
    if not isinstance(node, dict):
        return []
    found = []
    for key, value in node.items():
        if path == key:
            found += reach(value, "")
        elif path.startswith(f"{key}."):
            found += reach(value, path[len(key) + 1 :])
    return found


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def same(left: Any, right: Any) -> bool:
    if is_number(left) and is_number(right):
        return left == right
    return type(left) is type(right) and left == right


def passes(metadata: dict[str, Any], node: tuple[Any, ...]) -> bool:
    kind, *rest = node
    match kind:
        case "all":
            return all(passes(metadata, inner) for inner in rest[0])
        case "any":
            return any(passes(metadata, inner) for inner in rest[0])
        case "not":
            return not passes(metadata, rest[0])
    path, wanted = rest
    held = [value for value in reach(metadata, path) if value is not None]
    match kind:
        case "eq":
            return any(same(value, wanted) for value in held)
        case "ne":
            return not any(same(value, wanted) for value in held)
        case "in":
            return any(same(value, one) for value in held for one in wanted)
        case "exists":
            return bool(held) is wanted
        case "range":
            compare = {
                "gt": lambda v, b: v > b,
                "gte": lambda v, b: v >= b,
                "lt": lambda v, b: v < b,
                "lte": lambda v, b: v <= b,
            }
            numbers = [float(value) for value in held if is_number(value)]
            return any(all(compare[n](v, b) for n, b in wanted.items()) for v in numbers)
    raise AssertionError(kind)


def value_message(value: Any) -> retriever_pb2.Value:
    field = {str: "text", bool: "flag", int: "integer", float: "real"}[type(value)]
    return retriever_pb2.Value(**{field: value})


def message(node: tuple[Any, ...]) -> retriever_pb2.Filter:
    kind, *rest = node
    if kind in ("all", "any"):
        inner = retriever_pb2.FilterList(filters=[message(one) for one in rest[0]])
        return retriever_pb2.Filter(**{kind: inner})
    if kind == "not":
        return retriever_pb2.Filter(negated=message(rest[0]))
    path, wanted = rest
    test: Any = wanted
    if kind in ("eq", "ne"):
        test = value_message(wanted)
    elif kind == "in":
        test = retriever_pb2.ValueList(values=[value_message(one) for one in wanted])
    elif kind == "range":
        test = retriever_pb2.Range(**wanted)
    return retriever_pb2.Filter(condition=retriever_pb2.Condition(field=path, **{kind: test}))


paths = st.sampled_from(PATHS)
values = st.sampled_from([*SCALARS, "d1", "d2"])
bounds = st.dictionaries(
    st.sampled_from(["gt", "gte", "lt", "lte"]),
    st.sampled_from([-3.0, -1.0, 0.0, 1.0, 1.5, 2.0**53, 1e299]),
    min_size=1,
)
conditions = st.one_of(
    st.tuples(st.sampled_from(["eq", "ne"]), paths, values),
    st.tuples(st.just("in"), paths, st.lists(values, min_size=1, max_size=4)),
    st.tuples(st.just("range"), paths, bounds),
    st.tuples(st.just("exists"), paths, st.booleans()),
)
trees = st.recursive(
    conditions,
    lambda inner: st.one_of(
        st.tuples(st.sampled_from(["all", "any"]), st.lists(inner, min_size=1, max_size=3)),
        st.tuples(st.just("not"), inner),
    ),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def runner():
    with asyncio.Runner() as made:
        yield made


@pytest.fixture(scope="module", params=["edge", LOCAL_MODE])
def searchable(request, runner, tmp_path_factory, open_edge, open_local):
    """A store that holds the corpus, one chunk a document."""
    path = tmp_path_factory.mktemp("edge")
    store = open_edge(path) if request.param == "edge" else QdrantStore(open_local())
    runner.run(fill(store))
    yield store
    runner.run(store.close())


async def fill(store) -> None:
    await store.open()
    index = Index(store, limits=Limits(), language="en")
    model = Model("m", "", 2)
    await index.create("c", model, 0, 0)
    chunks = [
        Chunk(id_, id_, 0, "", "text", 0, 4, (), json.dumps(metadata))
        for id_, metadata in corpus(SIZE).items()
    ]
    await index.upsert("c", model, chunks, np.ones((len(chunks), 2), dtype=np.float32))


@settings(max_examples=150)
@given(tree=trees)
def test_a_filter_passes_what_a_walk_over_the_metadata_passes(searchable, runner, tree):
    found = runner.run(searchable.select("c", clause_from_proto(message(tree))))
    expected = {
        id_ for id_, held in corpus(SIZE).items() if passes(held | {"document_id": id_}, tree)
    }
    assert {chunk.chunk_id for chunk in found} == expected


@pytest.mark.parametrize("path", PATHS)
def test_equality_holds_for_each_value(searchable, runner, path):
    for value in SCALARS:
        found = runner.run(searchable.count("c", clause_from_proto(message(("eq", path, value)))))
        expected = [passes(held, ("eq", path, value)) for held in corpus(SIZE).values()]
        assert found == sum(expected), f"{path} = {value!r}"


def test_the_corpus_holds_what_the_filters_ask_for():
    """Guards the oracle: filters that never match would prove nothing."""
    for path in KEYS:
        hits = [passes(held, ("eq", path, v)) for held in corpus(SIZE).values() for v in SCALARS]
        assert sum(hits) >= 10, path


DATED = {
    "old": {"published": "2025-12-31T23:59:59.5Z"},
    "new": {"published": "2026-01-01", "title": "Something else"},
    "zoned": {"published": ["2026-01-01T01:00:00+02:00", 3]},
    "none": {"published": "soon", "created_at": "2020-01-01"},
}


def times(field: str, **given: str) -> retriever_pb2.Filter:
    range_ = retriever_pb2.TimeRange()
    for name, text in given.items():
        getattr(range_, name).FromJsonString(text)
    return retriever_pb2.Filter(condition=retriever_pb2.Condition(field=field, times=range_))


@pytest.fixture(scope="module", params=["edge", LOCAL_MODE])
def dated(request, runner, tmp_path_factory, open_edge, open_local):
    """A store that holds documents with dates, titles, file names and times of submission."""
    path = tmp_path_factory.mktemp("dated")
    store = open_edge(path) if request.param == "edge" else QdrantStore(open_local())

    async def fill() -> None:
        await store.open()
        index = Index(store, limits=Limits(), language="en")
        model = Model("m", "", 2)
        await index.create("c", model, 0, 0)
        chunks = [
            Chunk(
                id_, id_, 0, f"About {id_}", "text", 0, 4, (), json.dumps(metadata),
                filename=f"docs/{id_}.md", created_ms=1_700_000_000_000 + 1_000 * number,
            )
            for number, (id_, metadata) in enumerate(DATED.items())
        ]  # fmt: skip
        await index.upsert("c", model, chunks, np.ones((len(chunks), 2), dtype=np.float32))

    runner.run(fill())
    yield store
    runner.run(store.close())


@pytest.mark.parametrize(
    ("filter_", "expected"),
    [
        (times("published", gte="2026-01-01T00:00:00Z"), {"new"}),
        (times("published", lt="2026-01-01T00:00:00Z"), {"old", "zoned"}),
        (times("published", gt="2025-12-31T23:59:59.499Z", lt="2026-01-01T00:00:01Z"), None),
        (times("published", gt="2025-12-31T23:59:59.501Z"), {"new"}),
        (times("nowhere", gt="2000-01-01T00:00:00Z"), set()),
        (times("created_at", gt="2023-11-14T22:13:21Z"), {"zoned", "none"}),
        (times("created_at", lt="2021-01-01T00:00:00Z"), {"none"}),
        (message(("eq", "title", "About old")), {"old"}),
        (message(("eq", "title", "About new")), {"new"}),
        (message(("eq", "title", "Something else")), {"new"}),
        (message(("in", "filename", ["docs/new.md", "docs/none.md"])), {"new", "none"}),
        (message(("exists", "filename", True)), set(DATED)),
        (message(("range", "published", {"gte": 0.0})), {"zoned"}),
    ],
)
def test_times_and_the_documents_own_fields_are_found(dated, runner, filter_, expected):
    found = {chunk.chunk_id for chunk in runner.run(dated.select("c", clause_from_proto(filter_)))}
    assert found == ({"old", "new"} if expected is None else expected)
