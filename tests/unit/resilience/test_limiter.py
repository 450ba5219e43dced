"""Places and the queue before them, for coroutines."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

import pytest
from raglan.deadline import Deadline
from raglan.errors import DeadlineExceeded, Overloaded
from raglan.resilience import AdaptiveLimiter, Priority
from raglan.resilience.lag import LagLimit

SOON_S = 5.0


def limiter(places: int, queue: int = 100) -> AdaptiveLimiter:
    return AdaptiveLimiter(initial=places, smallest=places, largest=places, queue=queue)


class Work:
    """Calls that end when the test says so."""

    def __init__(self, of: AdaptiveLimiter) -> None:
        self.limiter = of
        self.began: list[str] = []
        self.ends: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def call(
        self, name: str, priority: Priority = Priority.CRITICAL, seconds: float = SOON_S
    ) -> asyncio.Task[None]:
        """Start a call and let it get as far as it can."""
        self.ends[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._run(name, priority, Deadline.after(seconds)))
        await asyncio.sleep(0)
        return self.tasks[name]

    async def end(self, name: str) -> None:
        self.ends[name].set()
        await self.tasks[name]
        await asyncio.sleep(0)

    async def end_all(self) -> None:
        for event in self.ends.values():
            event.set()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)

    async def _run(self, name: str, priority: Priority, deadline: Deadline) -> None:
        async with self.limiter.slot(priority, deadline):
            self.began.append(name)
            await self.ends[name].wait()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.001)


async def test_no_more_run_than_the_limit_says() -> None:
    work = Work(limiter(2))
    for name in "abc":
        await work.call(name)
    assert (work.limiter.running, work.limiter.waiting, work.began) == (2, 1, ["a", "b"])
    await work.end("a")
    assert work.began == ["a", "b", "c"]
    await work.end_all()
    assert (work.limiter.running, work.limiter.waiting) == (0, 0)


async def test_critical_goes_before_default_before_batch() -> None:
    work = Work(limiter(1))
    await work.call("first")
    for priority in reversed(Priority):
        await work.call(priority.name, priority)
    for name in ("first", "CRITICAL", "DEFAULT", "BATCH"):
        await work.end(name)
    assert work.began == ["first", "CRITICAL", "DEFAULT", "BATCH"]


async def test_within_a_class_the_earliest_deadline_goes_first() -> None:
    work = Work(limiter(1))
    await work.call("first")
    for seconds in (4, 2, 3):
        await work.call(f"in {seconds} s", seconds=seconds)
    for name in ("first", "in 2 s", "in 3 s", "in 4 s"):
        await work.end(name)
    assert work.began == ["first", "in 2 s", "in 3 s", "in 4 s"]


@pytest.mark.parametrize(
    ("priority", "run", "wait"),
    [(Priority.CRITICAL, 20, 10), (Priority.DEFAULT, 18, 9), (Priority.BATCH, 10, 5)],
)
async def test_a_lower_class_finds_limit_and_queue_full_earlier(
    priority: Priority, run: int, wait: int
) -> None:
    work = Work(limiter(20, queue=10))
    for number in range(40):
        await work.call(str(number), priority)
    assert (work.limiter.running, work.limiter.waiting) == (run, wait)
    await work.end_all()


async def test_a_full_queue_refuses_at_once_and_says_when_to_come_back() -> None:
    work = Work(limiter(1, queue=2))
    for name in "abc":
        await work.call(name)
    refused = await work.call("d")
    assert refused.done()
    with pytest.raises(Overloaded, match="2 calls wait already") as raised:
        refused.result()
    assert raised.value.retry_after_s is not None
    assert raised.value.retry_after_s > 0
    await work.end_all()


async def test_a_higher_class_takes_the_place_of_the_newest_of_the_lowest() -> None:
    work = Work(limiter(1, queue=4))
    await work.call("runs")
    for name, priority in {
        "old batch": Priority.BATCH,
        "new batch": Priority.BATCH,
        "default": Priority.DEFAULT,
        "critical": Priority.CRITICAL,
    }.items():
        await work.call(name, priority)
    await work.call("another")
    await until(work.tasks["new batch"].done)
    with pytest.raises(Overloaded, match="higher priority"):
        work.tasks["new batch"].result()
    assert work.limiter.waiting == 4
    assert not any(work.tasks[name].done() for name in ("old batch", "default", "critical"))
    await work.end_all()
    assert work.began == ["runs", "critical", "another", "default", "old batch"]


async def test_a_deadline_that_passes_in_the_queue_ends_the_wait() -> None:
    work = Work(limiter(1))
    await work.call("runs")
    waits = await work.call("waits", seconds=0.05)
    with pytest.raises(Overloaded, match="deadline passed before its turn"):
        await asyncio.wait_for(waits, 5)
    assert work.limiter.waiting == 0
    await work.end_all()


async def test_a_deadline_that_has_passed_takes_no_place() -> None:
    free = limiter(1)
    with pytest.raises(DeadlineExceeded):
        async with free.slot(Priority.CRITICAL, Deadline.after(-1)):
            pytest.fail("it ran")
    assert free.running == 0


async def test_what_would_come_too_late_is_refused_at_once() -> None:
    now = 100.0
    slow = AdaptiveLimiter(initial=1, smallest=1, largest=1, queue=100, clock=lambda: now)
    async with slow.slot(Priority.CRITICAL, Deadline(1000)):
        now += 10
    async with slow.slot(Priority.CRITICAL, Deadline(1000)):
        with pytest.raises(Overloaded, match=r"miss its deadline by 7\.000 s") as raised:
            async with slow.slot(Priority.CRITICAL, Deadline(now + 8)):
                pytest.fail("it ran")
    assert raised.value.retry_after_s == 10


async def test_what_comes_too_late_at_its_turn_does_not_run_in_front_of_others() -> None:
    now = 100.0
    known = AdaptiveLimiter(initial=2, smallest=2, largest=2, queue=10, clock=lambda: now)
    for _ in range(60):
        async with known.slot(Priority.CRITICAL, Deadline(1000)):
            now += 1.0
    work = Work(known)
    for name, priority, deadline in (
        ("runs", Priority.CRITICAL, 1000),
        ("runs too", Priority.CRITICAL, 1000),
        ("hurried", Priority.CRITICAL, now + 3.5),
        ("patient", Priority.DEFAULT, 1000),
    ):
        await work.call(name, priority, deadline - time.monotonic())
    now += 3.0
    await work.end("runs")
    await until(work.tasks["hurried"].done)
    with pytest.raises(Overloaded, match="too late"):
        work.tasks["hurried"].result()
    await work.end_all()
    assert work.began == ["runs", "runs too", "patient"]


async def test_a_cancelled_waiter_leaves_the_queue() -> None:
    work = Work(limiter(1))
    await work.call("runs")
    waits = await work.call("waits")
    waits.cancel()
    await asyncio.wait([waits])
    assert work.limiter.waiting == 0
    await work.end_all()
    assert work.began == ["runs"]


async def test_a_waiter_cancelled_in_the_moment_of_its_turn_passes_the_place_on() -> None:
    work = Work(limiter(1))
    for name in ("runs", "cancelled", "next"):
        await work.call(name)
    work.ends["runs"].set()
    await until(work.tasks["runs"].done)
    work.tasks["cancelled"].cancel()
    await until(lambda: "next" in work.began)
    await work.end_all()
    assert (work.limiter.running, work.limiter.waiting) == (0, 0)


async def test_a_waiter_cancelled_just_before_its_turn_passes_the_place_on() -> None:
    work = Work(limiter(1))
    for name in ("runs", "cancelled", "next"):
        await work.call(name)
    work.ends["runs"].set()
    work.tasks["cancelled"].cancel()
    await until(lambda: "next" in work.began)
    await work.end_all()
    assert work.tasks["runs"].exception() is None
    assert (work.limiter.running, work.limiter.waiting) == (0, 0)


async def test_an_exception_in_the_block_gives_the_place_back_and_passes() -> None:
    free = limiter(1)
    with pytest.raises(ZeroDivisionError):
        async with free.slot(Priority.CRITICAL, Deadline.after(SOON_S)):
            raise ZeroDivisionError
    assert free.running == 0


@pytest.mark.parametrize("seed", range(20))
async def test_random_cancels_and_deadlines_leak_no_place(seed: int) -> None:
    dice = random.Random(seed)
    busy = limiter(dice.randint(1, 6), queue=dice.randint(0, 20))
    most = 0

    async def call() -> None:
        nonlocal most
        deadline = Deadline.after(dice.choice([0.0, 0.002, 1.0, 60.0]))
        async with busy.slot(dice.choice(list(Priority)), deadline) as slot:
            most = max(most, busy.running)
            for _ in range(dice.randint(0, 8)):
                await asyncio.sleep(0)
            if dice.random() < 0.2:
                raise dice.choice([ValueError, Overloaded("full"), DeadlineExceeded("late")])
            if dice.random() < 0.2:
                slot.ignore()

    tasks: list[asyncio.Task[None]] = []
    for _ in range(300):
        tasks.append(asyncio.create_task(call()))
        for _ in range(dice.randint(0, 2)):
            await asyncio.sleep(0)
        if dice.random() < 0.4:
            dice.choice(tasks).cancel()
    await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
    assert (busy.running, busy.waiting) == (0, 0)
    assert 0 < most <= busy.limit


async def test_the_limit_ignores_what_is_not_measured() -> None:
    """The limit learns from what is measured and not from what is ignored."""
    now = 0.0
    told = AdaptiveLimiter(initial=10, queue=0, clock=lambda: now)
    for _ in range(60):
        async with told.slot(Priority.CRITICAL, Deadline(1e9)) as slot:
            now += 30.0
            slot.measured(0.2)
        async with told.slot(Priority.CRITICAL, Deadline(1e9)) as slot:
            now += 0.001
            slot.ignore()
    assert told.latency_s == pytest.approx(0.2)


async def test_overloaded_out_of_the_block_lowers_the_limit() -> None:
    refusing = AdaptiveLimiter(initial=100)
    for _ in range(100):
        with pytest.raises(Overloaded):
            async with refusing.slot(Priority.CRITICAL, Deadline.after(SOON_S)):
                raise Overloaded("its queue is full")
    assert refusing.limit < 100


async def test_a_full_queue_is_seen_without_entering_it() -> None:
    work = Work(limiter(1, queue=2))
    work.limiter.check(Priority.DEFAULT)
    for name in "abc":
        await work.call(name, Priority.DEFAULT)
    with pytest.raises(Overloaded):
        work.limiter.check(Priority.DEFAULT)
    with pytest.raises(Overloaded):
        work.limiter.check(Priority.BATCH)
    # It could push out a lower one.
    work.limiter.check(Priority.CRITICAL)
    assert (work.limiter.running, work.limiter.waiting) == (1, 2)
    await work.end_all()
    work.limiter.check(Priority.BATCH)


async def test_a_wait_is_told_whether_it_ends_with_a_place_or_without() -> None:
    waits: list[float] = []
    work = Work(limiter(1))
    work.limiter.on_wait = waits.append
    await work.call("first")
    assert waits == []
    await work.call("second")
    await work.call("third", seconds=0.05)
    await until(lambda: len(waits) == 1)
    assert waits[0] >= 0.04
    await work.end("first")
    await until(lambda: len(waits) == 2)
    await work.end_all()


async def test_who_waits_is_served_when_the_limit_grows() -> None:
    """Not only when somebody leaves: those who run may take much longer."""
    lag = LagLimit(initial=2, smallest=2)
    work = Work(AdaptiveLimiter(limit=lag, queue=10))
    for name in ("a", "b", "c"):
        await work.call(name)
    assert work.began == ["a", "b"]
    while lag.limit < 3:
        lag.queued()
        lag.lagged(0.0)
    work.limiter.serve()
    await asyncio.sleep(0)
    assert work.began == ["a", "b", "c"]
    await work.end_all()


async def test_who_comes_does_not_overtake_who_waits() -> None:
    lag = LagLimit(initial=2, smallest=2)
    work = Work(AdaptiveLimiter(limit=lag, queue=10))
    for name in ("a", "b", "c"):
        await work.call(name)
    while lag.limit < 3:
        lag.queued()
        lag.lagged(0.0)
    await work.call("d")
    await asyncio.sleep(0)
    assert work.began == ["a", "b", "c"]
    await work.end_all()


async def test_a_first_token_that_widens_the_limit_lets_others_in() -> None:
    """An early measurement takes effect at once, while the call still holds its place."""

    class Grows(LagLimit):
        def observe(self, seconds: float, now: float) -> None:
            self._limit += 1

    limiter = AdaptiveLimiter(limit=Grows(initial=1, smallest=1), queue=10)
    work = Work(limiter)
    async with limiter.slot(Priority.CRITICAL, Deadline.after(SOON_S)) as slot:
        await work.call("waits")
        assert work.began == []
        slot.measured(0.01)
        await asyncio.sleep(0)
        assert work.began == ["waits"]
    await work.end_all()
