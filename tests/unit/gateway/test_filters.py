"""Filters of a request: what becomes of numbers and times, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError
from raglan_gateway.api.filters import BoundedFilter, Filter, to_proto

READER: TypeAdapter[Filter] = TypeAdapter(BoundedFilter)


def bounds(**given: Any) -> dict[str, str]:
    """The bounds of a range of times, as they go on the wire."""
    made = to_proto(READER.validate_python({"range": {"field": "d", **given}})).condition.times
    return {field.name: value.ToJsonString() for field, value in made.ListFields()}


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 10**100])
@pytest.mark.parametrize("operator", ["eq", "ne", "in"])
def test_an_integer_that_the_index_cannot_hold_is_refused(operator: str, value: int) -> None:
    test: dict[str, Any] = {"values": [value]} if operator == "in" else {"value": value}
    with pytest.raises(ValidationError):
        READER.validate_python({operator: {"field": "n", **test}})


@pytest.mark.parametrize("value", [2**63 - 1, -(2**63), 2**53 + 1])
def test_other_integers_are_compared_exactly(value: int) -> None:
    made = to_proto(READER.validate_python({"eq": {"field": "n", "value": value}}))
    assert made.condition.eq.integer == value


@pytest.mark.parametrize("bound", [2**53, -(2**53), 2**60 + 1, 10**30])
def test_an_integer_bound_that_would_lose_precision_is_refused(bound: int) -> None:
    with pytest.raises(ValidationError):
        READER.validate_python({"range": {"field": "n", "gte": bound}})


def test_other_bounds_are_exact() -> None:
    made = to_proto(
        READER.validate_python({"range": {"field": "n", "gt": -(2**53) + 1, "lte": 1e300}})
    )
    assert (made.condition.range.gt, made.condition.range.lte) == (-(2**53) + 1, 1e300)


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({"gte": "2026-11-28"}, {"gte": "2026-11-28T00:00:00Z"}),
        ({"gt": "2026-11-28"}, {"gte": "2026-11-29T00:00:00Z"}),
        ({"lt": "2026-11-28"}, {"lt": "2026-11-28T00:00:00Z"}),
        ({"lte": "2026-11-28"}, {"lt": "2026-11-29T00:00:00Z"}),
        ({"lte": "2026-11-28T10:00:00+02:00"}, {"lte": "2026-11-28T08:00:00Z"}),
        ({"gt": "2026-11-28", "gte": "2026-12-31"}, {"gte": "2026-12-31T00:00:00Z"}),
        ({"lt": "2026-11-28T10:00Z", "lte": "2026-11-28"}, {"lt": "2026-11-28T10:00:00Z"}),
    ],
)
def test_a_range_of_times_counts_a_date_as_its_whole_day(
    given: dict[str, str], sent: dict[str, str]
) -> None:
    assert bounds(**given) == sent


@pytest.mark.parametrize(
    "given",
    [
        {"gte": "yesterday"},
        {"gte": "2026-13-01"},
        {"gte": "9999-12-31"},
        {"lte": "0001-01-01T00:00:00+14:00"},
        {"gte": "2026-11-28", "lt": 5},
        {"gte": True},
        {"gte": ["2026-11-28"]},
    ],
)
def test_other_bounds_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        bounds(**given)
