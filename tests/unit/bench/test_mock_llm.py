"""The mock LLM keeps to its clock, and holds its headers when told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from callers import OK, Target, connected
from mock_llm import EACH_S, FIRST_S, TOKENS, MockLLM


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async with await asyncio.start_server(MockLLM().serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


async def sent(port: int, first_line: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(first_line + b" HTTP/1.1\r\ncontent-length: 0\r\n\r\n")
    return reader, writer


async def headers_after_s(port: int) -> float:
    begun = time.monotonic()
    reader, writer = await sent(port, b"POST /v1/chat/completions")
    await reader.readuntil(b"\r\n\r\n")
    writer.close()
    return time.monotonic() - begun


async def test_its_tokens_come_by_the_clock(port: int) -> None:
    begun = time.perf_counter()
    async with connected(Target("http-answers", port, "/v1/chat/completions"), 1) as (call,):
        reply = await call(b"{}", 10)
    assert (reply.status, reply.written) == (OK, TOKENS)
    assert reply.began is not None
    assert reply.began - begun >= FIRST_S * 0.99
    assert time.perf_counter() - begun >= (FIRST_S + (TOKENS - 1) * EACH_S) * 0.99


async def test_it_holds_its_headers_until_the_first_token_when_told(port: int) -> None:
    assert await headers_after_s(port) < FIRST_S
    reader, writer = await sent(port, b"GET /held")
    await reader.readuntil(b"\r\n\r\n")
    writer.close()
    assert await headers_after_s(port) >= FIRST_S * 0.99
