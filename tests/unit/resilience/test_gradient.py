"""The limit that finds itself, before servers that exist in a simulation.

The server has `workers` that work at full speed; more calls share them. The right limit is a little
more than there are workers.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from statistics import fmean

import pytest
from raglan.resilience.admission import Priority
from raglan.resilience.gradient import GradientLimit
from simulated_server import Call, Server, Simulation, outcomes

Work = Callable[[random.Random], float]
WORK_S = 0.1


def constant(_: random.Random) -> float:
    return WORK_S


def exponential(dice: random.Random) -> float:
    return dice.expovariate(1 / WORK_S)


def mixed(dice: random.Random) -> float:
    """Seven of ten take 10 ms, the others 310."""
    return 0.01 if dice.random() < 0.7 else 0.31


def answered_per_s(calls: list[Call], seconds: float) -> float:
    return outcomes(calls)["answered"] / seconds


def latency_s(simulation: Simulation, since: float) -> float:
    """What calls took on average once they ran."""
    return fmean(took for at, took in simulation.latencies if at >= since)


@pytest.mark.slow
@pytest.mark.parametrize("work_s", [constant, exponential, mixed])
@pytest.mark.parametrize("initial", [5, 150])
def test_it_settles_near_what_saturates_the_server(initial: int, work_s: Work) -> None:
    simulation = Simulation(Server(20, work_s), GradientLimit(initial=initial))
    simulation.offer(300, 25)
    calls = simulation.offer(300, 15)
    assert 20 <= simulation.limit.limit <= 50 or simulation.limit.probing
    assert answered_per_s(calls, 15) >= 0.9 * 200
    assert latency_s(simulation, 25) <= 2.5 * WORK_S


@pytest.mark.slow
@pytest.mark.parametrize("times", [2, 5, 10])
def test_overload_costs_no_goodput(times: int) -> None:
    simulation = Simulation(Server(8, exponential))
    simulation.offer(80 * times, 10)
    calls = simulation.offer(80 * times, 25)
    assert answered_per_s(calls, 25) >= 0.9 * 80
    assert latency_s(simulation, 10) <= 2.5 * WORK_S
    assert outcomes(calls)["late"] <= 0.02 * len(calls)


def test_a_server_that_gets_slow_and_fast_again_is_used_fully_each_time() -> None:
    simulation = Simulation(Server(20, constant))
    simulation.offer(260, 15)
    for factor in (5.0, 1.0):
        simulation.server.work_s = lambda _, factor=factor: factor * WORK_S
        simulation.offer(260, 40)
        calls = simulation.offer(260, 20)
        assert answered_per_s(calls, 20) >= 0.85 * 200 / factor
        assert latency_s(simulation, simulation.now - 20) <= 3 * factor * WORK_S


def test_capacity_lost_and_regained_is_used_fully() -> None:
    """A server that loses workers and gets them back is used fully each time."""
    simulation = Simulation(Server(24, constant))
    simulation.offer(300, 15)
    for workers in (6, 24):
        simulation.server.workers = workers
        simulation.offer(300, 30)
        calls = simulation.offer(300, 15)
        assert answered_per_s(calls, 15) >= 0.9 * workers / WORK_S
        assert latency_s(simulation, simulation.now - 15) <= 3 * WORK_S


def test_it_does_not_grow_while_nobody_needs_it() -> None:
    simulation = Simulation(Server(20, exponential))
    simulation.offer(20, 300)
    assert simulation.limit.limit == 20


@pytest.mark.slow
def test_minutes_of_full_use_do_not_make_the_queue_normal() -> None:
    simulation = Simulation(Server(8, exponential), deadline_s=5)
    simulation.offer(120, 60)
    early = latency_s(simulation, 30)
    simulation.offer(120, 150)
    assert latency_s(simulation, 180) <= 1.5 * early


def used(
    limit: GradientLimit, calls: int, seconds: float, *, share: float = 1.0, begin: float = 0.0
) -> list[tuple[int, bool]]:
    """Let calls of `seconds` use `share` of the limit; the limit after each, and if it looks."""
    seen = []
    for call in range(calls):
        limit.started(max(1, int(share * limit.limit)), begin + call)
        if share == 1.0:
            limit.queued()
        limit.observe(seconds, begin + call)
        seen.append((limit.limit, limit.probing))
    return seen


def test_it_does_not_grow_while_three_quarters_of_it_are_enough() -> None:
    limit = GradientLimit(initial=40)
    used(limit, 200, 0.1, share=0.25)
    used(limit, 4000, 0.1, share=0.75, begin=200)
    assert limit.limit <= 40


def test_in_full_use_it_looks_at_the_unloaded_latency_now_and_then() -> None:
    limit = GradientLimit(initial=40, largest=40)
    used(limit, 200, 0.1, share=0.25)
    looks = [looking for _, looking in used(limit, 10_000, 0.1, begin=200)]
    assert any(looks)
    assert sum(looks) < 0.05 * len(looks)


def test_slower_work_is_told_from_a_queue_in_time() -> None:
    """Work that became slower is told from a queue before the limit is gone."""
    limit = GradientLimit(initial=100, largest=100)
    used(limit, 2000, 0.1, share=0.25)
    seen = used(limit, 60 * 100, 0.5, begin=2000)
    assert min(now for now, looking in seen if not looking) > 40
    assert limit.limit > 60


def test_work_that_became_far_faster_is_looked_at_soon() -> None:
    limit = GradientLimit(initial=100, largest=100)
    used(limit, 2000, 0.5, share=0.25)
    looks = [looking for _, looking in used(limit, 500, 0.1, begin=2000)]
    assert any(looks)


def test_a_start_under_overload_ends_with_the_first_look() -> None:
    simulation = Simulation(Server(8, constant), GradientLimit(initial=200))
    simulation.offer(160, 5)
    while simulation.limit.unloaded_s is None:
        simulation.offer(160, 0.5)
        assert simulation.now < 60
    assert simulation.limit.limit <= 25


def test_refusals_lower_the_limit_and_answers_raise_it() -> None:
    """A service that refuses lowers it and one that answers lets it grow."""
    limit = GradientLimit(initial=100, smallest=4)
    now = 0.0
    for _ in range(4000):
        now += 0.01
        limit.started(limit.limit, now)
        limit.queued()
        limit.refused(now)
    assert limit.limit == 4
    for _ in range(4000):
        now += 0.01
        limit.started(limit.limit, now)
        limit.queued()
        limit.observe(0.1, now)
    assert limit.limit > 20


def test_calls_that_time_out_lower_it_and_short_deadlines_do_not() -> None:
    limit = GradientLimit(initial=100, smallest=4)

    def lowest(gave_up_after_s: float) -> int:
        seen = []
        for call in range(600):
            limit.started(limit.limit, call)
            limit.queued()
            limit.observe(0.1, call)
            limit.timed_out(gave_up_after_s, call)
            seen.append(limit.limit)
        return min(seen[300:])

    assert lowest(gave_up_after_s=0.01) >= 100
    assert limit.latency_s == pytest.approx(0.1)
    assert lowest(gave_up_after_s=5.0) < 100


@pytest.mark.parametrize("limits", [(1, 2, 3), (5, 2, 3), (2, 0, 3)])
def test_limits_that_do_not_fit_each_other_are_refused(limits: tuple[int, int, int]) -> None:
    initial, smallest, largest = limits
    with pytest.raises(ValueError, match="must lie between"):
        GradientLimit(initial=initial, smallest=smallest, largest=largest)


def test_the_limit_stays_between_its_bounds_whatever_it_is_told() -> None:
    dice = random.Random(5)
    limit = GradientLimit(initial=10, smallest=3, largest=30)
    now = 0.0
    for _ in range(50_000):
        now += dice.expovariate(100)
        limit.started(dice.randint(1, 40), now)
        if dice.random() < 0.5:
            limit.queued()
        told = dice.random()
        if told < 0.05:
            limit.refused(now)
        elif told < 0.1:
            limit.timed_out(dice.expovariate(1), now)
        else:
            limit.observe(dice.choice([0.0, 0.001, 0.1, 10.0]), now)
        assert 3 <= limit.limit <= 30


def test_critical_calls_are_served_at_twice_the_load() -> None:
    simulation = Simulation(Server(8, exponential))
    shares = {Priority.CRITICAL: 0.1, Priority.DEFAULT: 0.6, Priority.BATCH: 0.3}
    simulation.offer(160, 10, shares)
    calls = simulation.offer(160, 60, shares)
    critical = outcomes([call for call in calls if call.priority is Priority.CRITICAL])
    assert critical["answered"] >= 0.99 * critical.total()


def test_a_flood_of_batch_work_leaves_default_calls_their_places() -> None:
    simulation = Simulation(Server(8, exponential))
    shares = {Priority.DEFAULT: 0.1, Priority.BATCH: 0.9}
    simulation.offer(400, 10, shares)
    calls = simulation.offer(400, 30, shares)
    default = outcomes([call for call in calls if call.priority is Priority.DEFAULT])
    batch = outcomes([call for call in calls if call.priority is Priority.BATCH])
    assert default["answered"] >= 0.99 * default.total()
    assert batch["answered"] > 0
