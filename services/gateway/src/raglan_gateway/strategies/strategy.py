"""Names of strategies, and what one made of a query."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from raglan.v1 import embedder_pb2, generator_pb2, retriever_pb2

MAX_QUERIES: Final = 8
"""Most questions that a model may be asked to write for one."""

REASONS: Final = ("abstained", "low_confidence")
"""Reasons for a second try."""


class Strategy(StrEnum):
    """Form of the search texts that a model writes; the question is searched beside them."""

    NONE = "none"
    CONDENSE = "condense"
    """A follow-up as a stand-alone question, which is also reranked and answered."""
    REWRITE = "rewrite"
    MULTI_QUERY = "multi_query"
    HYDE = "hyde"
    """A hypothetical passage that answers the question, searched by its vector."""


class SecondTry(StrEnum):
    """Way of searching again for an answer that abstained, or is of low confidence."""

    NONE = "none"
    LEXICAL = "lexical"
    """By words alone."""
    REWRITE = "rewrite"
    MULTI_QUERY = "multi_query"
    HYDE = "hyde"

    @property
    def strategy(self) -> Strategy:
        """The strategy by a model that it is; `NONE` for one without."""
        return _BY_MODEL.get(self, Strategy.NONE)


_BY_MODEL: Final = {
    SecondTry.REWRITE: Strategy.REWRITE,
    SecondTry.MULTI_QUERY: Strategy.MULTI_QUERY,
    SecondTry.HYDE: Strategy.HYDE,
}
KINDS: Final = {
    Strategy.CONDENSE: generator_pb2.REWRITE_KIND_STANDALONE,
    Strategy.REWRITE: generator_pb2.REWRITE_KIND_REWRITE,
    Strategy.MULTI_QUERY: generator_pb2.REWRITE_KIND_MULTI_QUERY,
    Strategy.HYDE: generator_pb2.REWRITE_KIND_HYPOTHETICAL_DOCUMENT,
}


@dataclass(frozen=True, slots=True)
class SearchText:
    """A text that is searched beside the question."""

    text: str
    mode: retriever_pb2.SearchMode.ValueType
    embedded: embedder_pb2.EmbedResponse | None
    """Its vector; None for a search by words."""


@dataclass(slots=True)
class Outcome:
    """Search texts and outcomes of a query's strategies."""

    name: Strategy = Strategy.NONE
    """Of the search that found the passages."""
    texts: tuple[str, ...] = ()
    """As the model wrote them."""
    standalone: str = ""
    """The question by `CONDENSE`."""
    second_try: SecondTry = SecondTry.NONE
    reason: str = ""
    """Of the second try: one of `REASONS`; empty without one."""
    helped: bool = False
    """True if the answer is that of the second try."""
    usage: generator_pb2.Usage = field(default_factory=generator_pb2.Usage)
    """Tokens besides those of the answer."""

    @property
    def is_used(self) -> bool:
        """Return whether the reply has something to say of it."""
        return self.name is not Strategy.NONE or self.second_try is not SecondTry.NONE

    def spent(self, usage: generator_pb2.Usage) -> None:
        """Add tokens."""
        self.usage.prompt_tokens += usage.prompt_tokens
        self.usage.completion_tokens += usage.completion_tokens
        self.usage.cached_tokens += usage.cached_tokens
