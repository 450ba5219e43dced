"""The queue with real threads and an engine that does what the test says."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence

import pytest
from raglan.deadline import Deadline
from raglan.encoders.queue import BatchLimits, BatchQueue, Lane
from raglan.errors import DeadlineExceeded, Internal, Overloaded, Unavailable

LIMITS = BatchLimits(tokens=64, items=4)


class Engine:
    """Doubles its items. While `hold` is unset it waits; negative items are poison."""

    def __init__(self) -> None:
        self.hold = threading.Event()
        self.hold.set()
        self.started: list[list[int]] = []

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.started.append(list(items))
        assert self.hold.wait(10), "the test never let the engine go on"
        if any(item < 0 for item in items):
            raise RuntimeError("a kernel failed")
        return [2 * item for item in items]


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
async def queue(engine: Engine) -> AsyncIterator[BatchQueue[int, int]]:
    queue: BatchQueue[int, int] = BatchQueue([engine], limits=LIMITS, max_waiting=100, name="test")
    yield queue
    engine.hold.set()
    await queue.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


def submit(
    queue: BatchQueue[int, int],
    items: list[int],
    *,
    length: int = 10,
    lane: Lane = Lane.INTERACTIVE,
    within_s: float = 5,
) -> asyncio.Task[list[int]]:
    async def run() -> list[int]:
        with queue.admitted(len(items)):
            lengths = [length] * len(items)
            deadline = Deadline.after(within_s)
            return (await queue.run(items, lengths, deadline=deadline, lane=lane))[0]

    return asyncio.create_task(run())


async def test_results_come_in_the_order_of_the_items(queue: BatchQueue[int, int]) -> None:
    items = list(range(40))
    lengths = [(7 * item) % 30 + 1 for item in items]
    results, _ = await queue.run(items, lengths, deadline=Deadline.after(5), lane=Lane.BULK)
    assert results == [2 * item for item in items]


async def test_a_query_waits_behind_at_most_the_batch_that_runs(
    queue: BatchQueue[int, int], engine: Engine
) -> None:
    engine.hold.clear()
    bulk = submit(queue, list(range(1, 41)), lane=Lane.BULK)
    await until(lambda: len(engine.started) == 1)
    query = submit(queue, [99])
    await asyncio.sleep(0)
    engine.hold.set()
    assert await query == [198]
    assert engine.started[1] == [99]
    assert len(await bulk) == 40


async def test_timing_splits_waiting_from_computing(
    queue: BatchQueue[int, int], engine: Engine
) -> None:
    engine.hold.clear()
    first = submit(queue, [1, 2, 3, 4])
    await until(lambda: len(engine.started) == 1)
    waiting = asyncio.create_task(
        queue.run([5, 6], [9, 10], deadline=Deadline.after(5), lane=Lane.INTERACTIVE)
    )
    held = time.monotonic_ns()
    await asyncio.sleep(0.03)
    held = time.monotonic_ns() - held
    engine.hold.set()
    await first
    _, timing = await waiting
    assert timing.queue_ns >= held
    assert timing.compute_ns < held
    assert (timing.batch_size, timing.batch_tokens) == (2, 20)


async def test_a_failing_batch_fails_only_its_callers(
    queue: BatchQueue[int, int], engine: Engine
) -> None:
    engine.hold.clear()
    blocker = submit(queue, [1])
    await until(lambda: len(engine.started) == 1)
    poisoned = submit(queue, [-1], length=60)
    sound = submit(queue, [3], length=60)
    await asyncio.sleep(0)
    engine.hold.set()
    with pytest.raises(Internal):
        await poisoned
    assert await sound == [6]
    assert await blocker == [2]


async def test_the_queue_serves_on_after_a_failure(queue: BatchQueue[int, int]) -> None:
    with pytest.raises(Internal):
        await submit(queue, [-5])
    assert await submit(queue, [5]) == [10]


async def test_too_few_results_are_a_failure() -> None:
    queue: BatchQueue[int, int] = BatchQueue(
        [lambda items: list(items)[1:]], limits=LIMITS, max_waiting=10, name="test"
    )
    try:
        with pytest.raises(Internal):
            await submit(queue, [1, 2])
    finally:
        await queue.close()


async def test_work_past_its_deadline_never_starts(
    queue: BatchQueue[int, int], engine: Engine
) -> None:
    engine.hold.clear()
    blocker = submit(queue, [1])
    await until(lambda: len(engine.started) == 1)
    with pytest.raises(DeadlineExceeded):
        await submit(queue, [7], within_s=0.02)
    engine.hold.set()
    await blocker
    assert await submit(queue, [8]) == [16]
    assert [7] not in engine.started


async def test_a_cancelled_caller_leaves_the_queue(
    queue: BatchQueue[int, int], engine: Engine
) -> None:
    engine.hold.clear()
    blocker = submit(queue, [1])
    await until(lambda: len(engine.started) == 1)
    leaves = submit(queue, [7, 7, 7, 7, 7], length=60)
    await asyncio.sleep(0)
    leaves.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaves
    engine.hold.set()
    await blocker
    assert await submit(queue, [8]) == [16]
    assert engine.started == [[1], [8]]


async def test_a_request_is_admitted_whole_or_refused_whole(
    queue: BatchQueue[int, int], engine: Engine
) -> None:
    engine.hold.clear()
    ahead = submit(queue, list(range(98)))
    await until(lambda: len(engine.started) == 1)
    with pytest.raises(Overloaded, match="98 texts wait already and 3 more") as refusal:
        await submit(queue, [1, 2, 3])
    assert refusal.value.retry_after_s is not None
    assert refusal.value.retry_after_s > 0
    fits = submit(queue, [1, 2])
    engine.hold.set()
    assert await fits == [2, 4]
    assert len(await ahead) == 98


async def test_room_comes_back_whatever_became_of_the_request(
    queue: BatchQueue[int, int], engine: Engine
) -> None:
    with pytest.raises(Internal):
        await submit(queue, [-1] * 100)
    engine.hold.clear()
    blocked = submit(queue, [0] * 100)
    await until(lambda: len(engine.started) > 1)
    blocked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await blocked
    engine.hold.set()
    assert await submit(queue, [1] * 100) == [2] * 100


async def test_closing_fails_what_waits_and_stops_the_threads(engine: Engine) -> None:
    queue: BatchQueue[int, int] = BatchQueue([engine], limits=LIMITS, max_waiting=100, name="bye")
    engine.hold.clear()
    running = submit(queue, [1])
    await until(lambda: len(engine.started) == 1)
    waiting = submit(queue, [2], length=60)
    await asyncio.sleep(0)
    closing = asyncio.create_task(queue.close())
    with pytest.raises(Unavailable):
        await waiting
    engine.hold.set()
    assert await running == [2]
    await closing
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("bye")]
    with pytest.raises(Unavailable):
        await submit(queue, [3])


async def test_two_streams_share_one_request(engine: Engine) -> None:
    met = threading.Barrier(2, timeout=5)

    def stream(items: Sequence[int]) -> list[int]:
        met.wait()
        return list(items)

    queue: BatchQueue[int, int] = BatchQueue(
        [stream, stream], limits=LIMITS, max_waiting=10, name="test"
    )
    try:
        results, _ = await queue.run(
            [1, 2], [40, 40], deadline=Deadline.after(5), lane=Lane.INTERACTIVE
        )
        assert results == [1, 2]
    finally:
        await queue.close()
