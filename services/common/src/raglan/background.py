"""Tasks that last as long as their process: an exception is reported and the work begins again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import structlog

log: Final = structlog.get_logger()

_AGAIN_S: Final = 1.0


async def keep_running(
    name: str, work: Callable[[], Awaitable[None]], *, again_s: float = _AGAIN_S
) -> None:
    """Run `work`, and again `again_s` later whenever it raises; return when it returns.

    A task that ends in an exception ends in silence: what it watched would stay as it was last
    seen until the process starts anew.

    Args:
        name: names the work in the log.
        work: coroutine function to keep running.
        again_s: pause before a restart, in seconds.
    """
    while True:
        try:
            await work()
        except Exception:
            # The line itself may be what cannot be written, as on a full disk.
            with suppress(Exception):
                log.exception("background work failed and begins again", work=name)
            await asyncio.sleep(again_s)
        else:
            return
