"""What a generator engine is asked and what it answers, free of the wire and of any model.

An engine is one async generator of events. `extractive`, `openai` and (in an environment of its
own) `vllm` all fit behind `Engine`; the servicer knows nothing else of them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from raglan.deadline import Deadline

ABSTENTION = "The documents do not answer this."
"""The whole answer text when the passages hold no answer."""


class Role(Enum):
    """Who said a turn of the conversation."""

    USER = "user"
    ASSISTANT = "assistant"


@dataclass(frozen=True, slots=True)
class Turn:
    """One earlier message of the conversation."""

    role: Role
    text: str


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a document; `text` begins at character `start` of the document."""

    text: str
    start: int = 0
    title: str = ""
    headings: tuple[str, ...] = ()
    score: float | None = None
    """Of the last ranking that scored every passage of the request."""
    similarity: float | None = None
    """Cosine of its vector and the question's."""


@dataclass(frozen=True, slots=True)
class Request:
    """One question with what may be used to answer it."""

    question: str
    passages: tuple[Passage, ...]
    """Best first."""
    history: tuple[Turn, ...] = ()
    """Oldest first."""
    max_tokens: int = 512


@dataclass(frozen=True, slots=True)
class Delta:
    """More of the answer's text."""

    text: str


@dataclass(frozen=True, slots=True)
class Citation:
    """The marker `[marker]`, which the text has just passed, stands for this quote."""

    marker: int
    passage_index: int
    quote: str
    start: int
    """Character offset into the document, so that `quote == document[start:end]`."""
    end: int


class FinishReason(Enum):
    """Why an answer ended."""

    STOP = "stop"
    LENGTH = "length"
    ABSTAINED = "abstained"


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens read and written; what a token is, the engine says."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event of every answer."""

    reason: FinishReason
    usage: Usage
    confidence: float
    """In [0, 1]: how well the passages support the answer."""
    model: str
    queue_ns: int = 0
    compute_ns: int = 0


Event = Delta | Citation | Finished


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What GetInfo says of an engine."""

    engine: str
    model: str
    revision: str = ""
    device: str = "cpu"
    dtype: str = ""
    limits: dict[str, int] = field(default_factory=dict)


class Engine(Protocol):
    """Answers questions from passages."""

    @property
    def info(self) -> EngineInfo: ...

    async def start(self) -> None:
        """Load and warm up; the service reports SERVING after it."""

    def generate(self, request: Request, deadline: Deadline) -> AsyncGenerator[Event]:
        """Answer `request`. Close the generator (`contextlib.aclosing`) to stop early.

        Yields:
            Deltas, a Citation right after the text has passed its marker, and one Finished last.

        Raises:
            RaglanError: the answer could not be had or not be ended; text sent before it stands.
        """
        ...

    async def close(self) -> None:
        """Give back what `start` took."""
