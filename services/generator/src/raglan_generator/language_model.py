"""Interface of a language model: messages in, pieces of text out.

`engines/openai.py` and `engines/vllm.py` are its two adapters; `answering` asks the question, reads
the citations and measures the rest, the same for both.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol, TypedDict

from raglan.deadline import Deadline
from raglan.errors import DeadlineExceeded, Internal
from raglan.health import Health

from raglan_generator.generation import EngineInfo, FinishReason, Load, Request, Usage


class Message(TypedDict):
    """One message of the chat protocol."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """The prompt of a model."""

    messages: tuple[Message, ...]
    numbered: tuple[int, ...]
    """`numbered[n - 1]` is the index in the request of the passage that the prompt numbers n."""
    dropped: tuple[int, ...] = ()
    """Indices in the request of passages that did not fit, best first."""
    token_ids: tuple[int, ...] | None = None
    """The rendered prompt, from a model whose own tokenizer is at hand."""
    tokens: int = 0
    """Of the prompt, as the tokenizer counts them."""
    opens_thinking: bool | None = None
    """See `Rendered`."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """Messages as the model reads them, by its chat template, up to where its answer begins."""

    tokens: int
    token_ids: tuple[int, ...] | None = None
    opens_thinking: bool | None = None
    """True if the template has opened a reasoning block, which the model only closes; None where
    the template is the server's."""


class Tokenizer(Protocol):
    """The model's own, or an estimate for a server that keeps it; may be used from any thread."""

    @property
    def max_model_len(self) -> int:
        """Tokens that prompt and answer have together."""
        ...

    def count(self, text: str) -> int:
        """Tokens of `text`, without special ones; at least as many as there are."""
        ...

    def render(self, messages: Sequence[Message]) -> Rendered:
        """Render messages into the model's prompt."""
        ...


@dataclass(frozen=True, slots=True)
class Text:
    """More of the answer; `tokens` is 0 for a model that does not say."""

    text: str
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Thinking:
    """More of the model's reasoning, which is no part of the answer; `tokens` as in `Text`."""

    text: str
    tokens: int = 0


Piece = Text | Thinking
"""A piece of a model's output."""


@dataclass(frozen=True, slots=True)
class End:
    """The last piece: the answer is whole, or as long as it may be."""

    reason: FinishReason
    """STOP, LENGTH or CONTENT_FILTER."""
    usage: Usage | None = None
    queue_ns: int = 0


class ContextOverflow(Internal):
    """Prompt and requested answer exceed the model's context.

    Never the caller's fault: what fits is decided here, by an assumption about the model.
    """

    def __init__(
        self, message: str, *, max_model_len: int | None = None, prompt_tokens: int | None = None
    ) -> None:
        super().__init__(message)
        self.max_model_len = max_model_len
        """Tokens of prompt and answer together, as the model says; None if it does not."""
        self.prompt_tokens = prompt_tokens
        """Of the prompt that was refused, likewise."""


class LanguageModel(Protocol):
    """Continues prompts."""

    @property
    def info(self) -> EngineInfo:
        """Identity and limits of the model."""
        ...

    @property
    def tokenizer(self) -> Tokenizer:
        """Known after `start`."""
        ...

    def load(self) -> Load:
        """Current load; returns at once."""
        ...

    def health(self) -> Health:
        """By forward progress; returns at once."""
        ...

    async def start(self) -> None:
        """Load and warm up.

        Raises:
            RaglanError: it cannot; the message names the setting.
        """

    def stream(
        self, prompt: Prompt, request: Request, deadline: Deadline
    ) -> AsyncGenerator[Piece | End]:
        """Continue `prompt` under the limits of `request`.

        Its `first_token_s` is enforced by `begun_within`; its passages are not read again.

        Close the generator (`contextlib.aclosing`) to stop early: the model stops writing.

        Yields:
            Texts and reasoning as they come, none empty, and one End last.

        Raises:
            ContextOverflow: before the first piece; a shorter prompt may succeed.
            RaglanError: the answer could not be had or not be ended.
        """
        ...

    async def close(self) -> None:
        """Give back what `start` took."""


async def begun_within(
    pieces: AsyncGenerator[Piece | End], request: Request, deadline: Deadline
) -> AsyncGenerator[Piece | End]:
    """`pieces`, closed when the first comes later than the request or its deadline allows.

    Raises:
        DeadlineExceeded: it did.
    """
    limit_s = request.first_token_s
    first = deadline if limit_s is None else deadline.within(limit_s)
    async with aclosing(pieces):
        try:
            async with asyncio.timeout(first.remaining_s()):
                piece = await anext(pieces, None)
        except TimeoutError:
            raise DeadlineExceeded(
                "The answer did not begin in time."
                if first.at < deadline.at
                else "The deadline passed before the answer began."
            ) from None
        if piece is None:
            return
        yield piece
        async for piece in pieces:
            yield piece
