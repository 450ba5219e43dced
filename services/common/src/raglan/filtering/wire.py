"""The filter tree of a request, checked and turned into clauses."""

from __future__ import annotations

import math
from typing import Final

from raglan.errors import InvalidInput
from raglan.filtering.clauses import All, Any, Clause, Not, Numbers, Terms
from raglan.filtering.terms import exists_term, number_key, term, time_key
from raglan.identifiers import shortened
from raglan.metadata import Scalar
from raglan.v1 import retriever_pb2

MAX_DEPTH: Final = 16
MAX_CONDITIONS: Final = 100
MAX_VALUES: Final = 1000
MAX_FIELD_CHARS: Final = 256


def clause_from_proto(message: retriever_pb2.Filter) -> Clause:
    """Convert a filter.

    Raises:
        InvalidInput: a node or condition that says nothing, a bound that is not a number, or a
            tree beyond the limits here.
    """
    return _Reader().filter(message, 1)


class _Reader:
    def __init__(self) -> None:
        self._conditions = 0

    def filter(self, message: retriever_pb2.Filter, depth: int) -> Clause:
        if depth > MAX_DEPTH:
            raise InvalidInput(f"The filter is nested deeper than {MAX_DEPTH} levels, the limit.")
        match message.WhichOneof("node"):
            case "condition":
                return self._condition(message.condition)
            case "all":
                return All(self._list(message.all, "all", depth))
            case "any":
                return Any(self._list(message.any, "any", depth))
            case "negated":
                return Not(self.filter(message.negated, depth + 1))
            case _:
                raise InvalidInput(
                    "A filter is empty; it needs a condition, `all`, `any` or `negated`."
                )

    def _list(self, message: retriever_pb2.FilterList, name: str, depth: int) -> tuple[Clause, ...]:
        if not message.filters:
            raise InvalidInput(f"`{name}` of a filter lists nothing; give it one filter or more.")
        return tuple(self.filter(inner, depth + 1) for inner in message.filters)

    def _condition(self, message: retriever_pb2.Condition) -> Clause:
        self._conditions += 1
        if self._conditions > MAX_CONDITIONS:
            raise InvalidInput(f"The filter has more than {MAX_CONDITIONS} conditions, the limit.")
        path = message.field
        if not 1 <= len(path) <= MAX_FIELD_CHARS:
            raise InvalidInput(
                f"A condition's field has {len(path)} characters; it must have 1 to "
                f"{MAX_FIELD_CHARS}."
            )
        match message.WhichOneof("test"):
            case "eq":
                return Terms((term(path, _scalar(message.eq, path)),))
            case "ne":
                return Not(Terms((term(path, _scalar(message.ne, path)),)))
            case "in":
                return Terms(_values(getattr(message, "in"), path))
            case "range":
                return _range(message.range, path)
            case "times":
                return _times(message.times, path)
            case "exists":
                there = Terms((exists_term(path),))
                return there if message.exists else Not(there)
            case _:
                raise InvalidInput(
                    f"The condition on {shortened(path)} tests nothing; "
                    "it needs eq, ne, in, range or exists."
                )


def _values(message: retriever_pb2.ValueList, path: str) -> tuple[str, ...]:
    if not 1 <= len(message.values) <= MAX_VALUES:
        raise InvalidInput(
            f"`in` on {shortened(path)} lists {len(message.values)} values; "
            f"it must list 1 to {MAX_VALUES}."
        )
    return tuple(dict.fromkeys(term(path, _scalar(value, path)) for value in message.values))


def _scalar(message: retriever_pb2.Value, path: str) -> Scalar:
    match message.WhichOneof("kind"):
        case "text":
            return message.text
        case "integer":
            return message.integer
        case "real" if math.isfinite(message.real):
            return message.real
        case "flag":
            return message.flag
        case _:
            raise InvalidInput(
                f"A value for {shortened(path)} is missing or not finite; give a text, a number "
                "or a boolean. For a missing field, use exists."
            )


def _times(message: retriever_pb2.TimeRange, path: str) -> Numbers:
    bounds = {
        descriptor.name: value.ToMicroseconds() / 1e6 for descriptor, value in message.ListFields()
    }
    if not bounds:
        raise InvalidInput(f"The range on {shortened(path)} has no bound; give gt, gte, lt or lte.")
    return Numbers(time_key(path), **bounds)


def _range(message: retriever_pb2.Range, path: str) -> Numbers:
    bounds = {descriptor.name: value for descriptor, value in message.ListFields()}
    if not bounds:
        raise InvalidInput(f"The range on {shortened(path)} has no bound; give gt, gte, lt or lte.")
    for name, value in bounds.items():
        if not math.isfinite(value):
            raise InvalidInput(
                f"{name} of the range on {shortened(path)} is {value}; it must be finite."
            )
    return Numbers(number_key(path), **bounds)
