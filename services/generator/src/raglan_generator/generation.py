"""The generator's domain: requests and events, independent of wire and model.

An engine is one async generator of events. The `extractive` engine is one by itself; `openai` and
`vllm` are language models, which `answering` makes into one.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from raglan.blocks import Block
from raglan.deadline import Deadline
from raglan.health import Health
from raglan.scheduling import Lane

ABSTENTION = "The documents do not answer this."
"""The whole answer text when the passages hold no answer."""


class Role(Enum):
    """Author of a turn of the conversation."""

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
    reranked: float | None = None
    """Probability that it answers the question, in [0, 1], by the reranker; None where unknown."""
    matches: tuple[int, ...] = ()
    """Offsets in `text` of the best match of each of the question's words, as the reranker
    found them; empty where it did not read the passage."""
    blocks: tuple[Block, ...] = ()
    """The structure of `text`; empty where it is unknown."""
    page: int = 0
    """On which `text` begins, from 1; 0 where the format has no pages."""
    language: str = ""
    """ISO 639-1 code of the document's language; empty where it is unknown."""
    document: str = ""
    """Key of collection and document; passages of one document may be joined. Empty joins none."""

    @property
    def end(self) -> int:
        """Offset in the document, one past the last character of `text`."""
        return self.start + len(self.text)


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling parameters; None leaves one to the service's settings."""

    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """One question with what may be used to answer it."""

    question: str
    passages: tuple[Passage, ...]
    """Best first."""
    history: tuple[Turn, ...] = ()
    """Oldest first."""
    standalone_question: str = ""
    """The question as it is understood without `history`; empty where it is so itself."""
    instructions: str = ""
    """Of the service's operator, for the prompt; not of the one who asks."""
    max_tokens: int = 512
    first_token_s: float | None = None
    """Refused when it is not expected to begin within so many seconds, ended when it does not."""
    lane: Lane = Lane.INTERACTIVE
    tenant: str = ""
    """Prompts of two tenants never share cached work, so that timing reveals nothing."""
    adapter: str = ""
    """A LoRA adapter of the service, by name."""
    json_schema: str = ""
    """The answer is a JSON document of this schema, without citations."""
    sampling: Sampling = Sampling()
    trace_headers: Mapping[str, str] = field(default_factory=dict)
    """W3C trace context (traceparent, tracestate), for what the engine records of itself."""

    @property
    def standalone(self) -> str:
        """The question as it is understood without `history`."""
        return self.standalone_question or self.question


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
    page: int = 0
    """On which the quote begins, from 1; 0 where the format has no pages."""
    heading_path: tuple[str, ...] = ()
    """Headings above the quote, outermost first."""


@dataclass(frozen=True, slots=True)
class Thinking:
    """More of the model's reasoning: no part of the answer, but a sign that it is coming."""

    text: str


@dataclass(frozen=True, slots=True)
class Restart:
    """Everything so far was reasoning after all: its deltas and citations are void."""


class FinishReason(Enum):
    """Finish reason of an answer."""

    STOP = "stop"
    LENGTH = "length"
    """It was cut at `max_tokens`."""
    ABSTAINED = "abstained"
    CONTENT_FILTER = "content_filter"
    """The server of the model withheld the rest."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens read and written; what a token is, the engine says."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    """Of the prompt, served from the prefix cache."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A sentence of the answer, `answer[start:end]` of all deltas together, markers left out."""

    start: int
    end: int
    markers: tuple[int, ...]
    """Of the citations that stand behind it."""
    support: float
    """In [0, 1]: the share of its terms that a passage it cites holds; 0 where it cites none."""
    conflict: str = ""
    """Conflict with the cited passage, if any; see `raglan.grounding`."""


@dataclass(frozen=True, slots=True)
class Support:
    """Confidence of an answer and its components."""

    confidence: float
    """In [0, 1]: whether the passages answer the question."""
    groundedness: float
    """In [0, 1]: the share of the answer's sentences that a cited passage supports."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """Components of `confidence` by name, each in [0, 1]."""
    claims: tuple[Claim, ...] = ()


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event of every answer."""

    reason: FinishReason
    usage: Usage
    support: Support
    model: str
    dropped: tuple[int, ...] = ()
    """Passages, by index in the request, that the model did not read: they did not fit."""
    queue_ns: int = 0
    compute_ns: int = 0


Event = Delta | Citation | Thinking | Restart | Finished


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """An engine's part of GetInfo."""

    engine: str
    model: str
    revision: str = ""
    device: str = "cpu"
    dtype: str = ""
    limits: Mapping[str, int] = field(default_factory=dict)
    adapters: tuple[str, ...] = ()
    """Names that `Request.adapter` may have."""


@dataclass(frozen=True, slots=True)
class Load:
    """Load of an engine; names with `total` count since its start."""

    running: int = 0
    waiting: int = 0
    kv_use: float = 0.0
    """In [0, 1], of the memory for keys and values."""
    backlog_s: float = 0.0
    """Queued tokens over measured speed."""
    prefix_tokens_total: int = 0
    """Prompt tokens looked up in the prefix cache."""
    prefix_hits_total: int = 0
    """Of those, found."""
    drafted_total: int = 0
    """Tokens that speculation proposed."""
    accepted_total: int = 0
    """Of those, kept."""


class Engine(Protocol):
    """Answers questions from passages."""

    @property
    def info(self) -> EngineInfo:
        """Identity and limits of the engine."""
        ...

    def load(self) -> Load:
        """Current load; returns at once."""
        ...

    def health(self) -> Health:
        """By forward progress; returns at once."""
        ...

    async def start(self) -> None:
        """Load and warm up; the service reports SERVING after it."""

    def generate(self, request: Request, deadline: Deadline) -> AsyncGenerator[Event]:
        """Answer `request`. Close the generator (`contextlib.aclosing`) to stop early.

        Yields:
            Deltas, a Citation right after the text has passed its marker, reasoning between them,
            and one Finished last.

        Raises:
            RaglanError: the answer could not be had or not be ended; text sent before it stands.
        """
        ...

    async def close(self) -> None:
        """Give back what `start` took."""
