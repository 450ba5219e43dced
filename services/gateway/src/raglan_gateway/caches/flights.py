"""Identical queries at the same time share one run of the pipeline."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Generic, TypeVar

from raglan.deadline import Deadline

Event = TypeVar("Event")


class SharedRun(Generic[Event]):
    """A run whose events every follower sees from the first one on.

    It goes on while anybody follows it. Its events are those of one answer, which bounds them; a
    slow follower holds no other up.

    Args:
        events: of the run; closed at its end.
        deadline: of the run.
        on_over: called with this once no further event can come.
    """

    def __init__(
        self,
        events: AsyncGenerator[Event, None],
        deadline: Deadline,
        on_over: Callable[[SharedRun[Event]], None],
    ) -> None:
        self.deadline = deadline
        self._seen: list[Event] = []
        self._error: BaseException | None = None
        self._followers = 0
        self._changed = asyncio.Event()
        self._task = asyncio.create_task(self._run(events))
        self._task.add_done_callback(lambda _: on_over(self))

    @property
    def is_over(self) -> bool:
        """True once no further event can come."""
        return self._task.done()

    async def follow(self) -> AsyncGenerator[Event, None]:
        """Yield all events; close it to leave. The last one to leave ends the run.

        Raises what the run raised.
        """
        self._followers += 1
        try:
            at = 0
            while True:
                while at < len(self._seen):
                    yield self._seen[at]
                    at += 1
                if self._task.done():
                    break
                changed = self._changed
                await changed.wait()
            if self._error is not None:
                raise self._error
        finally:
            self._followers -= 1
            if self._followers == 0 and not self._task.done():
                self._task.cancel()
                await asyncio.wait((self._task,))

    async def _run(self, events: AsyncGenerator[Event, None]) -> None:
        try:
            async with aclosing(events):
                async for event in events:
                    self._seen.append(event)
                    self._wake()
        except asyncio.CancelledError as left:
            self._error = left
            raise
        except Exception as error:  # noqa: BLE001 - each follower raises it
            self._error = error
        finally:
            # A task that waits for the event runs after this one is done.
            asyncio.get_running_loop().call_soon(self._wake)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
