"""Fusion: what holds for every method, and that DBSF is Qdrant's."""

from __future__ import annotations

import math
import random

import pytest
import qdrant_edge as qe
from hypothesis import assume, given
from hypothesis import strategies as st
from qdrant_client.hybrid.fusion import (
    distribution_based_score_fusion,
    reciprocal_rank_fusion,
)
from qdrant_client.models import ScoredPoint
from raglan.fusion import Leg, dbsf, exact_matches, fuse, min_max, rrf

METHODS = ("dbsf", "min_max", "rrf")


def ranked(scores: dict[int, float]) -> list[tuple[int, float]]:
    return sorted(scores.items(), key=lambda item: (-item[1], item[0]))


legs = st.dictionaries(st.integers(0, 20), st.integers(-1000, 1000).map(float), max_size=15).map(
    ranked
)
methods = st.sampled_from(METHODS)


def points(leg: list[tuple[int, float]]) -> list[ScoredPoint]:
    return [ScoredPoint(id=key, score=score, version=0) for key, score in leg]


@given(legs, legs)
def test_unweighted_dbsf_is_qdrants(one, two):
    ours = dict(fuse([Leg(one), Leg(two)], "dbsf"))
    theirs = distribution_based_score_fusion([points(one), points(two)], limit=100)
    assert ours == pytest.approx({point.id: point.score for point in theirs})


@given(legs, legs)
def test_unweighted_rrf_is_qdrants(one, two):
    ours = dict(fuse([Leg(one), Leg(two)], "rrf"))
    theirs = reciprocal_rank_fusion([points(one), points(two)], limit=100)
    assert ours == pytest.approx({point.id: point.score for point in theirs})


def test_unweighted_dbsf_is_that_of_qdrant_edge(tmp_path):
    rng = random.Random(3)
    vector = {"size": 4, "distance": qe.Distance.Dot}
    names = ("one", "two")
    config = qe.EdgeConfig(vectors={name: qe.EdgeVectorParams(**vector) for name in names})
    shard = qe.EdgeShard.create(str(tmp_path), config)
    stored = [
        qe.Point(n, {name: [rng.random() for _ in range(4)] for name in names}, {})
        for n in range(30)
    ]
    shard.update(qe.UpdateOperation.upsert_points(stored))
    query = [0.3, 0.1, 0.5, 0.2]

    def leg(name: str) -> list[tuple[int, float]]:
        nearest = qe.Query.Nearest(query, using=name)
        return [(p.id, p.score) for p in shard.query(qe.QueryRequest(limit=12, query=nearest))]

    prefetches = [qe.Prefetch(limit=12, query=qe.Query.Nearest(query, using=n)) for n in names]
    request = qe.QueryRequest(limit=30, query=qe.Fusion.Dbsf(), prefetches=prefetches)
    theirs = {point.id: point.score for point in shard.query(request)}
    ours = dict(fuse([Leg(leg(name)) for name in names], "dbsf"))
    shard.close()
    assert len(ours) > 12
    assert ours == pytest.approx(theirs, abs=1e-5)


@given(
    legs, legs, methods, st.sampled_from([0.25, 2.0, 1024.0]), st.sampled_from([-512.0, 0, 64.0])
)
def test_the_scale_and_offset_of_a_leg_change_nothing(one, two, method, scale, offset):
    moved = [(key, score * scale + offset) for key, score in one]
    before = dict(fuse([Leg(one), Leg(two)], method))
    assert dict(fuse([Leg(moved), Leg(two)], method)) == pytest.approx(before)


@given(legs, methods, st.floats(0.01, 100))
def test_one_leg_alone_keeps_its_order(leg, method, weight):
    fused = [key for key, _ in fuse([Leg(leg, weight)], method)]
    scores = dict(leg)
    assert [scores[key] for key in fused] == [score for _, score in leg]


@given(legs, legs, methods)
def test_better_in_both_legs_is_better_fused(one, two, method):
    first, second = dict(one), dict(two)
    fused = dict(fuse([Leg(one), Leg(two)], method))
    both = first.keys() & second.keys()
    for a in both:
        for b in both:
            if first[a] > first[b] and second[a] > second[b]:
                assert fused[a] >= fused[b]


@given(legs, legs, methods)
def test_a_leg_of_weight_0_adds_nothing(one, two, method):
    alone = dict(fuse([Leg(one)], method))
    fused = dict(fuse([Leg(one), Leg(two, 0)], method))
    assert {key: fused[key] for key in alone} == pytest.approx(alone)


@given(legs, legs, methods, st.floats(0.1, 10), st.floats(0.1, 10))
def test_weights_count_by_their_ratio(one, two, method, left, right):
    fused = fuse([Leg(one, left), Leg(two, right)], method)
    doubled = fuse([Leg(one, 2 * left), Leg(two, 2 * right)], method)
    assert [key for key, _ in doubled] == [key for key, _ in fused]


@given(legs, legs, methods)
def test_the_result_is_sorted_complete_and_repeatable(one, two, method):
    fused = fuse([Leg(one), Leg(two)], method)
    assert [s for _, s in fused] == sorted((s for _, s in fused), reverse=True)
    assert {key for key, _ in fused} == dict(one).keys() | dict(two).keys()
    assert fuse([Leg(one), Leg(two)], method) == fused


@given(methods)
def test_ties_keep_the_order_of_the_first_leg(method):
    one = [("c", 1.0), ("a", 1.0), ("b", 1.0)]
    fused = fuse([Leg(one), Leg(one)], method)
    assert [key for key, _ in fused] == ["c", "a", "b"]


@pytest.mark.parametrize("method", METHODS)
def test_nothing_found_is_nothing_fused(method):
    assert fuse([Leg([]), Leg([])], method) == []


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=50))
def test_dbsf_centres_on_one_half(scores):
    assume(len(set(scores)) > 1 and max(scores) - min(scores) > 1e-3)
    assert math.fsum(dbsf(scores)) / len(scores) == pytest.approx(0.5, abs=1e-6)


def test_equal_scores_are_worth_the_same():
    assert dbsf([0.1] * 3) == [0.5] * 3
    assert min_max([0.1] * 3) == [1.0] * 3
    assert rrf([0.1] * 2) == [0.5, 1 / 3]


NEIGHBOURS = [(f"dense{n}", 0.6 - n / 1000) for n in range(200)]
"""A dense leg without an outlier."""


@pytest.mark.parametrize("hits", [1, 2, 5, 10])
def test_what_few_chunks_hold_leads_however_many_neighbours_there_are(hits: int) -> None:
    words = [(f"exact{n}", 12.0 - n / 10) for n in range(hits)]
    fused = fuse([Leg(NEIGHBOURS), Leg(words, population=1000)], "dbsf")
    assert [key for key, _ in fused[:hits]] == [key for key, _ in words]


def test_of_what_many_chunks_hold_the_nearest_leads() -> None:
    words = [(f"dense{n}", 3.0 - n / 1000) for n in range(199, -1, -1)]
    fused = fuse([Leg(NEIGHBOURS), Leg(words, population=1000)], "dbsf")
    assert [key for key, _ in fused[:3]] == ["dense0", "dense1", "dense2"]


def test_a_lone_hit_stands_out_by_the_number_of_candidates() -> None:
    small, large = (dbsf([7.0], population=population)[0] for population in (20, 1000))
    assert small == pytest.approx(0.5 + math.sqrt(19**2 / 20) / 6)
    assert large > 5


@given(legs, st.integers(0, 40))
def test_a_population_is_what_padding_with_zeros_would_be(leg, further):
    padded = [score for _, score in leg] + [0.0] * further
    scores = [score for _, score in leg]
    assert dbsf(scores, population=len(padded)) == pytest.approx(dbsf(padded)[: len(scores)])


@pytest.mark.parametrize(("hits", "population", "exact"), [
    (1, 1000, 1), (3, 1000, 3), (6, 1000, 0), (1, 300, 1), (2, 100, 0), (1, 100, 1), (1, 50, 0),
])  # fmt: skip
def test_an_exact_match_is_one_of_few_among_many(hits: int, population: int, exact: int) -> None:
    leg = Leg([(n, 10.0) for n in range(hits)], population=population)
    assert len(exact_matches(leg)) == exact


def test_an_exact_match_stands_out_from_partial_ones() -> None:
    leg = Leg([("whole", 30.0), *((n, 3.0) for n in range(199))], population=1000)
    assert exact_matches(leg) == {"whole"}
