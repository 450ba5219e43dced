"""Quantiles of the latest latencies."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st
from raglan.resilience import LatencyWindow
from raglan.resilience.latency import DecayingMean


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_below_the_least_number_of_samples_nothing_is_said() -> None:
    window = LatencyWindow(min_samples=3, clock=Clock())
    window.add(1.0)
    window.add(2.0)
    assert window.quantile(0.5) is None
    window.add(3.0)
    assert window.quantile(0.5) == 2.0


def test_old_latencies_are_forgotten_though_nothing_new_comes() -> None:
    clock = Clock()
    window = LatencyWindow(max_age_s=60, min_samples=1, clock=clock)
    window.add(1.0)
    clock.now += 61
    assert window.quantile(0.5) is None


def test_only_the_latest_are_kept() -> None:
    window = LatencyWindow(size=3, min_samples=1, clock=Clock())
    for seconds in (9.0, 8.0, 1.0, 2.0, 3.0):
        window.add(seconds)
    assert (len(window), window.quantile(1.0)) == (3, 3.0)


def test_without_any_latency_nothing_is_said() -> None:
    assert LatencyWindow(min_samples=0, clock=Clock()).quantile(0.5) is None


steps = st.lists(
    st.tuples(st.floats(0, 30) | st.sampled_from([0, 20, 60]), st.floats(0, 10)), max_size=200
)


@given(steps, st.integers(1, 40), st.floats(0, 1))
def test_a_quantile_is_the_nearest_rank_of_what_is_young_and_latest(
    calls: list[tuple[float, float]], size: int, q: float
) -> None:
    clock = Clock()
    window = LatencyWindow(size, 60, 1, clock=clock)
    seen: list[tuple[float, float]] = []
    for wait_s, seconds in calls:
        clock.now += wait_s
        window.add(seconds)
        seen.append((clock.now, seconds))
        young = sorted(took for at, took in seen[-size:] if clock.now - at <= 60)
        rank = max(1, math.ceil(q * len(young)))
        assert window.quantile(q) == young[rank - 1]
        assert len(window) == len(young) <= size


def test_the_first_call_is_the_mean() -> None:
    mean = DecayingMean(clock=Clock())
    assert mean.value_s() == 0
    mean.add(0.5)
    assert mean.value_s() == 0.5


def test_only_lasting_slowness_counts() -> None:
    """One stumble among many calls is no slowness and lasting slowness is soon known."""
    clock = Clock()
    mean = DecayingMean(10.0, clock=clock)
    for _ in range(1_000):
        clock.now += 0.02
        mean.add(0.02)
    clock.now += 0.02
    mean.add(0.3)
    assert mean.value_s() < 0.03
    clock.now += 2.0
    for _ in range(5):
        mean.add(2.0)
    assert mean.value_s() > 1.2


def test_in_silence_what_was_slow_is_forgotten() -> None:
    clock = Clock()
    mean = DecayingMean(10.0, clock=clock)
    mean.add(2.0)
    clock.now += 120
    assert mean.value_s() < 0.04


@given(st.lists(st.tuples(st.floats(0.001, 30), st.floats(0.001, 100)), min_size=1))
def test_a_mean_lies_among_what_it_is_of(calls: list[tuple[float, float]]) -> None:
    clock = Clock()
    mean = DecayingMean(10.0, clock=clock)
    for later_s, took_s in calls:
        clock.now += later_s
        mean.add(took_s)
    took = [took_s for _, took_s in calls]
    assert min(took) * 0.999 <= mean.value_s() <= max(took) * 1.001
