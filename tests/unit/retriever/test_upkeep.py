"""Upkeep: after the writers, never in their way."""

from __future__ import annotations

import asyncio

import pytest
from raglan_retriever.stores.upkeep import Upkeep


class Tidying:
    """Records what was tidied; holds on while `hold` is set."""

    def __init__(self):
        self.done: list[str] = []
        self.began = asyncio.Event()
        self.hold = False
        self.cancelled: list[str] = []

    async def __call__(self, name: str) -> None:
        self.began.set()
        if name == "broken":
            raise RuntimeError("broken")
        try:
            while self.hold:
                await asyncio.sleep(0.001)
        except asyncio.CancelledError:
            self.cancelled.append(name)
            raise
        self.done.append(name)


async def until(condition) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.001)


@pytest.fixture
async def tidying():
    return Tidying()


@pytest.fixture
async def upkeep(tidying):
    made = Upkeep(tidying, quiet_s=0.01)
    made.start()
    yield made
    await made.stop()


async def test_many_writes_are_tidied_once(upkeep, tidying):
    for name in ("a", "b", "a"):
        upkeep.schedule(name)
    await until(lambda: len(tidying.done) == 2)
    assert tidying.done == ["a", "b"]


async def test_a_failure_stops_neither_the_others_nor_what_comes_later(upkeep, tidying):
    upkeep.schedule("broken")
    upkeep.schedule("a")
    await until(lambda: tidying.done)
    upkeep.schedule("b")
    await until(lambda: len(tidying.done) == 2)
    assert tidying.done == ["a", "b"]


async def test_a_collection_that_is_left_is_tidied_no_more(upkeep, tidying):
    tidying.hold = True
    upkeep.schedule("a")
    await tidying.began.wait()
    upkeep.schedule("b")
    await upkeep.cancel("b")
    await upkeep.cancel("a")
    assert tidying.cancelled == ["a"]
    upkeep.schedule("c")
    tidying.hold = False
    await until(lambda: tidying.done)
    assert tidying.done == ["c"]


async def test_it_stops_at_once_right_after_a_write():
    tidying = Tidying()
    made = Upkeep(tidying, quiet_s=60)
    made.start()
    for _ in range(3):
        made.schedule("a")
        await asyncio.sleep(0)
    async with asyncio.timeout(1):
        await made.stop()
    assert tidying.done == []


async def test_writers_that_never_pause_are_overridden(tidying):
    made = Upkeep(tidying, quiet_s=0.002)
    made.start()
    async with asyncio.timeout(30):
        while not tidying.done:
            made.schedule("a")
            await asyncio.sleep(0)
    await made.stop()
    assert tidying.done == ["a"]


async def test_what_failed_is_tried_again():
    failures = 2
    done: list[str] = []

    async def tidy(name: str) -> None:
        nonlocal failures
        if failures:
            failures -= 1
            raise RuntimeError("no space")
        done.append(name)

    made = Upkeep(tidy, quiet_s=0, retry_s=0.001)
    made.start()
    made.schedule("a")
    await until(lambda: done)
    await made.stop()
    assert done == ["a"]


async def test_a_failure_is_not_tried_again_for_a_collection_that_is_left():
    tries: list[str] = []

    async def tidy(name: str) -> None:
        tries.append(name)
        raise RuntimeError("no space")

    made = Upkeep(tidy, quiet_s=0, retry_s=0.02)
    made.start()
    made.schedule("a")
    await until(lambda: tries)
    await asyncio.sleep(0)
    await made.cancel("a")
    await asyncio.sleep(0.1)
    await made.stop()
    assert tries == ["a"]
