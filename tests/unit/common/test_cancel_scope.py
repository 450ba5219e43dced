"""A block that is cancelled from outside."""

from __future__ import annotations

import asyncio

import pytest
from raglan.cancel_scope import CancelScope


async def test_cancel_leaves_the_block_and_cancels_its_await() -> None:
    waiting = asyncio.get_running_loop().create_future()
    async with CancelScope() as scope:
        asyncio.get_running_loop().call_soon(scope.cancel)
        await waiting
    assert scope.cancelled
    assert waiting.cancelled()
    current = asyncio.current_task()
    assert current is not None
    assert current.cancelling() == 0


async def test_finished_block_keeps_its_outcome() -> None:
    with pytest.raises(ValueError, match="its own"):
        async with CancelScope() as scope:
            scope.cancel()
            raise ValueError("its own")
    assert not scope.cancelled
    scope.cancel()
    await asyncio.sleep(0)


async def test_timeout_inside_the_block_is_no_cancellation() -> None:
    with pytest.raises(TimeoutError):
        async with CancelScope() as scope, asyncio.timeout(0.01):
            await asyncio.Event().wait()
    assert not scope.cancelled


async def test_cancelling_the_task_propagates() -> None:
    async def block() -> None:
        async with CancelScope():
            await asyncio.Event().wait()

    task = asyncio.create_task(block())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
