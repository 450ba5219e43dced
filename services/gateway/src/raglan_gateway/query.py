"""A validated query."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from raglan.resilience.limiter import Priority
from raglan.v1 import generator_pb2, retriever_pb2

from raglan_gateway.caches.control import DEFAULT, CacheControl
from raglan_gateway.preferences import Boost
from raglan_gateway.strategies.strategy import SecondTry, Strategy

DEFAULT_GENERATOR: Final = "default"
"""Name of the generators of `RAGLAN_GATEWAY_GENERATOR_ADDRESS`."""


@dataclass(frozen=True, slots=True)
class Query:
    """A validated query."""

    text: str
    """The question, line breaks included: code and lists need them."""
    collections: tuple[str, ...]
    top_k: int
    mode: retriever_pb2.SearchMode.ValueType
    rerank: bool
    further: tuple[str, ...] = ()
    """Outputs of the embedder besides the vector that the collections are searched by."""
    filter: retriever_pb2.Filter | None = None
    as_of_ms: int | None = None
    """Milliseconds since 1970: the time whose versions are searched; None for the present ones."""
    min_score: float | None = None
    """Least relevance of a passage, in [0, 1], by the reranker; None takes all."""
    boosts: tuple[Boost, ...] = ()
    diversity: float = 0.0
    """See `preferences.ordered`."""
    expand_tokens: int = 0
    """Tokens of neighbouring text that passages are joined with, at most; 0 for none."""
    expand_neighbours: bool = False
    """Join passages without a section too."""
    max_tokens: int = 0
    priority: Priority = Priority.DEFAULT
    stream: bool = False
    """True if the answer is streamed."""
    tenant: str = ""
    """Of the caller; see `caller.Caller`."""
    access: tuple[str, ...] | None = ()
    """Access tags of the caller; None reaches every document."""
    history: tuple[generator_pb2.Turn, ...] = ()
    """Turns of the conversation before `text`, oldest first."""
    sampling: generator_pb2.Sampling | None = None
    json_schema: str = ""
    """Schema of the answer, as JSON; empty for text."""
    standalone: str = ""
    """The question so that it can be understood without `history`; empty where it is so itself."""
    instructions: str = ""
    """Of the profile, for the language model."""
    generators: tuple[str, ...] = ()
    """Names of the generators to ask, in this order; empty for the default ones."""
    strategy: Strategy = Strategy.NONE
    query_count: int = 3
    """Most texts that a model writes for a strategy."""
    rewriter: str = DEFAULT_GENERATOR
    """Name of the generator whose model writes them."""
    second_try: SecondTry = SecondTry.NONE
    second_try_below: float = 0.0
    """Confidence below which an answer gets a second try, as one that abstained does."""
    small_talk: str = ""
    """Reply to a greeting and its like, which is answered without a search; empty for questions."""
    missing: tuple[tuple[str, str], ...] = ()
    """Stage and reason of what it has to do without from the start, such as its history."""
    cache: CacheControl = DEFAULT
    """Directives of the client for the caches."""

    @property
    def has_preferences(self) -> bool:
        """Return whether the order of its passages is not by relevance alone."""
        return bool(self.boosts or self.diversity)

    @property
    def has_strategy(self) -> bool:
        """Return whether a model may write search texts for it."""
        return self.strategy is not Strategy.NONE or self.second_try.strategy is not Strategy.NONE

    @property
    def line(self) -> str:
        """The stand-alone question in one line, for embedder, index and reranker."""
        return " ".join((self.standalone or self.text).split())
