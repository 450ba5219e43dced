"""A small OpenAI-compatible server that answers as each test scripts it, byte by byte."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from pydantic import SecretStr
from raglan_generator.answering import Answering
from raglan_generator.engines.openai import OpenAIModel
from raglan_generator.engines.openai_response import Timeouts
from raglan_generator.estimated_tokenizer import EstimatedTokenizer
from raglan_generator.generation import Sampling
from raglan_generator.passage_order import PassageOrder

Script = Callable[["Exchange"], Awaitable[None]]


@dataclass
class Exchange:
    """One request, and the connection to answer it on."""

    path: str
    headers: dict[str, str]
    body: dict[str, object]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def begin(self, content_type: str = "text/event-stream") -> None:
        await self.raw(
            f"HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\n"
            "transfer-encoding: chunked\r\n\r\n".encode()
        )

    async def chunk(self, data: bytes) -> None:
        await self.raw(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    async def raw(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def end(self) -> None:
        await self.raw(b"0\r\n\r\n")

    async def stream(self, *texts: str, reason: str = "stop") -> None:
        await self.begin()
        await self.chunk(b"".join(frame(text) for text in texts) + closing(reason))
        await self.end()

    async def respond(self, status: int, body: bytes, *headers: str, kind: str = "json") -> None:
        head = [
            f"HTTP/1.1 {status} X",
            f"content-type: application/{kind}",
            f"content-length: {len(body)}",
            *headers,
        ]
        await self.raw("\r\n".join(head).encode() + b"\r\n\r\n" + body)

    async def left(self) -> None:
        """Wait until the client has closed the connection."""
        while await self.reader.read(1024):
            pass


def frame(text: str) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return event({"choices": [choice]})


def event(value: object) -> bytes:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n".encode()


def closing(reason: str = "stop") -> bytes:
    return (
        event({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
        + event({"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 7}})
        + b"data: [DONE]\n\n"
    )


@dataclass
class LLMServer:
    """Runs `script` for every request; keeps the connections alive between them."""

    script: Script | None = None
    port: int = 0
    connections: int = 0
    exchanges: list[Exchange] = field(default_factory=list)
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    tasks: list[asyncio.Task[object]] = field(default_factory=list)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.tasks.append(asyncio.current_task())
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode():
                first, *lines = head.strip().split("\r\n")
                headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines)}
                body = json.loads(await reader.readexactly(int(headers["content-length"])))
                exchange = Exchange(first.split()[1], headers, body, reader, writer)
                self.exchanges.append(exchange)
                assert self.script is not None
                await self.script(exchange)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.closed.set()
            writer.close()


def asking_openai(
    base_url: str, *, key: str = "", timeouts: Timeouts | None = None, **options: Any
) -> Answering:
    model = OpenAIModel(
        base_url,
        "tiny",
        tokenizer=EstimatedTokenizer(8_192),
        api_key=SecretStr(key),
        sampling=Sampling(),
        adapters={"legal": "tiny-legal"},
        timeouts=timeouts,
    )
    return Answering(model, PassageOrder("rank"), **options)


@pytest.fixture(name="asking_openai")
def asking_openai_fixture() -> Callable[..., Answering]:
    return asking_openai


@pytest.fixture(name="frame")
def frame_fixture() -> Callable[[str], bytes]:
    return frame


@pytest.fixture(name="closing")
def closing_fixture() -> Callable[..., bytes]:
    return closing


@pytest.fixture
async def llm() -> AsyncIterator[LLMServer]:
    server = LLMServer()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    yield server
    listening.close()
    for task in server.tasks:
        task.cancel()
    await asyncio.gather(*server.tasks, return_exceptions=True)
