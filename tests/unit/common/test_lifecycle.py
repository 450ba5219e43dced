from __future__ import annotations

import asyncio

import pytest
from raglan.errors import Unavailable
from raglan.lifecycle import Lifecycle


async def test_the_end_cuts_off_what_runs_with_a_sentence() -> None:
    life = Lifecycle("the embedder")

    async def work() -> None:
        async with life.cancel_on_shutdown():
            await asyncio.sleep(60)

    running = asyncio.create_task(work())
    await asyncio.sleep(0)
    life.drain()
    await asyncio.sleep(0.01)
    assert not running.done()
    life.end()
    with pytest.raises(Unavailable, match=r"^The embedder is shutting down; try again\.$"):
        await asyncio.wait_for(running, 5)


async def test_what_begins_after_the_end_is_cut_off_as_well() -> None:
    life = Lifecycle("the embedder")
    life.end()
    with pytest.raises(Unavailable):
        async with life.cancel_on_shutdown():
            await asyncio.sleep(60)


async def test_what_is_spared_runs_on() -> None:
    life = Lifecycle("the embedder")
    ended: list[str] = []

    async def work(name: str, *, exempt: bool) -> None:
        async with life.cancel_on_shutdown() as limit:
            if exempt:
                life.exempt(limit)
            await asyncio.sleep(0.01)
            ended.append(name)

    spared = asyncio.create_task(work("spared", exempt=True))
    other = asyncio.create_task(work("other", exempt=False))
    await asyncio.sleep(0)
    life.end()
    await spared
    with pytest.raises(Unavailable):
        await other
    assert ended == ["spared"]


async def test_a_timeout_of_the_block_itself_stays_what_it_is() -> None:
    life = Lifecycle("the embedder")
    with pytest.raises(TimeoutError):
        async with life.cancel_on_shutdown(), asyncio.timeout(0):
            await asyncio.sleep(60)


async def test_a_cancelled_block_is_cancelled_not_unavailable() -> None:
    life = Lifecycle("the embedder")

    async def work() -> None:
        async with life.cancel_on_shutdown():
            await asyncio.sleep(60)

    running = asyncio.create_task(work())
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
