from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any

from raglan.errors import Overloaded
from raglan.lifecycle import Lifecycle
from raglan_gateway.api import schemas, sse


class Client:
    """The server's side of one request: takes what is sent, and may leave."""

    def __init__(self) -> None:
        self.lifecycle = Lifecycle("the gateway")
        self.pieces: list[bytes] = []
        self.leaves = asyncio.Event()
        self.whole = False

    async def follow(
        self, events: AsyncGenerator[sse.Event, None], *, heartbeat_s: float = 5
    ) -> list[bytes]:
        app = SimpleNamespace(state=SimpleNamespace(lifecycle=self.lifecycle))
        response = sse.response(events, heartbeat_s=heartbeat_s)
        await response({"type": "http", "app": app}, self._receive, self._send)
        return self.pieces

    async def _receive(self) -> Any:
        await self.leaves.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.body":
            self.pieces += [message["body"]] if message["body"] else []
            self.whole = not message.get("more_body", False)


async def test_events_are_numbered_and_carry_json() -> None:
    async def events() -> AsyncGenerator[sse.Event, None]:
        yield sse.Event("delta", schemas.StreamDelta(text="a\n\nb"))
        yield sse.Event("done")

    client = Client()
    assert b"".join(await client.follow(events())) == (
        b'event: delta\ndata: {"text":"a\\n\\nb"}\nid: 1\n\nevent: done\ndata: {}\nid: 2\n\n'
    )
    assert client.whole


async def test_silence_sends_a_comment_and_loses_no_event() -> None:
    client = Client()

    async def events() -> AsyncGenerator[sse.Event, None]:
        while len(client.pieces) < 3:
            await asyncio.sleep(0.001)
        yield sse.Event("done")

    pieces = await client.follow(events(), heartbeat_s=0.01)
    assert pieces[:3] == [b": ping\n\n"] * 3
    assert pieces[-1].startswith(b"event: done")


async def test_a_heartbeat_of_the_source_is_a_comment_and_no_event() -> None:
    async def events() -> AsyncGenerator[sse.Event, None]:
        yield sse.Event("start")
        yield sse.HEARTBEAT
        yield sse.Event("done")

    sent = b"".join(await Client().follow(events()))
    assert sent == (b"event: start\ndata: {}\nid: 1\n\n: ping\n\nevent: done\ndata: {}\nid: 2\n\n")


async def test_events_of_one_turn_are_one_write() -> None:
    async def events() -> AsyncGenerator[sse.Event, None]:
        yield sse.Event("start")
        await asyncio.sleep(0.01)
        for _ in range(3):
            yield sse.Event("delta", "{}")
        yield sse.Event("done")

    pieces = await Client().follow(events())
    assert [piece.count(b"event: ") for piece in pieces] == [1, 4]


async def test_nothing_follows_the_end_when_the_reader_is_slower_than_the_heartbeat() -> None:
    client = Client()
    sent = []

    async def slowly(message: Any) -> None:
        await asyncio.sleep(0.03)
        sent.append(message)

    async def events() -> AsyncGenerator[sse.Event, None]:
        yield sse.Event("done")

    app = SimpleNamespace(state=SimpleNamespace(lifecycle=client.lifecycle))
    stream = sse.response(events(), heartbeat_s=0.005)
    await stream({"type": "http", "app": app}, client._receive, slowly)
    assert [message.get("more_body") for message in sent].index(False) == len(sent) - 1


async def test_a_reader_that_stands_still_holds_the_source() -> None:
    client = Client()
    made = 0

    async def stuck(message: Any) -> None:
        if message["type"] == "http.response.body":
            await client.leaves.wait()

    async def events() -> AsyncGenerator[sse.Event, None]:
        nonlocal made
        while True:
            made += 1
            yield sse.Event("delta", "x" * 16_384)
            await asyncio.sleep(0)

    app = SimpleNamespace(state=SimpleNamespace(lifecycle=client.lifecycle))
    stream = sse.response(events(), heartbeat_s=5)
    sending = asyncio.ensure_future(stream({"type": "http", "app": app}, client._receive, stuck))
    for _ in range(200):
        await asyncio.sleep(0)
    assert made < 20
    client.leaves.set()
    await asyncio.wait_for(sending, 5)


async def test_leaving_closes_the_source_even_while_it_waits() -> None:
    closed = asyncio.Event()
    client = Client()

    async def events() -> AsyncGenerator[sse.Event, None]:
        try:
            yield sse.Event("start")
            client.leaves.set()
            await asyncio.sleep(60)
        finally:
            closed.set()

    await asyncio.wait_for(client.follow(events()), 5)
    assert closed.is_set()
    assert not client.whole


async def test_the_end_of_the_process_is_the_last_event_and_closes_the_source() -> None:
    closed = asyncio.Event()
    client = Client()

    async def events() -> AsyncGenerator[sse.Event, None]:
        try:
            yield sse.Event("start")
            client.lifecycle.end()
            await asyncio.sleep(60)
        finally:
            closed.set()

    pieces = await asyncio.wait_for(client.follow(events()), 5)
    assert closed.is_set()
    assert pieces[-1].startswith(b'event: error\ndata: {"type":"unavailable","code":"UNAVAILABLE"')
    assert pieces[-1].endswith(b"id: 2\n\n")
    assert client.whole


def test_an_error_event_says_what_went_wrong_and_whether_to_retry() -> None:
    event = sse.problem(Overloaded("full"))
    assert event.name == "error"
    assert event.data is not None
    assert event.data.model_dump() == {
        "type": "overloaded",
        "code": "RESOURCE_EXHAUSTED",
        "message": "full",
        "request_id": "",
        "retryable": True,
    }
