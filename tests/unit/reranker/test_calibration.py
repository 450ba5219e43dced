"""Scores to probabilities."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from raglan.encoders import model as models
from raglan_reranker.calibration import FITTED, LOG_ODDS, Calibration, known

finite = st.floats(-1e300, 1e300)


@given(finite, finite, st.sampled_from([LOG_ODDS, *FITTED.values()]))
def test_any_score_becomes_a_probability(
    raw: float, height: float, calibration: Calibration
) -> None:
    (chance,) = calibration.probabilities(np.array([raw]), np.array([height]))
    assert 0 <= chance <= 1


@pytest.mark.parametrize("calibration", FITTED.values())
def test_a_better_score_of_either_kind_is_a_better_chance(calibration: Calibration) -> None:
    low, raw, height = calibration.probabilities(np.array([0.4, 0.6, 0.4]), np.array([0, 0, 1]))
    assert low < raw
    assert low < height


def test_log_odds_of_nothing_are_an_even_chance() -> None:
    assert LOG_ODDS.probabilities(np.zeros(1), np.full(1, 9.0)).tolist() == [0.5]


def test_the_bundled_model_is_calibrated_and_an_unknown_one_is_not() -> None:
    bundled = models.read(models.DEFAULT_MODEL).revision
    assert known("late-interaction", bundled) is not None
    assert known("late-interaction", "0" * 12) is None
    assert known("http", bundled) is None
