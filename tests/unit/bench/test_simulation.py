"""The simulation against what queueing theory knows, and the policies against their rules."""

from __future__ import annotations

import random
import statistics
from itertools import pairwise

import pytest
from policies import POLICIES, Cork, Deferred, Fifo, FixedWindow, Scheduled
from simulation import (
    Arrivals,
    Device,
    Text,
    Trace,
    best_cost,
    bursty,
    ceiling,
    poisson,
    simulate,
)

# One text at a time, 10 ms each: M/D/1.
ONE = Device("one", 0.0, 0.01, streams=1, batch_tokens=64, batch_items=1, window=64, noise=0.0)
BATCHES = Device("b", 1e-4, 1e-3, streams=2, batch_tokens=512, batch_items=8, window=64)


def singles(rate: float, seconds: float, *, within_s: float = 0.5, seed: int = 0) -> Arrivals:
    chosen = random.Random(seed)
    for now in poisson(rate, seconds, chosen):
        yield now, [Text(chosen.choice((16, 64, 200)), now, now + within_s)]


def run(name: str, device: Device, rate: float, *, seconds: float = 20.0, seed: int = 0) -> Trace:
    policy = POLICIES[name](device)
    return simulate(policy, device, singles(rate, seconds, seed=seed), seed=seed)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_fifo_waits_as_long_as_pollaczek_and_khinchine_say(load: float) -> None:
    service = 0.01
    trace = simulate(Fifo(ONE), ONE, singles(load / service, 400), seed=0)
    waited = statistics.fmean(text.begun_at - text.arrived_at for text in trace.texts)
    assert waited == pytest.approx(load * service / (2 * (1 - load)), rel=0.15)


def test_fifo_past_capacity_answers_almost_nothing_in_time() -> None:
    assert run("FIFO", ONE, 150).goodput(5, 19) < 0.02


def test_a_device_past_capacity_is_never_idle() -> None:
    trace = run("FIFO", ONE, 150, seconds=5)
    crowded = [job for job in trace.jobs if job.begun_at > 1]
    for before, after in pairwise(crowded):
        assert after.begun_at == before.begun_at + before.seconds


def test_the_ceiling_is_what_the_load_leaves() -> None:
    cost = best_cost(ONE, [16, 64, 200])
    assert ceiling(cost, singles(50, 30), 1, 29) == pytest.approx(1.0, abs=0.01)
    assert ceiling(cost, singles(200, 30), 1, 29) == pytest.approx(0.5, rel=0.05)


def test_full_batches_of_like_lengths_are_filled_to_their_caps() -> None:
    cost = best_cost(BATCHES, [16] * 80)
    assert cost[16] == pytest.approx((8 * 16 * 1e-4 + 1e-3) / 8 / 2)


def test_bursts_keep_the_mean_rate() -> None:
    times = list(bursty(100, 200, random.Random(3)))
    assert len(times) / 200 == pytest.approx(100, rel=0.1)
    counts = [sum(1 for time in times if at <= time < at + 0.2) for at in range(200)]
    # A Poisson process would have a variance of 20, its mean.
    assert statistics.pvariance(counts) > 100


def test_a_seed_gives_the_same_run() -> None:
    first, again = (run("scheduler", BATCHES, 200, seconds=3, seed=5) for _ in range(2))
    assert [text.done_at for text in first.texts] == [text.done_at for text in again.texts]


@pytest.mark.parametrize("name", POLICIES)
def test_nothing_is_lost_under_light_load(name: str) -> None:
    trace = run(name, BATCHES, 20, seconds=5)
    assert trace.goodput(0, 5) == 1.0


def test_a_fixed_window_holds_a_lone_text_for_its_length() -> None:
    trace = simulate(FixedWindow(ONE), ONE, iter([(1.0, [Text(16, 1.0, 2.0)])]), seed=0)
    # One text fills a batch of one; in batches of eight it waits.
    assert trace.texts[0].begun_at == 1.0
    trace = simulate(FixedWindow(BATCHES), BATCHES, iter([(1.0, [Text(16, 1.0, 2.0)])]), seed=0)
    assert trace.texts[0].begun_at == pytest.approx(1.005)


def test_deferred_batching_holds_a_lone_text_until_it_must_leave() -> None:
    trace = simulate(Deferred(BATCHES), BATCHES, iter([(0.0, [Text(16, 0.0, 0.5)])]), seed=0)
    (text,) = trace.texts
    assert 0.4 < text.begun_at < 0.5
    assert text.in_time


def test_cork_takes_the_newest_first() -> None:
    policy = Cork(BATCHES)
    texts = [Text(16, 0.0, 10.0 + number) for number in range(10)]
    policy.arrive(texts, 0.0)
    job = policy.start(0.0)
    assert job is not None
    assert job.texts == texts[:1:-1]


@pytest.mark.parametrize("seed", range(3))
def test_past_capacity_the_scheduler_comes_near_the_ceiling(seed: int) -> None:
    lengths = [16, 64, 200] * 30
    cost = best_cost(BATCHES, sorted(lengths))
    rate = 1.2 / statistics.fmean(cost[length] for length in (16, 64, 200))
    possible = ceiling(cost, singles(rate, 12, seed=seed), 1, 11)
    found = {
        name: run(name, BATCHES, rate, seconds=12, seed=seed).goodput(1, 11) for name in POLICIES
    }
    assert found["scheduler"] > 0.93 * possible
    assert found["scheduler"] == max(found.values())


def test_refused_texts_are_never_run() -> None:
    trace = run("scheduler", ONE, 300, seconds=3)
    refused = [text for text in trace.texts if text.refused]
    assert refused
    assert all(text.done_at == float("inf") for text in refused)


def test_the_simulation_runs_the_scheduler_that_serves() -> None:
    assert type(Scheduled(ONE).scheduler).__module__ == "raglan.scheduling.scheduler"
