"""How many candidates are afforded, and how two kinds of score become one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from raglan_reranker.budget import affordable, blend, within_gap

lengths = st.lists(st.integers(1, 300), max_size=40)


@given(st.integers(0, 50), lengths, st.integers(0, 30), st.integers(0, 3000))
def test_as_many_as_fit_from_the_top_and_no_more(
    query: int, sizes: list[int], count: int, tokens: int
) -> None:
    taken = affordable(query, sizes, count=count, tokens=tokens)
    assert taken <= min(count, len(sizes))
    assert taken == 0 or query + sum(sizes[:taken]) <= tokens
    if taken < min(count, len(sizes)):
        assert query + sum(sizes[: taken + 1]) > tokens


finite = st.floats(-1e300, 1e300, allow_nan=False)


@given(st.lists(st.tuples(finite, finite), min_size=1, max_size=30), st.floats(0, 1))
def test_a_blend_is_always_finite(scores: list[tuple[float, float]], share: float) -> None:
    model, retrieval = np.array(scores, np.float64).T
    assert np.isfinite(blend(model, retrieval, share)).all()


def test_one_candidate_scores_zero() -> None:
    assert blend(np.array([0.7]), np.array([12.0]), 0.5).tolist() == [0.0]


def test_equal_retrieval_scores_leave_it_to_the_model() -> None:
    mixed = blend(np.array([0.1, 0.9, 0.5]), np.array([3.0, 3.0, 3.0]), 0.3)
    assert np.argsort(-mixed).tolist() == [1, 2, 0]


def test_equal_model_scores_leave_it_to_retrieval() -> None:
    mixed = blend(np.array([0.4, 0.4, 0.4]), np.array([1.0, 3.0, 2.0]), 0.9)
    assert np.argsort(-mixed).tolist() == [1, 2, 0]


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6])
def test_the_scale_of_retrieval_scores_does_not_matter(scale: float) -> None:
    model, retrieval = np.array([0.1, 0.4, 0.2]), np.array([3.0, 1.0, 2.0])
    assert blend(model, scale * retrieval, 0.5) == pytest.approx(blend(model, retrieval, 0.5))


def test_a_share_of_nothing_keeps_the_order_of_retrieval() -> None:
    mixed = blend(np.array([0.1, 0.9]), np.array([2.0, 1.0]), 0.0)
    assert mixed[0] > mixed[1]


def test_how_far_the_scored_are_ahead_of_the_rest_counts() -> None:
    model = np.array([0.1, 0.2])
    near_each_other = blend(model, np.array([1.0, 0.9, -9.0, -9.0]), 0.5)
    far_apart = blend(model, np.array([1.0, -9.0, -9.0, -9.0]), 0.5)
    assert near_each_other[1] > near_each_other[0]
    assert far_apart[0] > far_apart[1]


whole = st.lists(st.integers(-1000, 1000).map(float), min_size=1, max_size=30)
gaps = st.floats(0, 5)


@given(whole, gaps, st.integers(-10, 10), st.integers(-10, 10))
def test_the_gap_heeds_neither_the_scale_nor_the_origin_of_scores(
    scores: list[float], gap: float, power: int, origin: int
) -> None:
    retrieval = np.array(scores)
    margins = (retrieval.max() - retrieval) / (retrieval.std() or 1.0)
    assume(np.abs(margins - gap).min() > 1e-6)  # on the line itself, rounding decides
    assert within_gap(retrieval * 2.0**power + origin, gap) == within_gap(retrieval, gap)


@given(whole, gaps)
def test_the_gap_never_cuts_equal_scores_apart(scores: list[float], gap: float) -> None:
    scores.sort(reverse=True)
    kept = within_gap(np.array(scores), gap)
    assert not set(scores[:kept]) & set(scores[kept:])


@given(whole, gaps)
def test_what_the_gap_leaves_out_is_further_below_the_best_than_it(
    scores: list[float], gap: float
) -> None:
    retrieval = np.array(scores)
    kept = within_gap(retrieval, gap)
    assert kept >= 1
    assert (retrieval[kept:] < retrieval.max() - (gap - 1e-9) * retrieval.std()).all()


@given(whole, gaps, gaps)
def test_a_wider_gap_never_scores_fewer(scores: list[float], one: float, other: float) -> None:
    retrieval = np.array(scores)
    narrow, wide = sorted((one, other))
    assert within_gap(retrieval, narrow) <= within_gap(retrieval, wide)


def test_without_a_gap_all_are_scored() -> None:
    assert within_gap(np.array([1e300, 0.0, -1e300]), np.inf) == 3
