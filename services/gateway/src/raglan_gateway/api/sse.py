"""Server-sent events: numbered, with a comment as heartbeat while nothing happens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from fastapi.responses import Response
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from pydantic import BaseModel
from raglan import errors
from raglan.errors import RaglanError
from raglan.lifecycle import Lifecycle
from raglan.telemetry import context as request_context
from starlette.types import Receive, Scope, Send

from raglan_gateway.api.schemas import Problem

HEADERS: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


@dataclass(frozen=True, slots=True)
class Event:
    """One event: its name, and its data: a model, or the JSON of one."""

    name: str
    data: BaseModel | str | None = None


def response(events: AsyncGenerator[Event, None], *, heartbeat_s: float) -> EventStream:
    """A response that sends `events`, and closes them when the client leaves."""
    return EventStream(events, heartbeat_s)


def problem(error: RaglanError) -> Event:
    """The event that ends a stream which cannot be completed."""
    return Event(
        "error", Problem.model_validate(errors.problem(error, request_context.request_id()))
    )


class EventStream(Response):
    """Sends events, ids counted from 1. Its app's `state.lifecycle` says when it must end."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[Event, None], heartbeat_s: float) -> None:
        super().__init__(headers=HEADERS)
        del self.headers["content-length"]
        self._events = events
        self._heartbeat_s = heartbeat_s
        self._sent = 0
        self._sent_at = time.monotonic()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events; return when the last was sent, or the client has left."""
        head = {"status": self.status_code, "headers": self.raw_headers}
        await send({"type": "http.response.start", **head})
        sending = asyncio.ensure_future(self._send_all(scope["app"].state.lifecycle, send))
        leaving = asyncio.ensure_future(_left(receive))
        both = (sending, leaving)
        try:
            while not (sending.done() or leaving.done()):
                silent_s = time.monotonic() - self._sent_at
                if silent_s >= self._heartbeat_s:
                    await self._send(KEEPALIVE_COMMENT, send)
                    continue
                await asyncio.wait(
                    both,
                    timeout=self._heartbeat_s - silent_s,
                    return_when=asyncio.FIRST_COMPLETED,
                )
            if sending.done():
                sending.result()
        finally:
            for task in both:
                task.cancel()
            await asyncio.wait(both)

    async def _send_all(self, lifecycle: Lifecycle, send: Send) -> None:
        """Send every event; the last is an `error` when the process ends first."""
        try:
            async with lifecycle.cancel_on_shutdown(), aclosing(self._events) as events:
                async for event in events:
                    await self._send(self._encoded(event), send)
        except RaglanError as error:
            await self._send(self._encoded(problem(error)), send)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send(self, piece: bytes, send: Send) -> None:
        self._sent_at = time.monotonic()
        await send({"type": "http.response.body", "body": piece, "more_body": True})

    def _encoded(self, event: Event) -> bytes:
        self._sent += 1
        data = event.data.model_dump_json() if isinstance(event.data, BaseModel) else event.data
        return format_sse_event(event=event.name, data_str=data or "{}", id=str(self._sent))


async def _left(receive: Receive) -> None:
    """Return when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
