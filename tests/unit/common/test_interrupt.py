"""Leaving a block from outside of it."""

from __future__ import annotations

import asyncio

import pytest
from raglan.interrupt import Interrupt


async def test_the_block_is_left_and_what_it_awaits_is_cancelled() -> None:
    waiting = asyncio.get_running_loop().create_future()
    async with Interrupt() as interrupt:
        asyncio.get_running_loop().call_soon(interrupt.now)
        await waiting
    assert interrupt.happened
    assert waiting.cancelled()
    current = asyncio.current_task()
    assert current is not None
    assert current.cancelling() == 0


async def test_a_block_that_ended_first_has_its_own_outcome() -> None:
    with pytest.raises(ValueError, match="its own"):
        async with Interrupt() as interrupt:
            interrupt.now()
            raise ValueError("its own")
    assert not interrupt.happened
    interrupt.now()
    await asyncio.sleep(0)


async def test_a_timeout_of_the_block_itself_is_not_taken_for_an_interrupt() -> None:
    with pytest.raises(TimeoutError):
        async with Interrupt() as interrupt, asyncio.timeout(0.01):
            await asyncio.Event().wait()
    assert not interrupt.happened


async def test_a_cancel_from_outside_goes_on_its_way() -> None:
    async def block() -> None:
        async with Interrupt():
            await asyncio.Event().wait()

    task = asyncio.create_task(block())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
