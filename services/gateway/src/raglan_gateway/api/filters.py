"""Metadata filters as JSON: an object with exactly one operator, checked and put on the wire."""

from __future__ import annotations

from datetime import MAXYEAR, UTC, timedelta
from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    Tag,
    model_validator,
)
from raglan.moments import is_whole_day, moment_of
from raglan.v1 import retriever_pb2

from raglan_gateway.api.strict import Strict
from raglan_gateway.api.text import PlainText

MAX_SAFE_INTEGER: Final = 2**53 - 1
"""Up to it every integer is a number of the index, which keeps numbers in 64-bit floating point."""

MAX_DEPTH: Final = 8
MAX_NODES: Final = 100
MAX_VALUES: Final = 1_000
MAX_VALUES_IN_ALL: Final = 10_000

FieldName = Annotated[PlainText, Field(min_length=1, max_length=256, examples=["lang"])]
Text = Annotated[PlainText, Field(max_length=4_096, strict=True)]
Integer = Annotated[StrictInt, Field(ge=-(2**63), lt=2**63)]
Real = Annotated[StrictFloat, Field(allow_inf_nan=False)]
Scalar = Annotated[
    Annotated[StrictBool, Tag("bool")]
    | Annotated[Integer, Tag("int")]
    | Annotated[Real, Tag("float")]
    | Annotated[Text, Tag("str")],
    Discriminator(
        lambda value: type(value).__name__,
        custom_error_type="scalar",
        custom_error_message="a value is a text, a number or a boolean",
    ),
]
"""One value. Its type decides which member reads it, so that only that one's error is built."""


class Equals(Strict):
    """The field has this value (or, in an array, holds it)."""

    field: FieldName
    value: Scalar


_FROM_THE_NEXT_DAY: Final = {"gt": "gte", "lte": "lt"}


class OneOf(Strict):
    """The field has one of these values."""

    field: FieldName
    values: Annotated[list[Scalar], Field(min_length=1, max_length=MAX_VALUES, fail_fast=True)]


def _check_moment(value: str) -> str:
    moment = moment_of(value)
    if moment is None:
        raise ValueError("it is no date or time, such as 2026-11-28 or 2026-11-28T10:30:00Z")
    if not 1 < moment.year < MAXYEAR:  # an offset, or the end of the day, leads beyond them
        raise ValueError(f"the years of a range are 2 to {MAXYEAR - 1}")
    return value


Bound = Annotated[
    Annotated[StrictInt, Field(ge=-MAX_SAFE_INTEGER, le=MAX_SAFE_INTEGER), Tag("int")]
    | Annotated[Real, Tag("float")]
    | Annotated[Text, AfterValidator(_check_moment), Tag("str")],
    Discriminator(
        lambda value: type(value).__name__,
        custom_error_type="bound",
        custom_error_message="a bound is a number, or a date or time as text (RFC 3339)",
    ),
]


class Between(Strict):
    """The field is a number, or a date or time (RFC 3339), within these bounds.

    At least one bound is given. A date stands for its whole day; a time without an offset is UTC.
    """

    field: FieldName
    gt: Bound | None = None
    gte: Bound | None = None
    lt: Bound | None = None
    lte: Bound | None = None

    @model_validator(mode="after")
    def _bounded(self) -> Between:
        if self.gt is self.gte is self.lt is self.lte is None:
            raise ValueError("range needs at least one of gt, gte, lt, lte")
        bounds = [each for each in (self.gt, self.gte, self.lt, self.lte) if each is not None]
        if len({isinstance(each, str) for each in bounds}) > 1:
            raise ValueError("the bounds of a range are numbers or times, not both")
        return self


class Exists(Strict):
    """The field is there and not null; with `value: false`, it is not."""

    field: FieldName
    value: StrictBool = True


class Filter(Strict):
    """Exactly one operator. `and`, `or` and `not` nest, at most eight deep."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"and": [{"eq": {"field": "lang", "value": "en"}}]}],
            "minProperties": 1,
            "maxProperties": 1,
        }
    )
    unknown_field = "unknown filter operator {name}; the operators are {known}"

    eq: Equals | None = None
    ne: Equals | None = None
    in_: OneOf | None = Field(default=None, alias="in")
    range: Between | None = None
    exists: Exists | None = None
    and_: (
        Annotated[list[Filter], Field(min_length=1, max_length=MAX_NODES, fail_fast=True)] | None
    ) = Field(default=None, alias="and")
    or_: (
        Annotated[list[Filter], Field(min_length=1, max_length=MAX_NODES, fail_fast=True)] | None
    ) = Field(default=None, alias="or")
    not_: Filter | None = Field(default=None, alias="not")

    @model_validator(mode="before")
    @classmethod
    def _one_operator(cls, value: Any) -> Any:
        if isinstance(value, dict) and len(value) != 1:
            raise ValueError(f"a filter has exactly one operator; this one has {len(value)}")
        return value


def _check_size(value: Any) -> Any:
    """Refuse a filter beyond the limits before anything of it is built."""
    nodes, values = 1, 0
    waiting = [(value, 1)]
    while waiting:
        node, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise ValueError(f"the filter is nested more than {MAX_DEPTH} deep, the limit")
        if not isinstance(node, dict):
            continue
        children = [node["not"]] if "not" in node else []
        for name in ("and", "or"):
            if isinstance(node.get(name), list):
                children += node[name][: MAX_NODES + 1]
        waiting += [(child, depth + 1) for child in children]
        nodes += len(children)
        listed = node["in"].get("values") if isinstance(node.get("in"), dict) else None
        values += len(listed) if isinstance(listed, list) else 0
        if nodes > MAX_NODES:
            raise ValueError(f"the filter has more than {MAX_NODES} operators, the limit")
        if values > MAX_VALUES_IN_ALL:
            raise ValueError(f"the filter lists more than {MAX_VALUES_IN_ALL} values, the limit")
    return value


BoundedFilter = Annotated[Filter, BeforeValidator(_check_size)]
"""The filter of a request."""


def to_proto(filter_: Filter) -> retriever_pb2.Filter:
    """The same filter on the wire."""
    if filter_.and_ is not None:
        children = [to_proto(child) for child in filter_.and_]
        return retriever_pb2.Filter(all=retriever_pb2.FilterList(filters=children))
    if filter_.or_ is not None:
        children = [to_proto(child) for child in filter_.or_]
        return retriever_pb2.Filter(any=retriever_pb2.FilterList(filters=children))
    if filter_.not_ is not None:
        return retriever_pb2.Filter(negated=to_proto(filter_.not_))
    return retriever_pb2.Filter(condition=_condition(filter_))


def _condition(filter_: Filter) -> retriever_pb2.Condition:
    condition = retriever_pb2.Condition()
    if filter_.eq is not None:
        condition.field = filter_.eq.field
        condition.eq.CopyFrom(_value(filter_.eq.value))
    elif filter_.ne is not None:
        condition.field = filter_.ne.field
        condition.ne.CopyFrom(_value(filter_.ne.value))
    elif filter_.in_ is not None:
        condition.field = filter_.in_.field
        values = [_value(value) for value in filter_.in_.values]
        getattr(condition, "in").CopyFrom(retriever_pb2.ValueList(values=values))
    elif filter_.range is not None:
        bounds = filter_.range.model_dump(exclude={"field"}, exclude_none=True)
        condition.field = filter_.range.field
        if any(isinstance(bound, str) for bound in bounds.values()):
            condition.times.CopyFrom(_times(bounds))
        else:
            condition.range.CopyFrom(retriever_pb2.Range(**bounds))
    elif filter_.exists is not None:
        condition.field = filter_.exists.field
        condition.exists = filter_.exists.value
    return condition


def _times(bounds: dict[str, str]) -> retriever_pb2.TimeRange:
    message: Any = retriever_pb2.TimeRange()
    for name, text in bounds.items():
        moment = moment_of(text)
        assert moment is not None  # as validated
        if is_whole_day(text) and name in _FROM_THE_NEXT_DAY:
            # After a day is from the next one on, and up to it is before the next one.
            name, moment = _FROM_THE_NEXT_DAY[name], moment + timedelta(days=1)
        bound = getattr(message, name)
        if message.HasField(name):
            tighter = max if name == "gte" else min
            moment = tighter(moment, bound.ToDatetime(tzinfo=UTC))
        bound.FromDatetime(moment)
    made: retriever_pb2.TimeRange = message
    return made


def _value(value: bool | int | float | str) -> retriever_pb2.Value:
    match value:
        case bool():
            return retriever_pb2.Value(flag=value)
        case int():
            return retriever_pb2.Value(integer=value)
        case float():
            return retriever_pb2.Value(real=value)
        case _:
            return retriever_pb2.Value(text=value)
