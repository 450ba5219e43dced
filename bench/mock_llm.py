"""An OpenAI-compatible server without a model: chat completions, streamed by the clock.

    python bench/mock_llm.py <port>

The first token comes after 200 ms, the other 19 every 50 ms. GET /held makes the response's headers
wait for the first token, as servers that begin to answer only then do; GET /prompt undoes it.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final

import processes

FIRST_S: Final = 0.2
EACH_S: Final = 0.05
ANSWER: Final = (
    "Every person reads the whole list of steps before work begins and writes down "
    "what has changed since last week"
)
"""No numbers or names: those contradict a passage that lacks them, and a claim that
passages contradict is not compared by meaning."""
WORDS: Final = ANSWER.split()
TOKENS: Final = len(WORDS)

_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)


class MockLLM:
    """Answers every question with `WORDS` and the marker of the first passage."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._held = False
        last: dict[str, object] = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        usage = {"prompt_tokens": 900, "total_tokens": 900 + TOKENS, "completion_tokens": TOKENS}
        self._tokens = [_chunk(_token(number)) for number in range(1, TOKENS + 1)]
        self._end = (
            _chunk(last)
            + _chunk({"choices": [], "usage": usage})
            + _framed(b"data: [DONE]\n\n")
            + b"0\r\n\r\n"
        )

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until its client closes it."""
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).lower():
                length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
                await reader.readexactly(int(length or b"0"))
                if head.startswith(b"post"):
                    await self._answer(writer)
                else:
                    self._told(head.split(b" ", 2)[1])
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def _told(self, path: bytes) -> None:
        if path in (b"/held", b"/prompt"):
            self._held = path == b"/held"

    async def _answer(self, writer: asyncio.StreamWriter) -> None:
        begun = self._clock()
        held = self._held
        if not held:
            writer.write(_HEAD)
        for number, token in enumerate(self._tokens):
            await self._sleep(begun + FIRST_S + number * EACH_S - self._clock())
            writer.write(_HEAD + token if held and number == 0 else token)
            await writer.drain()
        writer.write(self._end)
        await writer.drain()


def _token(number: int) -> dict[str, object]:
    gap, end = " " if number > 1 else "", " [1]" if number == TOKENS else ""
    delta = {"content": f"{gap}{WORDS[number - 1]}{end}"}
    return {
        "id": "chatcmpl-mock",
        "object": "chat.completion.chunk",
        "created": 0,
        "model": "mock",
        "choices": [{"index": 0, "delta": delta, "finish_reason": None}],
    }


def _chunk(frame: dict[str, object]) -> bytes:
    # Without spaces, as servers write it.
    return _framed(b"data: %s\n\n" % json.dumps(frame, separators=(",", ":")).encode())


def _framed(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


@contextmanager
def running() -> Iterator[int]:
    """One as a process of its own; its port."""
    port = processes.free_port()
    command = [sys.executable, __file__, str(port)]
    with processes.process("the mock LLM", command, {}, lambda: tell(port, "prompt")):
        yield port


def variables(port: int) -> dict[str, str]:
    """Return the settings of a generator that asks the one at `port`, without a limit."""
    return {
        "RAGLAN_GENERATOR_ENGINE": "openai",
        "RAGLAN_GENERATOR_MODEL": "mock",
        "RAGLAN_GENERATOR_BASE_URL": f"http://127.0.0.1:{port}/v1",
        "RAGLAN_GENERATOR_MAX_CONCURRENCY": "512",
    }


def tell(port: int, how: str) -> bool:
    """Have it send its headers `prompt` or `held`; whether it could be told."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{how}", timeout=5) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


async def _main(port: int) -> None:
    server = await asyncio.start_server(MockLLM().serve, "127.0.0.1", port, backlog=1024)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1])))
