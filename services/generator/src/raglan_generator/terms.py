"""Pieces of the terms of `raglan.terms`, by which related words are compared."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache


@lru_cache(maxsize=50_000)
def grams(term: str) -> frozenset[str]:
    """The four-letter pieces of `term`, its beginning marked; at least one."""
    marked = f"^{term}"
    return frozenset(marked[i : i + 4] for i in range(max(1, len(marked) - 3)))


def grams_of(held: Iterable[str]) -> frozenset[str]:
    """The pieces of several terms together."""
    return frozenset().union(*map(grams, held))
