"""The default engine: the passages' own sentences, quoted and cited. No model, no key, no GPU."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Iterator

from raglan.deadline import Deadline

from raglan_generator.extraction import Extraction, extract
from raglan_generator.generation import (
    ABSTENTION,
    Citation,
    Delta,
    EngineInfo,
    Event,
    Finished,
    FinishReason,
    Request,
    Usage,
)

_INLINE_CHARS = 8_000
"""Up to this much text takes about 5 ms; more goes to a thread."""

_WORD = re.compile(r"\S+")


class ExtractiveEngine:
    """Quotes at most `max_sentences` sentences; abstains below `min_confidence`.

    A token is a word between white space, in `max_tokens` and in the usage.
    """

    def __init__(self, *, max_sentences: int = 3, min_confidence: float = 0.3) -> None:
        self._max_sentences = max_sentences
        self._min_confidence = min_confidence

    @property
    def info(self) -> EngineInfo:
        """The engine is its own model."""
        return EngineInfo(
            engine="extractive", model="extractive", limits={"max_sentences": self._max_sentences}
        )

    async def start(self) -> None:
        """Nothing to load."""

    async def close(self) -> None:
        """Nothing to give back."""

    async def generate(self, request: Request, deadline: Deadline) -> AsyncGenerator[Event]:
        """See `Engine.generate`."""
        started = time.monotonic_ns()
        deadline.check("the sentences were chosen")
        found = await self._extract(request, deadline)
        compute_ns = time.monotonic_ns() - started
        prompt_tokens = len(_WORD.findall(request.question)) + sum(
            len(_WORD.findall(passage.text)) for passage in request.passages
        )
        abstains = not found.sentences or found.confidence < self._min_confidence
        written, reason = 0, FinishReason.ABSTAINED
        if abstains:
            yield Delta(ABSTENTION)
        else:
            reason = FinishReason.STOP
            for event in _events(request, found):
                if isinstance(event, Delta):
                    written += len(_WORD.findall(event.text))
                yield event
        yield Finished(
            reason=reason,
            usage=Usage(prompt_tokens, written),
            confidence=found.confidence,
            model="extractive",
            compute_ns=compute_ns,
        )

    async def _extract(self, request: Request, deadline: Deadline) -> Extraction:
        def work() -> Extraction:
            return extract(
                request.question,
                request.passages,
                max_sentences=self._max_sentences,
                checkpoint=lambda: deadline.check("the sentences were chosen"),
            )

        if sum(len(passage.text) for passage in request.passages) <= _INLINE_CHARS:
            return work()
        return await asyncio.to_thread(work)


def _events(request: Request, found: Extraction) -> Iterator[Event]:
    for marker, sentence in enumerate(found.sentences, 1):
        passage = request.passages[sentence.passage]
        start, end = sentence.span
        quote = passage.text[start:end]
        gap = " " if marker > 1 else ""
        yield Delta(f"{gap}{' '.join(quote.split())} [{marker}]")
        yield Citation(marker, sentence.passage, quote, passage.start + start, passage.start + end)
