"""Server-sent events: numbered, with a comment as heartbeat while nothing happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Final

from fastapi.responses import StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from pydantic import BaseModel
from raglan import errors
from raglan.errors import RaglanError

OPENAPI: Final = {
    "text/event-stream": {
        "itemSchema": {
            "type": "object",
            "required": ["event", "data", "id"],
            "properties": {
                "event": {"type": "string"},
                "data": {"type": "string", "contentMediaType": "application/json"},
                "id": {"type": "string"},
            },
        }
    }
}
"""How the OpenAPI document describes a stream: each event by its three fields."""

HEADERS: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


@dataclass(frozen=True, slots=True)
class Event:
    """One event: its name, and its data as JSON."""

    name: str
    data: BaseModel | None = None


class StreamProblem(BaseModel):
    """The data of an `error` event."""

    code: str
    message: str
    retryable: bool


def response(events: AsyncGenerator[Event, None], *, heartbeat_s: float) -> StreamingResponse:
    """A response that sends `events`; the client's leaving closes them."""
    return StreamingResponse(
        encode(events, heartbeat_s=heartbeat_s), media_type="text/event-stream", headers=HEADERS
    )


def problem(error: RaglanError) -> Event:
    """The event that ends a stream which cannot be completed."""
    row = errors.wire(error)
    data = StreamProblem(code=row.status, message=error.message, retryable=row.retryable)
    return Event("error", data)


async def encode(
    events: AsyncGenerator[Event, None], *, heartbeat_s: float
) -> AsyncGenerator[bytes, None]:
    """`events` as bytes, ids counted from 1. Closes `events` however it ends."""
    number = 0
    upcoming: asyncio.Future[Event] | None = None
    try:
        while True:
            upcoming = upcoming or asyncio.ensure_future(anext(events))
            done, _ = await asyncio.wait((upcoming,), timeout=heartbeat_s)
            if not done:
                yield KEEPALIVE_COMMENT
                continue
            try:
                event = upcoming.result()
            except StopAsyncIteration:
                return
            upcoming = None
            number += 1
            data = event.data.model_dump_json() if event.data is not None else "{}"
            yield format_sse_event(event=event.name, data_str=data, id=str(number))
    finally:
        if upcoming is not None and not upcoming.done():
            upcoming.cancel()
            await asyncio.wait((upcoming,))
        await events.aclose()
