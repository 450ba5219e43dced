"""The default engine: what the passages say, quoted and cited. No model, no key, no GPU."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator

from raglan.deadline import Deadline
from raglan.health import Health

from raglan_generator.composing import Composer
from raglan_generator.extraction import Extraction, extract
from raglan_generator.generation import (
    ABSTENTION,
    Delta,
    EngineInfo,
    Event,
    Finished,
    FinishReason,
    Load,
    Request,
    Support,
    Usage,
)
from raglan_generator.overview import asks_for_overview, overview

_INLINE_CHARS = 8_000
"""Up to this much text takes about 3 ms; more goes to a thread."""


class ExtractiveEngine:
    """Quotes at most `max_sentences` units; abstains below `min_confidence`.

    A token is a word between white space, in `max_tokens` and in the usage; markers do not count.
    """

    def __init__(self, *, max_sentences: int = 4, min_confidence: float = 0.33) -> None:
        self._max_sentences = max_sentences
        self._min_confidence = min_confidence

    @property
    def info(self) -> EngineInfo:
        """The engine is its own model."""
        return EngineInfo(
            engine="extractive", model="extractive", limits={"max_sentences": self._max_sentences}
        )

    def load(self) -> Load:
        """Return an empty load: an answer takes milliseconds."""
        return Load()

    def health(self) -> Health:
        """Always well."""
        return Health.SERVING

    async def start(self) -> None:
        """Nothing to load."""

    async def close(self) -> None:
        """Nothing to give back."""

    async def generate(self, request: Request, deadline: Deadline) -> AsyncGenerator[Event]:
        """See `Engine.generate`."""
        started = time.monotonic_ns()
        found, prompt_tokens = await self._extract(request, deadline)
        compute_ns = time.monotonic_ns() - started
        if not found.quotes or found.confidence < self._min_confidence:
            reason, written = FinishReason.ABSTAINED, len(ABSTENTION.split())
            yield Delta(ABSTENTION)
        else:
            composer = Composer(request.max_tokens)
            for event in composer.compose(found.in_reading_order()):
                yield event
            reason, written = composer.reason, composer.written
        yield Finished(
            reason=reason,
            usage=Usage(prompt_tokens, written),
            # A quote is grounded by being one.
            support=Support(
                found.confidence, float(reason is not FinishReason.ABSTAINED), found.parts
            ),
            model="extractive",
            compute_ns=compute_ns,
        )

    async def _extract(self, request: Request, deadline: Deadline) -> tuple[Extraction, int]:
        def checkpoint() -> None:
            deadline.check("the sentences were chosen")

        def work() -> tuple[Extraction, int]:
            checkpoint()
            # Its patterns read one sentence.
            question = " ".join(request.standalone.split())
            passages, most = request.passages, self._max_sentences
            if asks_for_overview(question):
                found = overview(passages, most=most, checkpoint=checkpoint)
            else:
                found = extract(question, passages, max_sentences=most, checkpoint=checkpoint)
            texts = (request.question, *(passage.text for passage in request.passages))
            return found, sum(len(text.split()) for text in texts)

        chars = len(request.question) + sum(len(passage.text) for passage in request.passages)
        if chars <= _INLINE_CHARS:
            return work()
        return await asyncio.to_thread(work)
