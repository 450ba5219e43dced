"""An engine made of a language model: the prompt, the model's text, citations, their support.

The model decides whether the passages answer. It is not called without passages, if they are less
relevant than a setting requires, or if the answer would begin too late.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import replace
from typing import Final

import structlog
from raglan.deadline import Deadline
from raglan.errors import InvalidInput, Overloaded, Unavailable
from raglan.health import Health

from raglan_generator import relevance
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
from raglan_generator.language_model import (
    ContextOverflow,
    End,
    LanguageModel,
    Prompt,
    begun_within,
)
from raglan_generator.pacing import pause_s
from raglan_generator.passage_order import PassageOrder
from raglan_generator.prompt import Prompter
from raglan_generator.reading import AnswerReader
from raglan_generator.workload import Work, Workload

log: Final = structlog.get_logger()

_CHARS_PER_TOKEN: Final = 4
"""Enough to judge the queue by before anything is tokenised."""
_SMALLER: Final = 0.5
"""Share of a prompt that is kept when the server does not say by how much it was too long."""
_OVERFLOW_MARGIN: Final = 0.95
_ANSWER_SHARE: Final = 0.25
"""Most of a model's length that is kept for the answer when the prompt had no room beside it."""


class Answering:
    """Answers with `model`; see `generation.Engine`.

    Args:
        min_relevance: of the passages, in [0, 1]; below it the model is not called. A question with
            history and no stand-alone form always is: its words alone do not say what it is about.
        opens_thinking: whether answers begin inside of a reasoning block, as far as the prompt does
            not tell.
        max_thinking_chars: reasoning after which an answer is abandoned.
    """

    def __init__(
        self,
        model: LanguageModel,
        order: PassageOrder,
        *,
        min_relevance: float = 0.0,
        opens_thinking: bool = False,
        max_thinking_chars: int = 65_536,
    ) -> None:
        self._model = model
        self._order = order
        self._min_relevance = min_relevance
        self._max_thinking_chars = max_thinking_chars
        self._always_opens = opens_thinking
        self._opens_thinking: dict[str, bool] = {}
        """By adapter: whether its last answer closed a block that the prompt had opened."""
        self._prompter: Prompter | None = None
        self._workload = Workload(time.monotonic)

    @property
    def info(self) -> EngineInfo:
        """The model's."""
        return self._model.info

    @property
    def model(self) -> LanguageModel:
        """The model that answers."""
        return self._model

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
            judged = await relevance.judge(request, deadline)
            if judged.confidence < self._min_relevance or not _has_text(request):
                yield Delta(ABSTENTION)
                yield self._abstained(judged, time.monotonic_ns() - began)
                return
        with self._admitted(request) as work:
            async with aclosing(self._written(request, deadline, work)) as written:
                async for event in written:
                    if isinstance(event, AnswerReader):
                        reader = event
                    else:
                        yield event
            spent_ns = time.monotonic_ns() - began
            self._workload.end(work, whole=True)
            model = self._model.info.model

            def finished() -> Finished:
                # Where nothing hung on it, the first token did not have to wait for it.
                support = judged or relevance.judge_here(request, deadline)
                return reader.finished(support, model, spent_ns)

            # In a thread, as comparing an answer with its passages takes milliseconds.
            yield await asyncio.to_thread(finished)

    async def _written(
        self, request: Request, deadline: Deadline, work: Work
    ) -> AsyncGenerator[Event | AnswerReader]:
        """Yield the events of the model's answer, and last the reader that has read it.

        A prompt that turns out to be too long is made shorter, once.
        """
        prompt = await self._prompt(request, deadline)
        try:
            async with aclosing(self._asked(prompt, request, deadline, work)) as events:
                async for event in events:
                    yield event
            return
        except ContextOverflow as overflow:
            log.warning("prompt too long for the model", reason=overflow.cause)
            shorter, request = await self._shorter(prompt, request, overflow, deadline)
        async with aclosing(self._asked(shorter, request, deadline, work)) as events:
            async for event in events:
                yield event

    async def _asked(
        self, prompt: Prompt, request: Request, deadline: Deadline, work: Work
    ) -> AsyncGenerator[Event | AnswerReader]:
        reader = AnswerReader(
            request,
            prompt,
            opens_thinking=self._is_open(prompt, request),
            max_thinking_chars=self._max_thinking_chars,
        )
        pieces = self._model.stream(prompt, request, deadline)
        async with aclosing(begun_within(pieces, request, deadline)) as begun:
            async for piece in begun:
                next_at = time.monotonic() + pause_s(self._workload.answers)
                if not isinstance(piece, End):
                    self._workload.wrote(work, max(1, piece.tokens))
                for event in reader.feed(piece):
                    yield event
                early_s = next_at - time.monotonic()
                if early_s > 0 and not isinstance(piece, End):
                    # What the model writes meanwhile comes as one piece.
                    await asyncio.sleep(early_s)
        self._opens_thinking[request.adapter] = reader.closed_unopened
        yield reader

    def _is_open(self, prompt: Prompt, request: Request) -> bool:
        if prompt.opens_thinking is not None:
            return prompt.opens_thinking
        return self._always_opens or self._opens_thinking.get(request.adapter, False)

    async def _shorter(
        self, prompt: Prompt, request: Request, overflow: ContextOverflow, deadline: Deadline
    ) -> tuple[Prompt, Request]:
        """A prompt with fewer passages, and the request with an answer that fits beside it.

        Raises:
            ContextOverflow: nothing of the passages would be left.
        """
        limit = int(_SMALLER * prompt.tokens)
        if (longest := overflow.max_model_len) is not None:
            max_tokens = min(request.max_tokens, max(1, int(_ANSWER_SHARE * longest)))
            request = replace(request, max_tokens=max_tokens)
            room = _OVERFLOW_MARGIN * (longest - max_tokens)
            # Tokens are counted otherwise here than by the server: its counts give the proportion.
            scale = prompt.tokens / overflow.prompt_tokens if overflow.prompt_tokens else 1.0
            limit = min(int(room * scale), prompt.tokens - 1)
        if self._prompter is None:
            raise overflow
        try:
            return await self._prompter.build(request, deadline, limit=limit), request
        except InvalidInput:
            raise overflow from None

    def _may_abstain(self, request: Request) -> bool:
        """Return whether the passages are judged before the model is called."""
        return not _has_text(request) or (self._min_relevance > 0 and _is_known(request))

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
        # An idle engine accepts whatever the estimate says; the estimate would otherwise never
        # improve.
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


def _is_known(request: Request) -> bool:
    """Return whether the words of the question say what it is about."""
    return not request.history or bool(request.standalone_question)


def _has_text(request: Request) -> bool:
    return any(passage.text.strip() for passage in request.passages)
