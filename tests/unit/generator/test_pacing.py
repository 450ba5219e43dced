"""Deltas of many answers share a rate of messages."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from raglan.deadline import Deadline
from raglan_generator import pacing
from raglan_generator.answering import Answering
from raglan_generator.estimated_tokenizer import EstimatedTokenizer
from raglan_generator.generation import (
    Delta,
    EngineInfo,
    Finished,
    FinishReason,
    Load,
    Passage,
    Request,
)
from raglan_generator.language_model import End, Piece, Prompt, Text
from raglan_generator.passage_order import PassageOrder

ASKED = Request("Why?", (Passage("Because.", start=4),))
WORDS = 12
WORD_S = 0.01


def test_few_answers_send_each_token_as_it_comes() -> None:
    assert pacing.pause_s(1) == 0.0
    assert pacing.pause_s(4) == 0.0


def test_many_answers_share_the_rate() -> None:
    assert 50 / pacing.pause_s(50) == pacing.MESSAGES_PER_S
    assert pacing.pause_s(100_000) == 0.2


class Writer:
    """A model that writes by the clock; what nobody has read yet comes as one piece."""

    info = EngineInfo(engine="writer", model="writer")
    tokenizer = EstimatedTokenizer(8_192)

    def load(self) -> Load:
        return Load()

    async def start(self) -> None: ...

    async def stream(
        self, prompt: Prompt, request: Request, deadline: Deadline
    ) -> AsyncGenerator[Piece | End]:
        began, read = time.monotonic(), 0
        while read < WORDS:
            written = min(WORDS, 1 + int((time.monotonic() - began) / WORD_S))
            if written == read:
                await asyncio.sleep(WORD_S / 2)
                continue
            text = "".join(f"word{number} " for number in range(read, written))
            yield Text(text, written - read)
            read = written
        yield End(FinishReason.STOP)


async def test_tokens_that_wait_travel_together_and_none_is_lost() -> None:
    answering = Answering(Writer(), PassageOrder("rank"))
    await answering.start()
    texts: list[list[str]] = []

    async def answer() -> None:
        mine: list[str] = []
        texts.append(mine)
        async with aclosing(answering.generate(ASKED, Deadline.after(30))) as events:
            async for event in events:
                if isinstance(event, Delta):
                    mine.append(event.text)
                if isinstance(event, Finished):
                    assert event.usage.completion_tokens == WORDS

    await asyncio.gather(*(answer() for _ in range(30)))
    whole = " ".join(f"word{number}" for number in range(WORDS))
    assert {"".join(mine).strip() for mine in texts} == {whole}
    # 30 answers pause 60 ms, in which 6 words are written; how many come first is the machine's.
    assert max(map(len, texts)) <= 5
