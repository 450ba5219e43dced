"""Asking a real engine, and waiting for what it does."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import replace
from multiprocessing.process import BaseProcess

from raglan.deadline import Deadline
from raglan_generator.engines.vllm import VllmModel
from raglan_generator.engines.vllm_options import VllmOptions
from raglan_generator.generation import Request
from raglan_generator.language_model import End, Message, Prompt, Text, begun_within

MAX_NUM_SEQS = 8
MAX_NUM_QUEUED_REQS = 24
MAX_NUM_QUEUED_TOKENS = 12_000
OPTIONS = VllmOptions(dtype="bfloat16", enforce_eager=True)
QUESTION = Request("", (), max_tokens=16)


def prompt(text: str = "What is the deadline?", *, words: int = 0) -> Prompt:
    """A question, with `words` words before it."""
    message: Message = {"role": "user", "content": "call " * words + text}
    return Prompt((message,), ())


async def answer(
    model: VllmModel,
    asked: Prompt | None = None,
    request: Request = QUESTION,
    *,
    within_s: float = 30,
) -> tuple[str, End]:
    """The whole answer and its end."""
    text = ""
    deadline = Deadline.after(within_s)
    asked = asked or prompt()
    pieces = begun_within(model.stream(asked, request, deadline), request, deadline)
    async with aclosing(pieces):
        async for piece in pieces:
            if isinstance(piece, End):
                return text, piece
            text += piece.text
    raise AssertionError("The stream has no end.")


class Reader:
    """Reads an answer in a task of its own."""

    def __init__(
        self,
        model: VllmModel,
        request: Request | None = None,
        asked: Prompt | None = None,
        *,
        within_s: float = 60,
    ) -> None:
        self.pieces: list[Text | End] = []
        self.began_at = 0.0
        self._model, self._request = model, request or replace(QUESTION, max_tokens=3_000)
        self._asked, self._deadline = asked or prompt(), Deadline.after(within_s)
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        pieces = self._model.stream(self._asked, self._request, self._deadline)
        async with aclosing(pieces):
            async for piece in pieces:
                self.began_at = self.began_at or time.monotonic()
                self.pieces.append(piece)

    async def begun(self) -> None:
        """Wait for its first piece."""
        await until(lambda: bool(self.pieces) or self.task.done(), "the answer has begun")
        assert self.pieces, self.task

    async def leave(self) -> None:
        """Stop reading."""
        self.task.cancel()
        await asyncio.wait([self.task])


@asynccontextmanager
async def reading(*readers: Reader, all_begun: bool = True) -> AsyncIterator[None]:
    """While the block runs, these read; then they leave."""
    try:
        if all_begun:
            await asyncio.gather(*(reader.begun() for reader in readers))
        yield
    finally:
        await asyncio.gather(*(reader.leave() for reader in readers))


def seats_taken(model: VllmModel) -> AbstractAsyncContextManager[None]:
    """All that may write at the same time do."""
    return reading(*(Reader(model) for _ in range(MAX_NUM_SEQS)))


async def until(condition: Callable[[], object], what: str, *, within_s: float = 30) -> float:
    """Wait until `condition` holds; the seconds that took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < within_s, f"not within {within_s:g} s: {what}"
        await asyncio.sleep(0.005)
    return time.monotonic() - began


async def idle(model: VllmModel, *, within_s: float = 30) -> float:
    """Wait until the engine itself holds no request."""

    def empty() -> bool:
        load = model.load()
        return load.running + load.waiting == 0

    return await until(empty, "the engine is idle", within_s=within_s)


def engine_process() -> BaseProcess:
    """The engine core that was started last."""
    return max(multiprocessing.active_children(), key=lambda process: process.pid or 0)
