"""Whether an engine moves, and what it counts, told step by step."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from raglan_generator.engines.vllm_progress import Counters, Progress


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def progress(clock: Clock) -> Progress:
    return Progress(30, clock)


def test_an_engine_without_work_is_never_stalled(progress: Progress, clock: Clock) -> None:
    clock.now = 1e6
    assert not progress.stalled


def test_work_without_a_sign_is_a_stall(progress: Progress, clock: Clock) -> None:
    progress.given()
    clock.now = 29.9
    assert not progress.stalled
    clock.now = 30
    assert progress.stalled


def test_more_work_does_not_put_a_stall_off(progress: Progress, clock: Clock) -> None:
    for second in range(31):
        clock.now = float(second)
        progress.given()
    assert progress.stalled


def test_a_sign_of_life_ends_a_stall(progress: Progress, clock: Clock) -> None:
    progress.given()
    clock.now = 100
    assert progress.stalled
    progress.moved(busy=True)
    assert not progress.stalled
    clock.now = 130
    assert progress.stalled


def test_after_its_last_work_an_engine_owes_nothing(progress: Progress, clock: Clock) -> None:
    progress.given()
    progress.moved(busy=False)
    clock.now = 1e6
    assert not progress.stalled


def test_what_the_engine_never_saw_is_not_owed(progress: Progress, clock: Clock) -> None:
    assert progress.given()
    assert not progress.given(), "something is owed already"
    progress.refused()
    clock.now = 1e6
    assert not progress.stalled


def stats(**changed: Any) -> SimpleNamespace:
    """A step of vLLM's engine that did nothing, but for `changed`."""
    cache = SimpleNamespace(queries=0, hits=0)
    nothing = {
        "num_running_reqs": 0,
        "num_waiting_reqs": 0,
        "num_skipped_waiting_reqs": 0,
        "kv_cache_usage": 0.0,
        "prefix_cache_stats": cache,
        "spec_decoding_stats": None,
    }
    return SimpleNamespace(**(nothing | changed))


def test_what_it_holds_is_of_the_last_step_and_what_it_did_of_all() -> None:
    counters = Counters()
    cache = SimpleNamespace(queries=100, hits=60)
    speculated = SimpleNamespace(num_draft_tokens=8, num_accepted_tokens=5)
    step = stats(
        num_running_reqs=3,
        num_waiting_reqs=2,
        num_skipped_waiting_reqs=1,
        kv_cache_usage=0.5,
        prefix_cache_stats=cache,
        spec_decoding_stats=speculated,
    )
    counters.record(step)
    assert counters.busy
    counters.record(step)
    counters.record(stats())
    load = counters.load()
    assert not counters.busy
    assert (load.running, load.waiting, load.kv_use) == (0, 0, 0.0)
    assert (load.prefix_tokens_total, load.prefix_hits_total) == (200, 120)
    assert (load.drafted_total, load.accepted_total) == (16, 10)
