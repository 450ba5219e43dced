"""Pieces of the terms of `raglan.terms`, by which related words are compared."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from raglan.language import detect
from raglan.terms import terms


def question_terms(question: str, language: str) -> list[str]:
    """The terms of `question` in the analysis of passages in `language`.

    Its stop words are those of its own language as well: what a table of codes is taken for must
    not make words of "what" and "is".
    """
    return terms(question, language, own=detect(question))


@lru_cache(maxsize=50_000)
def grams(term: str) -> frozenset[str]:
    """The four-letter pieces of `term`, its beginning marked; at least one.

    A number or a code is one piece: P04322 is not nearly P04321.
    """
    if not term.isalpha() and any(map(str.isdigit, term)):
        return frozenset({term})
    marked = f"^{term}"
    return frozenset(marked[i : i + 4] for i in range(max(1, len(marked) - 3)))


def grams_of(held: Iterable[str]) -> frozenset[str]:
    """The pieces of several terms together."""
    return frozenset().union(*map(grams, held))
