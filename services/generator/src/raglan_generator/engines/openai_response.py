"""Responses of an OpenAI-compatible server as frames, each read within its timeout."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
from raglan.deadline import Deadline
from raglan.errors import DeadlineExceeded, RaglanError, Unavailable

from raglan_generator.engines.event_data import MAX_EVENT_BYTES, EventData
from raglan_generator.engines.openai_frames import Completion

_DONE: Final = "[DONE]"
_MAX_ERROR_BYTES: Final = 64 * 1024
_TRAILER_S: Final = 0.05
"""Seconds for a server to end its response after [DONE], before the connection is closed."""
_USAGE_S: Final = 1.0
"""Seconds for a server to report the usage after the end of the answer."""
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_TELLING: Final = 7
"""Bytes that tell an event stream from a web page."""
_STREAM: Final = re.compile(rb"(?:data|event|error|id|retry)?:")


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Time limits in seconds, in addition to the call's deadline."""

    connect_s: float = 2.0
    first_token_s: float = 5.0
    idle_s: float = 5.0


class Waiting:
    """The limits of one call on how long its server may take.

    Args:
        deadline: of the call. Its first token has to be there `first_token_s` from now.
    """

    def __init__(self, timeouts: Timeouts, deadline: Deadline) -> None:
        self.timeouts = timeouts
        self._deadline = deadline
        self.first = deadline.within(timeouts.first_token_s)

    def idle(self) -> Deadline:
        """Deadline of the next token."""
        return self._deadline.within(self.timeouts.idle_s)

    @asynccontextmanager
    async def within(self, limit: Deadline, *, begun: bool) -> AsyncIterator[None]:
        """Limit the block to `limit`.

        Raises:
            Unavailable: it took longer than the settings allow the server.
            DeadlineExceeded: the call's own time ran out.
        """
        try:
            async with asyncio.timeout(limit.remaining_s()):
                yield
        except aiohttp.ClientError:
            # Some of them are a TimeoutError as well.
            raise
        except TimeoutError:
            if limit.at >= self._deadline.at:
                raise DeadlineExceeded(
                    "The deadline passed before the LLM server had answered."
                ) from None
            what, seconds, setting = (
                ("no further token", self.timeouts.idle_s, "IDLE")
                if begun
                else ("no token", self.timeouts.first_token_s, "FIRST_TOKEN")
            )
            raise Unavailable(
                f"The LLM server sent {what} within {seconds:g} s "
                f"(RAGLAN_GENERATOR_{setting}_TIMEOUT_S).",
                is_final=True,
            ) from None


class ResponseBody:
    """The body of one response."""

    def __init__(self, source: aiohttp.StreamReader, waiting: Waiting) -> None:
        self._source = source
        self._waiting = waiting

    async def frames(self, answer: Completion) -> AsyncGenerator[list[str]]:
        """The data of the frames up to the last, those together that arrived together.

        Whether the body is an event stream, one JSON document or a web page is detected from how it
        begins: servers send each with any content type.
        """
        beginning = await self._beginning()
        if beginning.startswith(b"{"):
            yield await self._document(beginning)
            answer.done()
            return
        if not beginning or not _STREAM.match(beginning):
            raise Unavailable(
                "The LLM server did not answer with an event stream; "
                "is RAGLAN_GENERATOR_BASE_URL its /v1 address?",
                is_final=True,
            )
        async for arrived in self._streamed(beginning, answer):
            yield arrived

    async def _streamed(self, beginning: bytes, answer: Completion) -> AsyncGenerator[list[str]]:
        events, more, limit = EventData(), beginning, self._waiting.first
        while True:
            arrived = events.feed(more) if more else events.end()
            done = _DONE in arrived
            if arrived:
                yield arrived[: arrived.index(_DONE)] if done else arrived
                # Comments are not a sign of life of the model: only events move the limit.
                limit = self._waiting.idle() if answer.begun else self._waiting.first
            if done:
                answer.done()
                await self._read_to_end()
                return
            if not more:
                return
            more = await self._next(limit, answer)

    async def _next(self, limit: Deadline, answer: Completion) -> bytes:
        """More of the body; empty at its end."""
        if there := self._source.read_nowait():
            # What came while the answer paused needs no limit, of which each costs 20 us.
            return there
        if answer.is_finished:
            # Only the usage may follow; a complete answer is never lost to it.
            limit = limit.within(_USAGE_S)
        try:
            async with self._waiting.within(limit, begun=answer.begun):
                return await self._source.readany()
        except RaglanError:
            if not answer.is_finished:
                raise
            return b""

    async def _beginning(self) -> bytes:
        """The first bytes that are no white space; empty if there are none."""
        read = b""
        while len(read) < _MAX_ERROR_BYTES:
            async with self._waiting.within(self._waiting.first, begun=False):
                more = await self._source.readany()
            read = (read + more).removeprefix(_BYTE_ORDER_MARK).lstrip()
            if not more or (len(read) >= _TELLING and not _BYTE_ORDER_MARK.startswith(read)):
                break
        return read

    async def _document(self, beginning: bytes) -> list[str]:
        """A whole JSON document, or one a line, in place of a stream."""
        read = bytearray(beginning)
        while len(read) <= MAX_EVENT_BYTES:
            async with self._waiting.within(self._waiting.idle(), begun=True):
                more = await self._source.readany()
            if not more:
                break
            read += more
        text = read.decode(errors="replace")
        try:
            json.loads(text)
        except ValueError:
            return [line for line in text.splitlines() if line.strip()]
        return [text]

    async def error_body(self) -> Any:
        """The body of an error: its JSON, else its text; None if it is too long to be one."""
        body = b""
        while True:
            async with self._waiting.within(self._waiting.first, begun=False):
                more = await self._source.readany()
            if not more:
                break
            body += more
            if len(body) > _MAX_ERROR_BYTES:
                return None
        text = body.removeprefix(_BYTE_ORDER_MARK).decode(errors="replace")
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return text

    async def _read_to_end(self) -> None:
        """Let the response end by itself, which keeps its connection for the next one."""
        with suppress(TimeoutError, aiohttp.ClientError):
            async with asyncio.timeout(_TRAILER_S):
                while await self._source.readany():
                    pass
