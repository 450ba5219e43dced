"""The dispatcher with real threads and an engine that does what the test says."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
from raglan.deadline import Deadline
from raglan.errors import DeadlineExceeded, Internal, Overloaded, Unavailable
from raglan.health import Health
from raglan.scheduling import (
    Answer,
    Batch,
    BatchTooLarge,
    DeviceLost,
    Dispatcher,
    Lane,
    LatencyModel,
    Limits,
    Pool,
)

LIMIT_S = 30.0

Queue = Dispatcher[int, int]
LIMITS = Limits(batch_tokens=64, batch_items=4, waiting_items=100)


class Engine:
    """Doubles its items. While `hold` is unset it waits; negative items are poison."""

    def __init__(self) -> None:
        self.hold = threading.Event()
        self.hold.set()
        self.started: list[list[int]] = []
        self.memory = 1_000

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.started.append(list(items))
        assert self.hold.wait(2 * LIMIT_S), "the test never let the engine go on"
        if any(item == -99 for item in items):
            raise DeviceLost
        if len(items) > self.memory:
            raise BatchTooLarge
        if any(item < 0 for item in items):
            raise RuntimeError("a kernel failed")
        return [2 * item for item in items]


class Heard:
    """What the observer was told."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, list[float]]] = []
        self.drops: list[tuple[str, int]] = []

    def ran(self, batch: Batch, seconds: float, queued_s: Sequence[float]) -> None:
        self.batches.append((len(batch.items), list(queued_s)))

    def dropped(self, reason: str, items: int) -> None:
        self.drops.append((reason, items))


def dispatcher(*pools: Pool[int, int], **changes: Any) -> Queue:
    chosen: dict[str, Any] = {
        "limits": LIMITS,
        "latency": lambda: LatencyModel(seconds_per_token=1e-5, overhead_s=1e-4),
        "stalled_after_s": 30,
        "name": "test",
    }
    return Dispatcher(pools, **(chosen | changes))


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
async def queue(engine: Engine, heard: Heard) -> AsyncIterator[Queue]:
    queue = dispatcher(Pool([engine]), observer=heard)
    yield queue
    engine.hold.set()
    await queue.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not condition():
            await asyncio.sleep(0.001)


def submit(
    queue: Queue,
    items: Sequence[int],
    *,
    tokens: int = 10,
    lane: Lane = Lane.INTERACTIVE,
    within_s: float = LIMIT_S,
) -> list[asyncio.Future[Answer[int]]]:
    counts = [tokens] * len(items)
    return queue.submit(items, counts, deadline=Deadline.after(within_s), lane=lane)


async def results(futures: Sequence[asyncio.Future[Answer[int]]]) -> list[int]:
    return [answer.result for answer in await asyncio.gather(*futures)]


async def test_results_come_in_the_order_of_the_items(queue: Queue) -> None:
    items = list(range(40))
    counts = [(7 * item) % 30 + 1 for item in items]
    futures = queue.submit(items, counts, deadline=Deadline.after(LIMIT_S), lane=Lane.BULK)
    assert await results(futures) == [2 * item for item in items]


async def test_a_query_waits_behind_at_most_the_batch_that_runs(
    queue: Queue, engine: Engine
) -> None:
    engine.hold.clear()
    bulk = submit(queue, range(1, 41), lane=Lane.BULK)
    await until(lambda: len(engine.started) == 1)
    query = submit(queue, [99])
    engine.hold.set()
    assert await results(query) == [198]
    assert engine.started[1] == [99]
    assert len(await results(bulk)) == 40


async def test_queries_that_come_while_a_device_is_busy_leave_together(
    queue: Queue, engine: Engine
) -> None:
    engine.hold.clear()
    first = submit(queue, [1])
    await until(lambda: len(engine.started) == 1)
    others = [future for item in (2, 3, 4) for future in submit(queue, [item])]
    engine.hold.set()
    assert await results([*first, *others]) == [2, 4, 6, 8]
    assert engine.started == [[1], [2, 3, 4]]


async def test_a_call_has_one_timing_and_fails_as_a_whole(queue: Queue) -> None:
    counts = [16] * 8
    found, timing = await queue.run(
        range(8), counts, deadline=Deadline.after(LIMIT_S), lane=Lane.INTERACTIVE
    )
    assert found == [2 * item for item in range(8)]
    assert (timing.batch_size, timing.batch_tokens) == (4, 64)
    assert timing.compute_ns > 0
    with pytest.raises(Internal):
        await queue.run(
            [1, -1, 2], [60] * 3, deadline=Deadline.after(LIMIT_S), lane=Lane.INTERACTIVE
        )


async def test_a_call_gives_up_at_its_deadline(queue: Queue, engine: Engine) -> None:
    engine.hold.clear()
    with pytest.raises(DeadlineExceeded):
        await queue.run([1], [10], deadline=Deadline.after(0.005), lane=Lane.INTERACTIVE)


async def test_timing_splits_waiting_from_computing(queue: Queue, engine: Engine) -> None:
    engine.hold.clear()
    first = submit(queue, [1, 2, 3, 4])
    await until(lambda: len(engine.started) == 1)
    begun = time.monotonic_ns()
    [waiting, _] = submit(queue, [5, 6], tokens=9)
    held = time.monotonic_ns()
    await asyncio.sleep(0.03)
    held = time.monotonic_ns() - held
    engine.hold.set()
    await results(first)
    answer = await waiting
    assert answer.queue_ns >= held
    assert 0 < answer.compute_ns <= time.monotonic_ns() - begun - held
    assert (answer.batch_size, answer.batch_tokens) == (2, 18)


async def test_a_failing_batch_fails_only_its_callers(
    queue: Queue, engine: Engine, heard: Heard
) -> None:
    engine.hold.clear()
    blocker = submit(queue, [1])
    await until(lambda: len(engine.started) == 1)
    poisoned = submit(queue, [-1], tokens=60)
    sound = submit(queue, [3], tokens=60)
    engine.hold.set()
    with pytest.raises(Internal):
        await results(poisoned)
    assert await results(sound) == [6]
    assert await results(blocker) == [2]
    assert heard.drops == [("failed", 1)]


async def test_the_queue_serves_on_after_a_failure(queue: Queue) -> None:
    with pytest.raises(Internal):
        await results(submit(queue, [-5]))
    assert await results(submit(queue, [5])) == [10]
    assert queue.health() is Health.SERVING


async def test_too_few_results_are_a_failure() -> None:
    queue = dispatcher(Pool([lambda items: list(items)[1:]]))
    try:
        futures = submit(queue, [1, 2])
        for future in futures:
            with pytest.raises(Internal):
                await future
    finally:
        await queue.close()


async def test_what_would_be_too_late_never_starts(queue: Queue, engine: Engine) -> None:
    engine.hold.clear()
    blocker = submit(queue, [1])
    await until(lambda: len(engine.started) == 1)
    begun = time.monotonic()
    [late] = submit(queue, [7], tokens=60, within_s=0.05)
    [other] = submit(queue, [9], tokens=60)
    await until(lambda: time.monotonic() > begun + 0.05)
    engine.hold.set()
    assert await results([*blocker, other]) == [2, 18]
    with pytest.raises(DeadlineExceeded):
        await late
    assert [7] not in engine.started


async def test_a_cancelled_caller_leaves_the_queue(
    queue: Queue, engine: Engine, heard: Heard
) -> None:
    engine.hold.clear()
    blocker = submit(queue, [1])
    await until(lambda: len(engine.started) == 1)
    for future in submit(queue, [7, 7, 7, 7, 7], tokens=60):
        future.cancel()
    engine.hold.set()
    assert await results(blocker) == [2]
    assert await results(submit(queue, [8])) == [16]
    assert engine.started == [[1], [8]]
    assert heard.drops == [("cancelled", 1)] * 5


async def test_a_request_is_admitted_whole_or_refused_whole(
    queue: Queue, engine: Engine, heard: Heard
) -> None:
    engine.hold.clear()
    ahead = submit(queue, range(98))
    waiting = queue.waiting(Lane.INTERACTIVE)
    with pytest.raises(Overloaded, match=f"{waiting} texts wait already and 50 more") as refusal:
        submit(queue, [1] * 50)
    assert refusal.value.retry_after_s is not None
    assert refusal.value.retry_after_s > 0
    assert heard.drops == [("refused", 50)]
    fits = submit(queue, [1, 2])
    engine.hold.set()
    assert await results(fits) == [2, 4]
    assert len(await results(ahead)) == 98


async def test_closing_fails_what_waits_and_stops_the_threads(engine: Engine) -> None:
    queue = dispatcher(Pool([engine]), name="bye")
    engine.hold.clear()
    running = submit(queue, [1])
    await until(lambda: len(engine.started) == 1)
    waiting = submit(queue, range(2, 12), tokens=60)
    closing = asyncio.create_task(queue.close())
    with pytest.raises(Unavailable):
        await waiting[-1]
    engine.hold.set()
    assert await results(running) == [2]
    await closing
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("bye")]
    with pytest.raises(Unavailable):
        submit(queue, [3])
    for future in waiting:
        assert future.done()
        assert future.exception() is None or isinstance(future.exception(), Unavailable)


async def test_two_streams_share_one_request() -> None:
    met = threading.Barrier(2, timeout=5)

    def stream(items: Sequence[int]) -> list[int]:
        met.wait()
        return list(items)

    queue = dispatcher(Pool([stream, stream]))
    try:
        assert await results(submit(queue, [1, 2], tokens=40)) == [1, 2]
    finally:
        await queue.close()


async def test_a_lost_device_fails_everyone_and_is_not_healthy(engine: Engine) -> None:
    queue = dispatcher(Pool([engine]))
    try:
        engine.hold.clear()
        futures = [future for item in (-99, 1, 2) for future in submit(queue, [item], tokens=60)]
        engine.hold.set()
        for future in futures:
            with pytest.raises(Unavailable, match="device is lost"):
                await future
        assert queue.health() is Health.DEAD
        with pytest.raises(Unavailable, match="device is lost"):
            submit(queue, [1])
    finally:
        await queue.close()


async def test_work_without_results_is_a_stall_and_results_end_it(engine: Engine) -> None:
    queue = dispatcher(Pool([engine]), stalled_after_s=0.02)
    try:
        assert queue.health() is Health.SERVING
        engine.hold.clear()
        stuck = submit(queue, [1])
        await until(lambda: queue.health() is Health.STALLED)
        engine.hold.set()
        await results(stuck)
        assert queue.health() is Health.SERVING
    finally:
        engine.hold.set()
        await queue.close()


async def test_the_observer_hears_of_each_batch_and_how_long_it_waited(
    queue: Queue, heard: Heard
) -> None:
    await results(submit(queue, [1, 2, 3, 4], tokens=16))
    assert [count for count, _ in heard.batches] == [4]
    assert all(0 <= seconds < 5 for seconds in heard.batches[0][1])


async def test_a_call_that_timed_out_teaches_what_its_batch_took(
    queue: Queue, engine: Engine, heard: Heard
) -> None:
    engine.hold.clear()
    before = queue.fitting([10] * 1_000, deadline=Deadline.after(0.005), lane=Lane.INTERACTIVE)
    with pytest.raises(DeadlineExceeded):
        await queue.run([1], [10], deadline=Deadline.after(0.05), lane=Lane.INTERACTIVE)
    engine.hold.set()
    await until(lambda: len(heard.batches) == 1)
    after = queue.fitting([10] * 1_000, deadline=Deadline.after(0.005), lane=Lane.INTERACTIVE)
    assert after < before


async def test_a_bad_text_fails_alone_whoever_shares_its_batch(
    queue: Queue, engine: Engine, heard: Heard
) -> None:
    engine.hold.clear()
    (blocking,) = submit(queue, [0], tokens=60)
    await until(lambda: engine.started == [[0]])
    mates, poisoned = submit(queue, [1, 2]), submit(queue, [-1])
    engine.hold.set()
    assert await results([blocking, *mates]) == [0, 2, 4]
    with pytest.raises(Internal, match="failed on a text"):
        await results(poisoned)
    assert max(map(len, engine.started)) == 3, "they did not share a batch"
    assert heard.drops == [("failed", 1)]


async def test_a_model_that_fails_on_everything_is_not_tried_for_each_text(
    engine: Engine,
) -> None:
    wide = Limits(batch_tokens=10_000, batch_items=256, waiting_items=256)
    queue = dispatcher(Pool([engine]), limits=wide)
    futures = submit(queue, [-1] * 200)
    found = await asyncio.gather(*futures, return_exceptions=True)
    assert all(isinstance(each, Internal) for each in found)
    assert len(engine.started) < 100
    await queue.close()


async def test_a_device_without_memory_for_a_batch_gets_smaller_ones(engine: Engine) -> None:
    engine.memory = 3
    wide = Limits(batch_tokens=160, batch_items=16, waiting_items=256)
    queue = dispatcher(Pool([engine]), limits=wide)
    assert await results(submit(queue, list(range(16)))) == [2 * n for n in range(16)]
    engine.started.clear()
    assert await results(submit(queue, list(range(16)))) == [2 * n for n in range(16)]
    assert max(map(len, engine.started)) <= 4
    await queue.close()


async def test_an_error_in_place_of_a_result_fails_that_input_alone() -> None:
    refused = Internal("no vector")
    queue = dispatcher(Pool([lambda items: [refused if n == 1 else n for n in items]]))
    good, bad = submit(queue, [2, 1])
    assert (await good).result == 2
    with pytest.raises(Internal, match="no vector"):
        await bad
    await queue.close()
