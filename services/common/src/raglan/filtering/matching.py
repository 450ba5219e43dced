"""Evaluation of a clause over one set of terms and numbers, as a store's index does it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from raglan.filtering.clauses import All, Any, Clause, Ids, Not, Numbers, Terms


def matches(clause: Clause, terms: Collection[str], numbers: Mapping[str, Sequence[float]]) -> bool:
    """Return whether something with these terms and numbers passes.

    Raises:
        TypeError: the clause names points, which only a store has.
    """
    match clause:
        case Terms(any_of):
            return any(each in terms for each in any_of)
        case Numbers(key):
            return any(_is_within(clause, number) for number in numbers.get(key, ()))
        case All(clauses):
            return all(matches(each, terms, numbers) for each in clauses)
        case Any(clauses):
            return any(matches(each, terms, numbers) for each in clauses)
        case Not(inner):
            return not matches(inner, terms, numbers)
        case Ids():
            raise TypeError("ids of points cannot be matched without a store")


def _is_within(bounds: Numbers, number: float) -> bool:
    return (
        (bounds.gt is None or number > bounds.gt)
        and (bounds.gte is None or number >= bounds.gte)
        and (bounds.lt is None or number < bounds.lt)
        and (bounds.lte is None or number <= bounds.lte)
    )
