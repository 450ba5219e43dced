"""An engine made of a language model: the prompt, the model's text, citations, their support.

What the model cannot be asked is settled before it: no passages or none that fit the question mean
an abstention, and a question that would begin too late is refused while it costs nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import replace
from typing import Final

from raglan.deadline import Deadline
from raglan.errors import InvalidInput, Overloaded, Unavailable
from raglan.health import Health

from raglan_generator.citing import Citer, groundedness
from raglan_generator.extraction import extract
from raglan_generator.generation import (
    ABSTENTION,
    Citation,
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
from raglan_generator.language_model import End, LanguageModel, Prompt, Text, begun_within
from raglan_generator.passage_order import PassageOrder
from raglan_generator.prompt import Prompter
from raglan_generator.workload import Work, Workload

_CHARS_PER_TOKEN: Final = 4
"""Enough to judge the queue by before anything is tokenised."""


class Answering:
    """Answers with `model`; see `generation.Engine`."""

    def __init__(self, model: LanguageModel, order: PassageOrder, *, min_confidence: float) -> None:
        """Args:
        min_confidence: below it the model is not asked; a question with history always is,
            because its words alone do not say what it is about.
        """
        self._model = model
        self._order = order
        self._min_confidence = min_confidence
        self._prompter: Prompter | None = None
        self._workload = Workload(time.monotonic)

    @property
    def info(self) -> EngineInfo:
        """The model's."""
        return self._model.info

    def load(self) -> Load:
        """The model's own and what it has not counted yet, and how long all will take."""
        load, workload = self._model.load(), self._workload
        waiting = max(load.waiting, workload.waiting)
        return replace(load, waiting=waiting, backlog_s=workload.backlog_s())

    def health(self) -> Health:
        """The model's."""
        return self._model.health()

    async def start(self) -> None:
        """Load the model."""
        await self._model.start()
        self._prompter = Prompter(self._model.tokenizer, self._order)

    async def close(self) -> None:
        """Unload the model."""
        await self._model.close()

    async def generate(self, request: Request, deadline: Deadline) -> AsyncGenerator[Event]:
        """See `Engine.generate`."""
        began = time.monotonic_ns()
        self._check(request)
        deadline.check("the answer was begun")
        judged: Support | None = None
        if self._may_abstain(request):
            judged = await _answerable(request, deadline)
            if judged.confidence < self._min_confidence or not _has_text(request):
                yield Delta(ABSTENTION)
                yield self._abstained(judged, time.monotonic_ns() - began)
                return
        with self._admitted(request) as work:
            prompt = await self._prompt(request, deadline)
            answer = _Answer(request, prompt)
            pieces = self._model.stream(prompt, request, deadline)
            async with aclosing(begun_within(pieces, request, deadline)) as begun:
                async for piece in begun:
                    if isinstance(piece, Text):
                        self._workload.wrote(work, max(1, piece.tokens))
                    for event in answer.feed(piece):
                        yield event
            spent_ns = time.monotonic_ns() - began
            self._workload.end(work, whole=True)
            # Where nothing hung on it, the first token did not have to wait for it.
            judged = judged or await _answerable(request, deadline)
            yield answer.finished(judged, self._model.info.model, spent_ns)

    def _may_abstain(self, request: Request) -> bool:
        """Whether the model is asked only after the passages were judged."""
        return not _has_text(request) or (self._min_confidence > 0 and not request.history)

    def _check(self, request: Request) -> None:
        known = self._model.info.adapters
        if request.adapter and request.adapter not in known:
            raise InvalidInput(
                f"There is no adapter {request.adapter!r}; "
                f"{'known are ' + ', '.join(known) if known else 'the service has none'} "
                "(RAGLAN_GENERATOR_ADAPTERS)."
            )

    async def _prompt(self, request: Request, deadline: Deadline) -> Prompt:
        if self._prompter is None:
            raise Unavailable("The generator has not started.")
        return await self._prompter.build(request, deadline)

    @contextmanager
    def _admitted(self, request: Request) -> Iterator[Work]:
        texts = (request.question, *(passage.text for passage in request.passages))
        tokens = sum(map(len, texts)) // _CHARS_PER_TOKEN + 1
        expected_s = self._workload.first_token_s(tokens)
        limit_s = request.first_token_s
        # With nothing in hand it is tried whatever was seen before: else nothing new is ever seen.
        if limit_s is not None and expected_s > limit_s and not self._workload.idle:
            raise Overloaded(
                f"An answer would begin in {expected_s:.1f} s; the request allows {limit_s:g} s.",
                retry_after_s=max(0.1, expected_s - limit_s),
            )
        work = self._workload.begin(tokens)
        try:
            yield work
        finally:
            self._workload.end(work, whole=False)

    def _abstained(self, judged: Support, spent_ns: int) -> Finished:
        return Finished(
            reason=FinishReason.ABSTAINED,
            usage=Usage(0, 0),
            support=judged,
            model=self._model.info.model,
            compute_ns=spent_ns,
        )


class _Answer:
    """One answer as it comes: from the prompt's numbering to the request's."""

    def __init__(self, request: Request, prompt: Prompt) -> None:
        self._prompt = prompt
        self._is_document = bool(request.json_schema)
        self._citer = Citer([request.passages[index] for index in prompt.numbered])
        self._end: End | None = None
        self._words = 0
        self._empty = True

    def feed(self, piece: Text | End) -> Iterator[Event]:
        """The events that `piece` makes certain."""
        if isinstance(piece, End):
            self._end = piece
            yield from self._citer.flush()
            return
        self._words += len(piece.text.split())
        self._empty = self._empty and not piece.text.strip()
        if self._is_document:
            # What looks like a marker may be an array.
            yield Delta(piece.text)
            return
        for event in self._citer.feed(piece.text):
            if isinstance(event, Citation):
                index = self._prompt.numbered[event.passage_index]
                yield replace(event, passage_index=index)
            else:
                yield event

    def finished(self, answerable: Support, model: str, spent_ns: int) -> Finished:
        """The last event.

        Raises:
            Unavailable: there was no answer.
        """
        end = self._end
        if end is None:
            raise Unavailable("The model's stream closed before the end of the answer.")
        if self._empty:
            raise Unavailable("The model ended its answer without a word.")
        return Finished(
            reason=FinishReason.ABSTAINED if self._citer.abstained else end.reason,
            usage=end.usage or Usage(_words(self._prompt), self._words),
            support=self._support(answerable),
            model=model,
            dropped=self._prompt.dropped,
            queue_ns=end.queue_ns,
            compute_ns=max(0, spent_ns - end.queue_ns),
        )

    def _support(self, answerable: Support) -> Support:
        claims = self._citer.claims()
        # The model has read the passages; the words that were counted before have not.
        said = 0.0 if self._citer.abstained else answerable.confidence
        return replace(
            answerable, confidence=said, groundedness=groundedness(claims), claims=claims
        )


async def _answerable(request: Request, deadline: Deadline) -> Support:
    """Whether the passages speak of the question."""
    found = await asyncio.to_thread(
        extract,
        request.question,
        request.passages,
        max_sentences=1,
        checkpoint=lambda: deadline.check("the passages were judged"),
    )
    return Support(confidence=found.answerable, groundedness=0.0, parts=found.parts)


def _has_text(request: Request) -> bool:
    return any(passage.text.strip() for passage in request.passages)


def _words(prompt: Prompt) -> int:
    return sum(len(message["content"].split()) for message in prompt.messages)
