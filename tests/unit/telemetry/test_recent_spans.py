"""The ring of recent spans: what it keeps, and what it never exceeds."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.trace import SpanContext, TraceFlags
from raglan.telemetry import semconv, tracing
from raglan.telemetry.recent_spans import RecentSpans
from raglan.telemetry.recording import RecordedSpan, Tracer

TRACER = Tracer(Resource.get_empty(), SpanProcessor(), "test")


def ended(trace_id: int, at_ns: int | None = None) -> RecordedSpan:
    parent = SpanContext(trace_id, 1, False, TraceFlags(1))
    span = TRACER.begin("step", parent)
    span.end(at_ns or time.time_ns())
    return span


def ids(spans: Sequence[RecordedSpan]) -> list[int]:
    return [span.get_span_context().span_id for span in spans]


def kept(recent: RecentSpans, trace_id: int) -> list[int]:
    return ids(recent.of(trace_id)[0])


def test_a_trace_is_found_in_the_order_its_spans_ended() -> None:
    recent = RecentSpans()
    spans = [ended(7), ended(8), ended(7)]
    for span in spans:
        recent.on_end(span)
    assert kept(recent, 7) == [ids(spans)[0], ids(spans)[2]]
    assert recent.of(9) == ((), False)


def test_the_oldest_trace_goes_first_and_whole() -> None:
    recent = RecentSpans(max_spans=4)
    for trace_id in (1, 2, 1, 3, 4):
        recent.on_end(ended(trace_id))
    assert [len(kept(recent, trace_id)) for trace_id in (1, 2, 3, 4)] == [0, 1, 1, 1]


def test_of_a_trace_with_too_many_the_newest_stay_and_it_is_said() -> None:
    recent = RecentSpans(max_spans_of_trace=2_000)
    spans = [ended(1) for _ in range(10_000)]
    for span in spans:
        recent.on_end(span)
    found, had_more = recent.of(1)
    assert had_more
    assert ids(found) == ids(spans[-2_000:])
    assert recent.crowded_out == 8_000


def test_what_is_old_is_forgotten_when_others_come() -> None:
    recent = RecentSpans(max_age_s=120)
    now = time.time_ns()
    recent.on_end(ended(1, now - 121 * 10**9))
    recent.on_end(ended(2, now))
    assert (len(recent), kept(recent, 1)) == (1, [])


def test_a_long_trace_lives_as_long_as_its_newest_span() -> None:
    recent = RecentSpans(max_age_s=120)
    now = time.time_ns()
    recent.on_end(ended(1, now - 300 * 10**9))
    recent.on_end(ended(1, now - 10 * 10**9))
    recent.on_end(ended(2, now))
    assert len(kept(recent, 1)) == 2


def test_nothing_is_left_after_the_end() -> None:
    recent = RecentSpans()
    recent.on_end(ended(1))
    recent.shutdown()
    assert (len(recent), kept(recent, 1)) == (0, [])


def test_what_is_kept_gives_the_garbage_collector_little_to_walk() -> None:
    recent = RecentSpans()
    attributes = {"a": "b", "c": 1, "d": 2.5, "e": ["f"], "g": semconv.Documents(["h"], [0.5])}
    gc.collect()
    before = len(gc.get_objects())
    for number in range(1_000):
        span = TRACER.begin(
            "step", SpanContext(number // 5 + 1, 1, False, TraceFlags(1)), attributes
        )
        span.end()
        recent.on_end(span)
    for _ in range(3):  # a tuple is let go of in the collection after those inside of it
        gc.collect()
    assert len(gc.get_objects()) - before < 300  # 200 traces


@dataclass
class Step:
    trace_id: int
    wait_s: int


STEPS = st.lists(st.builds(Step, st.integers(1, 6), st.integers(0, 90)), max_size=200)


@settings(max_examples=200)
@given(STEPS, st.integers(1, 30), st.integers(1, 10))
def test_whatever_ends_in_whatever_order_no_bound_is_passed(
    steps: list[Step], max_spans: int, max_of_trace: int
) -> None:
    recent = RecentSpans(max_spans, max_of_trace, max_age_s=120)
    now = time.time_ns() - sum(step.wait_s for step in steps) * 10**9
    given_in: dict[int, list[int]] = {}
    for step in steps:
        now += step.wait_s * 10**9
        span = ended(step.trace_id, now)
        recent.on_end(span)
        given_in.setdefault(step.trace_id, []).append(span.get_span_context().span_id)
        assert len(recent) <= max_spans
    total = 0
    for trace_id, ids in given_in.items():
        found = kept(recent, trace_id)
        total += len(found)
        assert len(found) <= max_of_trace
        # What is there is the newest part of what came, without a gap.
        assert found == ids[len(ids) - len(found) :]
    assert total == len(recent)


@pytest.mark.parametrize("threads", [4])
def test_threads_that_end_spans_at_once_lose_no_count(threads: int) -> None:
    recent = RecentSpans(max_spans=500, max_spans_of_trace=50)

    def work(first: int) -> None:
        for number in range(2_000):
            recent.on_end(ended(first + number % 20))

    workers = [threading.Thread(target=work, args=(n * 10,)) for n in range(1, threads + 1)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    held = sum(len(kept(recent, trace_id)) for trace_id in range(100))
    assert held == len(recent) <= 500


def test_how_many_a_process_remembers_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGLAN_TRACE_SPANS", "3")
    installed = tracing.install("test")
    try:
        for trace_id in range(1, 6):
            tracing.begin("step", parent=SpanContext(trace_id, 1, False, TraceFlags(1))).end()
        assert len(installed.recent) == 3
        assert not kept(installed.recent, 1)
        assert kept(installed.recent, 5)
    finally:
        installed.close()
