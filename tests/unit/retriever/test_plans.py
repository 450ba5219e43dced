"""The parameters of a vector index: by size, recall and memory."""

from __future__ import annotations

from dataclasses import replace

import pytest
from raglan_retriever.stores.plans import Plan, Planner, Size, index_bytes, vector_bytes

GIB = 2**30
PLANNER = Planner(0.95, GIB)


def size(chunks: int, payload_bytes: int = 0) -> Size:
    return Size(chunks, 384, payload_bytes)


@pytest.mark.parametrize(
    ("chunks", "quantization"),
    [(20_000, "int8"), (4_999_999, "int8"), (5_000_000, "turbo4")],
)
def test_the_size_decides_the_quantization(chunks, quantization):
    assert PLANNER.plan(size(chunks)).quantization == quantization


def test_quantized_vectors_of_a_million_chunks_fit_where_the_original_ones_do_not():
    plan = PLANNER.plan(size(1_000_000))
    assert vector_bytes(size(1_000_000)) > GIB
    assert index_bytes(plan, size(1_000_000)) < GIB
    assert plan.on_disk == ["vectors", "payload"]


@pytest.mark.parametrize(
    ("memory_bytes", "on_disk"),
    [
        (1_000_000, ["index", "vectors", "payload"]),
        (30_000_000, ["vectors", "payload"]),
        (110_000_000, ["payload"]),
        (GIB, []),
    ],
)
def test_memory_holds_the_index_then_vectors_then_texts(memory_bytes, on_disk):
    assert Planner(0.95, memory_bytes).plan(size(50_000, 100_000_000)).on_disk == on_disk


def test_a_higher_recall_takes_more_candidates_and_then_more_edges():
    low, high, highest = (PLANNER.plan(size(50_000), recall=each) for each in (0.9, 0.98, 0.99))
    assert low.built == high.built
    assert low.ef < high.ef < highest.ef
    assert highest.m == 2 * low.m


def test_the_recall_of_the_collection_wins_over_that_of_the_settings():
    assert Planner(0.99, GIB).plan(size(1), recall=0.9) == Planner(0.9, GIB).plan(size(1))


def test_a_collection_at_the_edge_of_a_row_keeps_its_index():
    turbo = PLANNER.plan(size(5_000_000))
    assert PLANNER.settle(turbo, size(4_500_000)).quantization == "turbo4"
    assert PLANNER.settle(turbo, size(3_500_000)).quantization == "int8"
    int8 = PLANNER.plan(size(4_500_000))
    assert PLANNER.settle(int8, size(4_500_000)) == int8
    assert PLANNER.settle(int8, size(5_000_000)).quantization == "turbo4"


def test_a_larger_collection_is_searched_harder_by_the_same_index():
    small, large = PLANNER.plan(size(50_000)), PLANNER.plan(size(800_000))
    assert (small.m, small.ef_construct) == (large.m, large.ef_construct)
    assert small.ef < large.ef
    assert small.oversampling < large.oversampling


def test_a_collection_without_an_index_gets_the_plan_of_its_size():
    assert PLANNER.settle(None, size(90_000)) == PLANNER.plan(size(90_000))


def test_what_only_searches_differ_in_takes_no_other_index():
    plan = PLANNER.plan(size(50_000))
    settled = PLANNER.settle(plan, size(50_000), recall=0.98)
    assert settled != plan
    assert settled.built == plan.built


def test_a_plan_is_read_as_it_was_stored():
    plan = PLANNER.plan(size(1_000_000))
    assert Plan.from_json(plan.to_json()) == plan
    assert Plan.from_json(plan.to_json() | {"later": 1}) == plan


def test_a_plan_of_a_later_version_is_none():
    later = replace(Plan(), quantization="int2")  # type: ignore[arg-type]
    assert Plan.from_json(later.to_json()) is None
