from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from raglan.errors import Overloaded
from raglan_gateway.api import schemas, sse


async def collect(events: AsyncGenerator[sse.Event, None], heartbeat_s: float = 5) -> list[bytes]:
    return [piece async for piece in sse.encode(events, heartbeat_s=heartbeat_s)]


async def test_events_are_numbered_and_carry_json() -> None:
    async def events() -> AsyncGenerator[sse.Event, None]:
        yield sse.Event("delta", schemas.StreamDelta(text="a\n\nb"))
        yield sse.Event("done")

    assert await collect(events()) == [
        b'event: delta\ndata: {"text":"a\\n\\nb"}\nid: 1\n\n',
        b"event: done\ndata: {}\nid: 2\n\n",
    ]


async def test_silence_sends_a_comment_and_loses_no_event() -> None:
    gate = asyncio.Event()

    async def events() -> AsyncGenerator[sse.Event, None]:
        await gate.wait()
        yield sse.Event("done")

    pieces = []
    async for piece in sse.encode(events(), heartbeat_s=0.01):
        pieces.append(piece)
        if len(pieces) == 3:
            gate.set()
    assert pieces[:3] == [b": ping\n\n"] * 3
    assert pieces[-1].startswith(b"event: done")


async def test_leaving_closes_the_source_even_while_it_waits() -> None:
    closed = asyncio.Event()

    async def events() -> AsyncGenerator[sse.Event, None]:
        try:
            yield sse.Event("start")
            await asyncio.sleep(60)
        finally:
            closed.set()

    stream = sse.encode(events(), heartbeat_s=0.01)
    await anext(stream)
    await anext(stream)
    await stream.aclose()
    assert closed.is_set()


def test_an_error_event_says_what_went_wrong_and_whether_to_retry() -> None:
    event = sse.problem(Overloaded("full"))
    assert event.name == "error"
    assert event.data is not None
    assert event.data.model_dump() == {
        "code": "RESOURCE_EXHAUSTED",
        "message": "full",
        "retryable": True,
    }
