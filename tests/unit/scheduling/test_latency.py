"""The line through what tokens have cost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from raglan.scheduling import LatencyModel

seen = st.lists(st.tuples(st.integers(1, 100_000), st.floats(0, 100)), max_size=50)


def slow() -> LatencyModel:
    return LatencyModel(seconds_per_token=1e-3, overhead_s=0.01)


def test_before_anything_was_seen_it_believes_what_it_was_given() -> None:
    assert slow().seconds(1000) == pytest.approx(1.01)
    assert slow().tokens_within(1.01) == pytest.approx(1000, abs=1)


def test_it_learns_the_line_it_sees() -> None:
    model = slow()
    for tokens in [100, 500, 1500, 900] * 40:
        model.observe(tokens, 5e-5 * tokens + 0.004)
    assert model.seconds(1000) == pytest.approx(0.054, rel=0.02)


def test_it_follows_a_machine_that_became_slower() -> None:
    model = slow()
    for factor in (1, 3):
        for tokens in [200, 800, 1400] * 40:
            model.observe(tokens, factor * 1e-4 * tokens)
    assert model.seconds(1000) == pytest.approx(0.3, rel=0.05)


def test_one_length_alone_is_taken_as_cost_by_token() -> None:
    model = slow()
    for _ in range(400):
        model.observe(1000, 0.1)
    assert model.seconds(1000) == pytest.approx(0.1, rel=0.05)
    assert model.seconds(2000) >= model.seconds(1000)


@given(seen, st.floats(0, 10))
def test_what_it_promises_it_keeps_by_its_own_reckoning(
    observations: list[tuple[int, float]], seconds: float
) -> None:
    model = slow()
    for tokens, took in observations:
        model.observe(tokens, took)
    tokens = model.tokens_within(seconds)
    assert tokens >= 0
    assert tokens == 0 or model.seconds(tokens) <= seconds * (1 + 1e-6) + 1e-9


@given(seen)
def test_more_tokens_never_cost_less(observations: list[tuple[int, float]]) -> None:
    model = slow()
    for tokens, took in observations:
        model.observe(tokens, took)
    costs = [model.seconds(tokens) for tokens in (0, 1, 10, 1000, 100_000)]
    assert costs == sorted(costs)
    assert costs[0] >= 0
