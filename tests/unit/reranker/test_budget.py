"""How many candidates are afforded, and how two kinds of score become one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from raglan_reranker.budget import affordable, blend

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
