"""Outcomes of strategies, as cached answers hold them."""

from __future__ import annotations

from raglan.v1 import cache_pb2

from raglan_gateway.strategies.strategy import Outcome, SecondTry, Strategy


def to_proto(outcome: Outcome) -> cache_pb2.CachedStrategy | None:
    """Return the message; None where no strategy was used."""
    if not outcome.is_used:
        return None
    return cache_pb2.CachedStrategy(
        name=outcome.name,
        texts=outcome.texts,
        standalone_question=outcome.standalone,
        second_try=outcome.second_try,
        reason=outcome.reason,
        helped=outcome.helped,
    )


def from_proto(cached: cache_pb2.CachedStrategy) -> Outcome:
    """Return the outcome, without the tokens that it took then."""
    return Outcome(
        name=Strategy(cached.name or Strategy.NONE),
        texts=tuple(cached.texts),
        standalone=cached.standalone_question,
        second_try=SecondTry(cached.second_try or SecondTry.NONE),
        reason=cached.reason,
        helped=cached.helped,
    )
