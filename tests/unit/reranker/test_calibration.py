"""Scores of pairs to values that mean the same for every query."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from raglan.encoders import model as models
from raglan_reranker.calibration import (
    FITTED,
    LOG_ODDS,
    Calibration,
    Clamped,
    calibration_of,
)

finite = st.floats(-1e300, 1e300)


@given(finite, st.sampled_from([LOG_ODDS, Clamped(), *FITTED.values()]))
def test_any_score_becomes_a_value_from_0_to_1(
    raw: float, calibration: Calibration | Clamped
) -> None:
    (value,) = calibration.probabilities(np.array([raw]))
    assert 0 <= value <= 1


@pytest.mark.parametrize("calibration", [LOG_ODDS, Clamped(), *FITTED.values()])
def test_a_better_score_is_a_better_value(calibration: Calibration | Clamped) -> None:
    low, high = calibration.probabilities(np.array([0.4, 0.6]))
    assert low < high


def test_log_odds_of_nothing_are_an_even_chance() -> None:
    assert LOG_ODDS.probabilities(np.zeros(1)).tolist() == [0.5]


def test_values_of_servers_are_taken_as_they_are() -> None:
    assert Clamped().probabilities(np.array([-2.0, 0.25, 7.0])).tolist() == [0.0, 0.25, 1.0]


def test_only_the_null_engine_has_no_values() -> None:
    bundled = models.read(models.DEFAULT_MODEL).revision
    assert calibration_of("late-interaction", bundled) in FITTED.values()
    assert calibration_of("late-interaction", "0" * 12) == LOG_ODDS
    assert calibration_of("cross-encoder", bundled) == LOG_ODDS
    assert calibration_of("llm", bundled) == LOG_ODDS
    assert calibration_of("http", "") == Clamped()
    assert calibration_of("null", "") is None
