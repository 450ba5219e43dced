"""The state machine, driven without clock, thread or loop."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raglan.errors import Overloaded
from raglan.scheduling import Batch, FlushReason, Item, Lane, LatencyModel, Limits, Scheduler

PER_TOKEN, OVERHEAD = 0.001, 0.002
QUERY, BULK = Lane.INTERACTIVE, Lane.BULK


def by_eight(tokens: int) -> int:
    return -(-tokens // 8) * 8


def limits(**changes: Any) -> Limits:
    return Limits(**{"batch_tokens": 64, "batch_items": 4, "waiting_items": 10_000, **changes})


def scheduler(**changes: Any) -> Scheduler:
    return Scheduler(
        limits(**changes), LatencyModel(seconds_per_token=PER_TOKEN, overhead_s=OVERHEAD)
    )


def items(
    count: int, *, tokens: int = 10, lane: Lane = QUERY, expires_at: float = 1e6
) -> list[Item]:
    return [Item(tokens, lane, expires_at) for _ in range(count)]


@dataclass
class Device:
    """Runs what it is handed, on a clock of its own: each batch takes what the model says."""

    queue: Scheduler
    now: float = 0.0
    handed: list[Batch] = field(default_factory=list)
    started: list[Batch] = field(default_factory=list)
    late: list[Item] = field(default_factory=list)
    formed: list[tuple[Lane, int]] = field(default_factory=list)
    """Lane of each batch, and how many queries were left waiting."""

    def pump(self) -> None:
        while batch := self.queue.next_batch(self.now):
            self.handed.append(batch)
            self.formed.append((batch.lane, self.queue.waiting_in(QUERY)))
        self.late += self.queue.pop_late()

    def step(self, factor: float = 1.0) -> Batch:
        """Run the batch that was handed out first to its end."""
        batch = self.handed.pop(0)
        self.started.append(batch)
        seconds = factor * (PER_TOKEN * batch.padded_tokens + OVERHEAD)
        self.now += seconds
        self.queue.finished(batch, seconds, self.now)
        self.pump()
        return batch

    def drain(self) -> None:
        self.pump()
        while self.handed:
            self.step()


def test_a_free_device_takes_what_waits_at_once() -> None:
    queue = scheduler()
    queue.submit(items(1), 0.0)
    batch = queue.next_batch(0.0)
    assert batch is not None
    assert (len(batch.items), batch.closed) == (1, FlushReason.IDLE)


def test_one_batch_is_handed_out_ahead_and_no_more() -> None:
    queue = scheduler(streams=2)
    queue.submit(items(40), 0.0)
    device = Device(queue)
    device.pump()
    assert len(device.handed) == 3
    assert queue.ahead() is device.handed[2]


def test_idle_streams_share_what_waits() -> None:
    queue = scheduler(streams=2)
    queue.submit(items(4, tokens=5), 0.0)
    device = Device(queue)
    device.pump()
    assert [len(batch.items) for batch in device.handed] == [2, 2]


def test_the_earliest_deadline_goes_first() -> None:
    queue = scheduler(batch_items=1)
    for expires_at in (1.5, 0.5, 1.0):
        queue.submit(items(1, expires_at=expires_at), 0.0)
    device = Device(queue)
    device.drain()
    assert [batch.items[0].expires_at for batch in device.started] == [0.5, 1.0, 1.5]


def test_a_query_is_before_all_bulk_that_waits() -> None:
    queue = scheduler()
    device = Device(queue)
    queue.submit(items(40, tokens=60, lane=BULK), 0.0)
    device.pump()
    queue.submit(items(1), 0.0)
    ahead = queue.ahead()
    assert ahead is not None
    device.handed.remove(ahead)
    queue.retract(ahead)
    device.drain()
    assert [batch.lane for batch in device.started[:3]] == [BULK, QUERY, BULK]


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_bulk_keeps_its_share_while_queries_never_end(share: float) -> None:
    queue = scheduler(bulk_share=share)
    device = Device(queue)
    queue.submit(items(2_000, tokens=32, lane=BULK), 0.0)
    queue.submit(items(4_000, tokens=16), 0.0)
    device.pump()
    for _ in range(800):
        device.step()
    tokens = {lane: sum(b.padded_tokens for b in device.started if b.lane is lane) for lane in Lane}
    assert tokens[BULK] / sum(tokens.values()) == pytest.approx(share, abs=0.03)


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 64)), min_size=30, max_size=120))
def test_no_two_bulk_batches_follow_each_other_while_a_query_waits(
    arrivals: list[tuple[bool, int]],
) -> None:
    queue = scheduler(bulk_share=0.5)
    device = Device(queue)
    for query, tokens in arrivals:
        queue.submit(items(1, tokens=tokens, lane=QUERY if query else BULK), device.now)
    device.drain()
    for (before, _), (lane, queries_waiting) in pairwise(device.formed):
        assert not queries_waiting or (before, lane) != (BULK, BULK)


def test_what_would_miss_its_deadline_is_dropped_before_it_runs() -> None:
    queue = scheduler()
    device = Device(queue)
    queue.submit(items(4, tokens=16), 0.0)
    device.pump()
    # 66 ms are taken; these could be done in 12 ms, at 78 ms.
    hopeless = Item(10, QUERY, 0.077)
    fine = Item(10, QUERY, 0.085)
    queue._add(hopeless)
    queue._add(fine)
    device.drain()
    assert device.late == [hopeless]
    assert fine in device.started[-1].items


def test_a_lone_urgent_text_goes_without_those_that_would_make_it_late() -> None:
    queue = scheduler(batch_items=8)
    queue.submit(items(1, tokens=10, expires_at=0.025), 0.0)
    queue.submit(items(7, tokens=10, expires_at=9.0), 0.0)
    device = Device(queue)
    device.drain()
    assert device.late == []
    assert (len(device.started[0].items), device.started[0].closed) == (2, FlushReason.DEADLINE)


def test_in_a_crowd_batches_stay_full_and_the_late_are_dropped() -> None:
    queue = scheduler(batch_items=8, streams=1)
    device = Device(queue)
    queue.submit(items(8, tokens=8), 0.0)
    device.pump()
    urgent = Item(8, QUERY, device.handed[0].ends_at + 0.015)
    for each in [urgent, *items(60, tokens=8, expires_at=9.0)]:
        queue._add(each)
    device.drain()
    assert device.late == [urgent]
    assert len(device.started[1].items) == 8


def test_an_idle_device_tries_what_the_estimate_calls_hopeless() -> None:
    queue = scheduler()
    slow = LatencyModel(seconds_per_token=0.1, overhead_s=0.1)
    queue.latency = slow
    for _ in range(200):
        queue.submit(items(1, expires_at=1.0), 0.0)
        batch = queue.next_batch(0.0)
        assert batch is not None
        queue.finished(batch, 0.01, 0.0)
    assert slow.seconds(10) < 0.05


def test_a_request_is_admitted_whole_or_not_at_all() -> None:
    queue = scheduler(waiting_items=10)
    queue.submit(items(8), 0.0)
    with pytest.raises(Overloaded, match="8 texts wait already and 3 more") as refusal:
        queue.submit(items(3), 0.0)
    assert refusal.value.retry_after_s == pytest.approx(queue.backlog_s(0.0))
    assert queue.waiting == 8
    queue.submit(items(2), 0.0)


def test_bulk_that_fills_its_lane_does_not_shut_queries_out() -> None:
    queue = scheduler(waiting_items=10)
    queue.submit(items(10, lane=BULK), 0.0)
    with pytest.raises(Overloaded):
        queue.submit(items(1, lane=BULK), 0.0)
    queue.submit(items(10), 0.0)
    assert (queue.waiting_in(QUERY), queue.waiting_in(BULK)) == (10, 10)


def test_a_request_behind_too_much_work_is_told_when_to_return() -> None:
    queue = scheduler()
    queue.submit(items(100, expires_at=0.5), 0.0)
    with pytest.raises(Overloaded, match="outlast the deadline") as refusal:
        queue.submit(items(1, expires_at=0.5), 0.0)
    retry_after_s = refusal.value.retry_after_s
    assert retry_after_s is not None
    assert queue.waiting == 100
    queue.submit(items(1, expires_at=0.51 + retry_after_s), 0.0)


def test_work_that_is_less_urgent_does_not_stand_in_the_way() -> None:
    queue = scheduler()
    queue.submit(items(100, expires_at=60.0), 0.0)
    queue.submit(items(1, expires_at=0.5), 0.0)
    assert queue.waiting == 101


def test_what_is_cancelled_never_runs() -> None:
    queue = scheduler()
    gone, stays = items(2)
    queue.submit([gone, stays], 0.0)
    queue.cancel(gone)
    batch = queue.next_batch(0.0)
    assert batch is not None
    assert batch.items == [stays]


def test_a_batch_taken_back_waits_again_and_bulks_claim_is_restored() -> None:
    queue = scheduler(bulk_share=0.5)
    queue.submit(items(8, tokens=60, lane=BULK), 0.0)
    queue.submit(items(8, tokens=60), 0.0)
    first, second = queue.next_batch(0.0), queue.next_batch(0.0)
    assert first is not None
    assert second is not None
    credit, waiting = second.credit, queue.waiting
    queue.retract(second)
    assert queue.waiting == waiting + 1
    again = queue.next_batch(0.0)
    assert again is not None
    assert (again.items, again.credit) == (second.items, credit)


def test_backlog_is_what_waits_and_runs_over_the_speed() -> None:
    queue = scheduler()
    assert queue.backlog_s(0.0) == 0.0
    queue.submit(items(10, tokens=16), 0.0)
    expected = 160 * queue.latency.seconds_per_token
    assert queue.backlog_s(0.0) == pytest.approx(expected)
    device = Device(queue)
    device.pump()
    assert queue.backlog_s(0.0) > queue.backlog_s(0.05) > 0
    device.drain()
    assert queue.backlog_s(device.now) == 0.0


def test_a_stall_is_work_without_results_and_idling_is_none() -> None:
    queue = scheduler()
    assert queue.stalled_s(1_000.0) == 0.0
    queue.submit(items(1), 1_000.0)
    batch = queue.next_batch(1_000.0)
    assert batch is not None
    assert queue.stalled_s(1_030.0) == 30.0
    queue.finished(batch, 0.1, 1_031.0)
    assert queue.stalled_s(2_000.0) == 0.0


Event = tuple[str, int, int, float]
events = st.lists(
    st.tuples(
        st.sampled_from(["query", "bulk", "bulk", "step", "step", "cancel", "retract", "wait"]),
        st.integers(1, 9),
        st.integers(1, 100),
        st.floats(0.001, 3.0),
    ),
    max_size=120,
)


@settings(max_examples=300)
@given(events, st.integers(1, 3))
def test_every_item_ends_once_whatever_happens(script: list[Event], streams: int) -> None:
    queue = scheduler(streams=streams, waiting_items=60, padded=by_eight)
    device = Device(queue)
    admitted: list[Item] = []
    cancelled: set[int] = set()
    for what, count, tokens, seconds in script:
        if what in ("query", "bulk"):
            lane = QUERY if what == "query" else BULK
            new = items(count, tokens=tokens, lane=lane, expires_at=device.now + seconds)
            before = queue.waiting
            try:
                queue.submit(new, device.now)
                admitted += new
            except Overloaded:
                assert queue.waiting == before
        elif what == "step" and device.handed:
            device.step(factor=seconds)
        elif what == "cancel" and admitted:
            each = admitted[tokens % len(admitted)]
            if each.waiting:
                cancelled.add(id(each))
            queue.cancel(each)
        elif what == "retract" and (ahead := queue.ahead()) is not None:
            device.handed.remove(ahead)
            queue.retract(ahead)
        elif what == "wait":
            device.now += seconds / 10
        device.pump()
        assert len(device.handed) == len(queue.out) <= streams + 1
        assert len(queue.out) > streams or queue.waiting == 0, "work waits before a free stream"
        waiting = [item for lane in queue._lanes.values() for item in lane]
        assert sum(queue._tokens.values()) == sum(-(-item.tokens // 8) * 8 for item in waiting)
    device.drain()
    ran = [id(item) for batch in device.started for item in batch.items]
    late = [id(item) for item in device.late]
    assert sorted(ran + late + list(cancelled)) == sorted(map(id, admitted))
    for batch in device.started:
        assert len({item.lane for item in batch.items}) == 1
        assert len(batch.items) == 1 or (batch.padded_tokens <= 64 and len(batch.items) <= 4)
    assert queue.backlog_s(device.now) == 0.0


def test_an_idle_device_tries_one_item_of_a_call_that_looks_hopeless() -> None:
    assert scheduler().fitting([10] * 20, QUERY, 0.001, 0.0) == 1


def test_a_busy_device_plans_nothing_for_a_call_that_looks_hopeless() -> None:
    device = Device(scheduler())
    device.queue.submit(items(1), 0.0)
    device.pump()
    assert device.queue.fitting([10] * 20, QUERY, 0.001, 0.0) == 0


@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=30),
    st.floats(0.01, 3),
)
def test_what_is_said_to_fit_is_done_in_time(tokens: list[int], within_s: float) -> None:
    queue = scheduler()
    fit = queue.fitting(tokens, QUERY, within_s, 0.0)
    wanted = [Item(each, QUERY, within_s) for each in tokens[:fit]]
    queue.submit(wanted, 0.0)
    device = Device(queue)
    device.drain()
    assert fit == 1 or not device.late
    assert sum(len(batch.items) for batch in device.started) == fit


def test_a_trial_runs_and_unlearns_an_estimate_that_was_wrong() -> None:
    """An encoder that was once seen to be slow scores again, whatever the deadlines are."""
    queue = Scheduler(limits(), LatencyModel(seconds_per_token=0.05, overhead_s=0.8))
    now, done = 0.0, 0
    for _ in range(60):
        fit = queue.fitting([32] * 20, QUERY, now + 1.0, now)
        assert fit >= 1
        queue.submit([Item(32, QUERY, now + 1.0) for _ in range(fit)], now)
        done = 0
        while batch := queue.next_batch(now):
            now += 0.001 * batch.padded_tokens
            queue.finished(batch, 0.001 * batch.padded_tokens, now)
            done += len(batch.items)
    assert done == 20


def test_a_batch_that_was_given_up_in_part_teaches_by_what_ran() -> None:
    queue = scheduler()
    work = items(4, tokens=16)
    queue.submit(work, 0.0)
    batch = queue.next_batch(0.0)
    assert batch is not None
    before = queue.latency.seconds(16)
    queue.finished(batch, 10 * before, 1.0, ran=batch.items[:1])
    assert queue.latency.seconds(16) > before


def test_a_caller_with_time_to_spare_is_served_while_others_keep_coming() -> None:
    """Twice as many short deadlines as the device can do, and one of a minute."""
    device = Device(scheduler())
    patient = items(1, expires_at=60.0)
    device.queue.submit(patient, 0.0)
    while device.now < 10 and not any(patient[0] in batch.items for batch in device.started):
        with contextlib.suppress(Overloaded):
            while True:
                device.queue.submit(items(1, expires_at=device.now + 0.5), device.now)
        device.pump()
        device.step()
    assert any(patient[0] in batch.items for batch in device.started)


def test_the_first_burst_after_a_warm_up_is_admitted() -> None:
    """Of a device five times as fast as is believed before, after the embedder's first runs."""
    queue = Scheduler(
        limits(batch_tokens=512, batch_items=8),
        LatencyModel(seconds_per_token=1 / 2_000, overhead_s=0.002),
    )
    now = 0.0
    for tokens, count in [*2 * [(16, 1), (16, 1), (48, 1), (256, 1)], *4 * [(16, 8)]]:
        queue.submit(items(count, tokens=tokens, expires_at=now + 100), now)
        while batch := queue.next_batch(now):
            seconds = batch.padded_tokens / 10_000 + 0.0004
            now += seconds
            queue.finished(batch, seconds, now)
    for _ in range(150):
        queue.submit(items(1, tokens=16, expires_at=now + 1.0), now)
