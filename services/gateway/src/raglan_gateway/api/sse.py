"""Server-sent events: numbered, with a comment as heartbeat while nothing happens."""

from __future__ import annotations

import asyncio
import json
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

from raglan_gateway import error_envelopes
from raglan_gateway.api.schemas import Problem

HEADERS: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}

_MAX_UNSENT_BYTES: Final = 64 * 1024
"""Encoded events of a slow reader; beyond it the source waits."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event: its name, and its data: a model, or the JSON of one."""

    name: str
    data: BaseModel | str | None = None


HEARTBEAT: Final = Event("")
"""Sends a comment: the stream has begun, and there is nothing to show yet."""


def response(
    events: AsyncGenerator[Event, None], *, heartbeat_s: float, form: Form | None = None
) -> EventStream:
    """A response that sends `events`, and closes them when the client leaves.

    Args:
        events: of one reply.
        heartbeat_s: silence in seconds after which a comment is sent.
        form: of the API that the client speaks; by default that of `/v1/query`.
    """
    return EventStream(events, heartbeat_s, form or Form())


def problem(error: RaglanError) -> Event:
    """The event that ends a stream which cannot be completed."""
    return Event(
        "error", Problem.model_validate(errors.problem(error, request_context.request_id()))
    )


class Form:
    """The form of events on the wire: numbered, with a name and JSON."""

    def encode(self, event: Event, number: int) -> bytes:
        """Encode an event, the `number`th of its stream."""
        return format_sse_event(event=event.name, data_str=_data(event) or "{}", id=str(number))

    def problem(self, error: RaglanError) -> Event:
        """Build the event that ends a stream which cannot be completed."""
        return problem(error)


class DataOnly(Form):
    """Events of OpenAI's API: JSON alone, or with a name where there is one."""

    def encode(self, event: Event, number: int) -> bytes:
        """Encode an event without its number."""
        return format_sse_event(event=event.name or None, data_str=_data(event))

    def problem(self, error: RaglanError) -> Event:
        """Build OpenAI's error."""
        data = {"error": error_envelopes.late_problem(error)}
        return Event("", json.dumps(data))


def _data(event: Event) -> str | None:
    return event.data.model_dump_json() if isinstance(event.data, BaseModel) else event.data


class EventStream(Response):
    """Sends events, ids counted from 1. Its app's `state.lifecycle` says when it must end.

    One task encodes the events, the response's own is the only writer: of events that are there at
    the same time, of heartbeats, and of the end.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[Event, None], heartbeat_s: float, form: Form) -> None:
        super().__init__(headers=HEADERS)
        del self.headers["content-length"]
        self._events = events
        self._heartbeat_s = heartbeat_s
        self._form = form
        self._encoded = 0
        self._unsent: list[bytes] = []
        self._unsent_bytes = 0
        self._changed = asyncio.Event()
        """Set when there is something for the writer to do."""
        self._room = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events; return when the last was sent, or the client has left."""
        head = {"status": self.status_code, "headers": self.raw_headers}
        await send({"type": "http.response.start", **head})
        encoding = asyncio.ensure_future(self._encode_all(scope["app"].state.lifecycle))
        leaving = asyncio.ensure_future(wait_for_disconnect(receive))
        both = (encoding, leaving)
        for task in both:
            task.add_done_callback(lambda _: self._changed.set())
        heartbeat = self._beat_later()
        try:
            while True:
                await self._changed.wait()
                self._changed.clear()
                if leaving.done():
                    return
                if is_whole := encoding.done():
                    encoding.result()
                piece = {"body": self._take(), "more_body": not is_whole}
                await send({"type": "http.response.body", **piece})
                if is_whole:
                    return
                heartbeat.cancel()
                heartbeat = self._beat_later()
        finally:
            heartbeat.cancel()
            for task in both:
                task.cancel()
            await asyncio.wait(both)

    async def _encode_all(self, lifecycle: Lifecycle) -> None:
        """Encode every event; the last is an `error` when the process ends first."""
        try:
            async with lifecycle.cancel_on_shutdown(), aclosing(self._events) as events:
                async for event in events:
                    self._add(event)
                    while self._unsent_bytes > _MAX_UNSENT_BYTES:
                        self._room.clear()
                        await self._room.wait()
        except RaglanError as error:
            self._add(self._form.problem(error))

    def _add(self, event: Event) -> None:
        if event is HEARTBEAT:
            encoded = KEEPALIVE_COMMENT
        else:
            self._encoded += 1
            encoded = self._form.encode(event, self._encoded)
        self._unsent.append(encoded)
        self._unsent_bytes += len(encoded)
        self._changed.set()

    def _beat_later(self) -> asyncio.TimerHandle:
        def beat() -> None:
            self._unsent.append(KEEPALIVE_COMMENT)
            self._changed.set()

        return asyncio.get_running_loop().call_later(self._heartbeat_s, beat)

    def _take(self) -> bytes:
        """Return the events that were not sent yet."""
        taken = b"".join(self._unsent)
        self._unsent.clear()
        self._unsent_bytes = 0
        self._room.set()
        return taken


async def wait_for_disconnect(receive: Receive) -> None:
    """Return when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
