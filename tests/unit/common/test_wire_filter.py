"""Filters of a request: what is refused, and how."""

from __future__ import annotations

import math

import pytest
from raglan.errors import InvalidInput
from raglan.filtering.clauses import Any, Not, Terms
from raglan.filtering.terms import exists_term, term
from raglan.filtering.wire import clause_from_proto
from raglan.v1.retriever_pb2 import (
    Condition,
    Filter,
    FilterList,
    Range,
    TimeRange,
    Value,
    ValueList,
)


def condition(field: str = "a", **test) -> Filter:
    return Filter(condition=Condition(field=field, **test))


def negated(times: int) -> Filter:
    made = condition(exists=True)
    for _ in range(times):
        made = Filter(negated=made)
    return made


ONE = Value(integer=1)


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (Filter(), "needs a condition"),
        (Filter(negated=Filter()), "needs a condition"),
        (Filter(all=FilterList()), "`all` of a filter lists nothing"),
        (Filter(any=FilterList()), "`any` of a filter lists nothing"),
        (condition(), "'a' tests nothing"),
        (condition(field="", eq=ONE), "has 0 characters"),
        (condition(field="x" * 257, eq=ONE), "has 257 characters"),
        (condition(eq=Value()), "missing or not finite"),
        (condition(ne=Value(real=math.nan)), "missing or not finite"),
        (condition(**{"in": ValueList()}), "lists 0 values"),
        (condition(**{"in": ValueList(values=[ONE] * 1001)}), "lists 1001 values"),
        (condition(range=Range()), "has no bound"),
        (condition(times=TimeRange()), "has no bound"),
        (condition(range=Range(gt=math.inf)), "gt of the range on 'a' is inf"),
        (negated(16), "deeper than 16"),
        (Filter(any=FilterList(filters=[condition(exists=True)] * 101)), "more than 100"),
    ],
)
def test_a_malformed_filter_is_refused_with_a_sentence(message, says):
    with pytest.raises(InvalidInput, match=says):
        clause_from_proto(message)


def test_a_filter_may_be_as_deep_as_the_limit():
    clause = clause_from_proto(negated(15))
    for _ in range(15):
        assert isinstance(clause, Not)
        clause = clause.clause
    assert clause == Terms((exists_term("a"),))


def test_a_filter_may_hold_as_many_conditions_as_the_limit():
    clause = clause_from_proto(Filter(any=FilterList(filters=[condition(exists=True)] * 100)))
    assert clause == Any((Terms((exists_term("a"),)),) * 100)


def test_a_bound_of_zero_is_a_bound():
    assert clause_from_proto(condition(range=Range(gte=0))).gte == 0


def test_integers_and_reals_of_one_value_are_one_term():
    assert clause_from_proto(condition(eq=Value(real=1.0))) == clause_from_proto(condition(eq=ONE))


def test_booleans_are_no_numbers():
    assert clause_from_proto(condition(eq=Value(flag=True))) != clause_from_proto(condition(eq=ONE))


def test_not_equal_is_the_opposite_of_equal():
    assert clause_from_proto(condition(ne=ONE)) == Not(Terms((term("a", 1),)))
