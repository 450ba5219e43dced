"""The mock LLM keeps to its clock, and holds its headers when told."""

from __future__ import annotations

import asyncio
from typing import Any

from callers import OK, Target, connected
from mock_llm import EACH_S, FIRST_S, TOKENS, WORDS, MockLLM

ASK = b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 0\r\n\r\n"
HOLD = b"GET /held HTTP/1.1\r\ncontent-length: 0\r\n\r\n"


class Script:
    """A clock that sleeping moves on, and a client's connection; both note what happens."""

    def __init__(self) -> None:
        self.now = 0.0
        self.seen: list[tuple[float, bytes]] = []

    async def sleep(self, seconds: float) -> None:
        self.now += seconds

    def write(self, data: bytes) -> None:
        self.seen.append((self.now, data))

    async def drain(self) -> None: ...

    def close(self) -> None: ...


async def replies(*requests: bytes) -> list[tuple[float, bytes]]:
    """Everything that is written in reply, each with its time."""
    script: Any = Script()
    reader = asyncio.StreamReader()
    reader.feed_data(b"".join(requests))
    reader.feed_eof()
    await MockLLM(clock=lambda: script.now, sleep=script.sleep).serve(reader, script)
    return list(script.seen)


async def test_its_tokens_come_by_the_clock() -> None:
    head, *tokens, end = await replies(ASK)
    assert head[0] == 0
    assert [round(at, 9) for at, _ in tokens] == [
        round(FIRST_S + number * EACH_S, 9) for number in range(TOKENS)
    ]
    assert b"[DONE]" in end[1]


async def test_it_holds_its_headers_until_the_first_token_when_told() -> None:
    _, first, *_ = await replies(HOLD, ASK)
    assert first[0] == FIRST_S
    assert first[1].startswith(b"HTTP/1.1 200")
    assert WORDS[0].encode() in first[1]


async def test_a_client_reads_all_its_tokens() -> None:
    async with await asyncio.start_server(MockLLM().serve, "127.0.0.1", 0) as server:
        target = Target("http-answers", server.sockets[0].getsockname()[1], "/v1/chat/completions")
        async with connected(target, 1) as (call,):
            reply = await call(b"{}", 60)
    assert (reply.status, reply.written) == (OK, TOKENS)
