"""Fields of requests and replies that concern strategies."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from raglan_gateway.api.searched import Searched
from raglan_gateway.api.strict import Strict
from raglan_gateway.strategies.strategy import MAX_QUERIES

StrategyName = Literal["none", "condense", "rewrite", "multi_query", "hyde"]
SecondTryName = Literal["none", "lexical", "rewrite", "multi_query", "hyde"]


class WithStrategy(Strict):
    """A request whose question a language model may rewrite for the search."""

    strategy: StrategyName = "none"
    """Search texts that the language model writes, searched beside the question: a stand-alone
    question from `history` (condense), another wording (rewrite), several questions (multi_query),
    or a hypothetical passage (hyde). Where there is no model, or it fails, the question is searched
    as it is and `degraded` says so."""
    query_count: Annotated[int, Field(ge=1, le=MAX_QUERIES)] = 3
    """Most questions of `multi_query`."""


class WithSecondTry(WithStrategy):
    """A request whose answer may be tried twice."""

    second_try: SecondTryName = "none"
    """Another search, once, where the answer abstains: by words alone (lexical), or with
    search texts of the model. The better answer is kept. A stream shows
    nothing before it is known."""
    second_try_below: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Confidence below which an answer also gets the second try."""


class SecondTry(BaseModel):
    """Another search for an answer that abstained, or was of low confidence."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    strategy: SecondTryName
    reason: Literal["abstained", "low_confidence"]
    helped: bool
    """True if the answer is that of the second try; else the first one stands."""


class StrategyUsed(BaseModel):
    """How the question was searched, where a strategy took part."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    name: StrategyName
    texts: list[str]
    """As the model wrote them."""
    second_try: SecondTry | None = None


class StrategyReply(Searched):
    """A reply to a request with a strategy."""

    strategy: StrategyUsed | None = None
    """Search texts of a model and the second try; null where the question was searched once, as it
    is."""
