"""Work that lasts as long as its process outlives what goes wrong in it."""

from __future__ import annotations

import asyncio

import structlog
from raglan.background import keep_running


async def test_what_raises_begins_again_until_it_ends_by_itself() -> None:
    runs = 0

    async def work() -> None:
        nonlocal runs
        runs += 1
        if runs < 3:
            raise ValueError("once more")

    with structlog.testing.capture_logs() as lines:
        await keep_running("test", work, again_s=0)
    assert runs == 3
    assert [line["work"] for line in lines] == ["test", "test"]


async def test_a_log_that_cannot_be_written_ends_nothing() -> None:
    left = [ValueError("first"), ValueError("second")]

    async def work() -> None:
        if left:
            raise left.pop()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    structlog.configure(processors=[full])
    try:
        await keep_running("test", work, again_s=0)
    finally:
        structlog.reset_defaults()
    assert not left


async def test_a_cancel_ends_it() -> None:
    task = asyncio.create_task(keep_running("test", asyncio.Event().wait))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait((task,))
    assert task.cancelled()
