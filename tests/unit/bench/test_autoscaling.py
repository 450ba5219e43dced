"""The simulated services and fleets, by loads whose outcome is known."""

from __future__ import annotations

from pathlib import Path

import pytest
from autoscalers import Activation, Behavior
from autoscaling import Policy, Service, multiply, read_trace, simulate
from scaled_services import (
    FIRST_TOKEN_BUDGET_S,
    PROMPT_TOKENS_A_STEP,
    STEP_S,
    Ask,
    GeneratorReplica,
    Outcome,
    RerankerReplica,
)

GENERATOR = Service("generator", GeneratorReplica, 180, 8, retrieving=False)
RERANKER = Service("reranker", RerankerReplica, 20, 8, retrieving=True)
FIXED = Policy("one", lowest=1, highest=1)


def steady(rate: float, seconds: float, prompt: int = 3000, answer: int = 300) -> list[Ask]:
    return [Ask(100 + n / rate, prompt, answer) for n in range(int(rate * seconds))]


def test_an_answer_alone_takes_its_steps() -> None:
    replica, outcome = GeneratorReplica(0), Outcome()
    replica.advance(5)
    assert replica.offer(Ask(5, 3000, 100), outcome)
    step_s = STEP_S[0] + STEP_S[1]
    replica.advance(5 + 10 * step_s + 1e-6)
    assert outcome.waits_s == [pytest.approx(3000 / PROMPT_TOKENS_A_STEP * step_s)]
    replica.advance(5 + 109.9 * step_s)
    assert replica.in_flight == 1
    replica.advance(5 + 110.1 * step_s)
    assert replica.in_flight == 0


def test_an_overloaded_generator_refuses_what_would_start_too_late() -> None:
    run = simulate(GENERATOR, FIXED, steady(8, 600), 1000)
    assert 0.4 < run.refused < 0.75
    assert run.p95_s < 2 * FIRST_TOKEN_BUDGET_S


def test_a_reranker_refuses_what_its_budget_does_not_hold() -> None:
    run = simulate(RERANKER, FIXED, steady(20, 300), 600)
    assert 0.3 < run.refused < 0.7
    assert max(run.outcome.waits_s) <= 1


def test_one_replica_costs_its_time() -> None:
    run = simulate(RERANKER, FIXED, steady(1, 3600), 3800)
    assert run.refused == 0
    assert run.hours == pytest.approx(3715 / 3600, rel=0.01)


def test_backlog_adds_replicas_until_nothing_is_refused() -> None:
    asks = steady(8, 3600)
    scaled = simulate(GENERATOR, Policy("scaled", target=2), asks, 4000)
    assert scaled.refused < simulate(GENERATOR, FIXED, asks, 4000).refused / 3
    assert max(replicas for _, replicas, _ in scaled.series) > 2


def test_an_idle_service_goes_and_comes_back() -> None:
    asks = [*steady(0.5, 60), Ask(3000, 3000, 10), Ask(3300, 3000, 10)]
    policy = Policy("zero", lowest=0, activation=Activation(cooldown_s=300))
    run = simulate(GENERATOR, policy, asks, 4000)
    replicas = {time: count for time, count, _ in run.series}
    assert min(replicas.values()) == 0
    assert run.outcome.refused == 1, "the request that wakes it finds no replica"


def test_the_same_run_twice_is_the_same() -> None:
    asks = multiply(steady(1, 600), 5, seed=1)
    policy = Policy("scaled", target=0.5, behavior=Behavior(down_window_s=60))
    first, second = (simulate(GENERATOR, policy, asks, 1000) for _ in range(2))
    assert first == second


def test_more_users_have_the_same_day() -> None:
    asks = steady(1, 600)
    many = multiply(asks, 10, seed=1)
    assert len(many) == 10 * len(asks)
    assert many == sorted(many)
    assert set(asks) <= set(many)


def test_a_trace_is_read_in_order_of_time(tmp_path: Path) -> None:
    sizes = '"input_length": 9, "output_length": 0'
    line = f'{{"timestamp": "%d", {sizes}, "hash_ids": {{"passages_ids": %s}}}}'
    lines = [line % (9, "[1]"), "", line % (3, "[]")]
    (tmp_path / "0_trace.jsonl").write_text("\n".join(lines))
    assert read_trace(tmp_path) == [(Ask(3.0, 9, 1), False), (Ask(9.0, 9, 1), True)]
