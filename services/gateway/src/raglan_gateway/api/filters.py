"""Metadata filters as JSON: an object with exactly one operator, checked and put on the wire."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    model_validator,
)
from raglan.v1 import retriever_pb2

from raglan_gateway.api.text import PlainText

MAX_DEPTH: Final = 8
MAX_NODES: Final = 100
MAX_VALUES: Final = 1_000

FieldName = Annotated[PlainText, Field(min_length=1, max_length=256, examples=["lang"])]
Text = Annotated[PlainText, Field(max_length=4_096, strict=True)]
Integer = Annotated[StrictInt, Field(ge=-(2**63), lt=2**63)]
Real = Annotated[StrictFloat, Field(allow_inf_nan=False)]
Scalar = StrictBool | Integer | Real | Text


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Equals(_Strict):
    """The field has this value (or, in an array, holds it)."""

    field: FieldName
    value: Scalar


class OneOf(_Strict):
    """The field has one of these values."""

    field: FieldName
    values: Annotated[list[Scalar], Field(min_length=1, max_length=MAX_VALUES)]


class Between(_Strict):
    """The field is a number within these bounds; at least one is given."""

    field: FieldName
    gt: Real | Integer | None = None
    gte: Real | Integer | None = None
    lt: Real | Integer | None = None
    lte: Real | Integer | None = None

    @model_validator(mode="after")
    def _bounded(self) -> Between:
        if self.gt is self.gte is self.lt is self.lte is None:
            raise ValueError("range needs at least one of gt, gte, lt, lte")
        return self


class Exists(_Strict):
    """The field is there and not null; with `value: false`, it is not."""

    field: FieldName
    value: StrictBool = True


class Filter(_Strict):
    """Exactly one operator. `and`, `or` and `not` nest, at most eight deep."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"and": [{"eq": {"field": "lang", "value": "en"}}]}],
            "minProperties": 1,
            "maxProperties": 1,
        }
    )

    eq: Equals | None = None
    ne: Equals | None = None
    in_: OneOf | None = Field(default=None, alias="in")
    range: Between | None = None
    exists: Exists | None = None
    and_: list[Filter] | None = Field(default=None, alias="and", min_length=1, max_length=MAX_NODES)
    or_: list[Filter] | None = Field(default=None, alias="or", min_length=1, max_length=MAX_NODES)
    not_: Filter | None = Field(default=None, alias="not")

    @model_validator(mode="before")
    @classmethod
    def _one_operator(cls, value: Any) -> Any:
        if isinstance(value, dict):
            known = {field.alias or name for name, field in cls.model_fields.items()}
            unknown = sorted(str(key) for key in value if key not in known)
            if unknown:
                raise ValueError(
                    f"unknown filter operator {unknown[0][:64]!r}; "
                    "the operators are eq, ne, in, range, exists, and, or, not"
                )
            if len(value) != 1:
                raise ValueError(f"a filter has exactly one operator; this one has {len(value)}")
        return value

    @model_validator(mode="after")
    def _bounded(self) -> Filter:
        depth, nodes = _measure(self)
        if depth > MAX_DEPTH:
            raise ValueError(f"the filter is nested {depth} deep; the limit is {MAX_DEPTH}")
        if nodes > MAX_NODES:
            raise ValueError(f"the filter has {nodes} operators; the limit is {MAX_NODES}")
        return self


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
        condition.range.CopyFrom(retriever_pb2.Range(**bounds))
    elif filter_.exists is not None:
        condition.field = filter_.exists.field
        condition.exists = filter_.exists.value
    return condition


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


def _measure(filter_: Filter) -> tuple[int, int]:
    """Depth and number of operators."""
    children = [
        *(filter_.and_ or ()),
        *(filter_.or_ or ()),
        *((filter_.not_,) if filter_.not_ else ()),
    ]
    measured = [_measure(child) for child in children]
    return 1 + max((d for d, _ in measured), default=0), 1 + sum(n for _, n in measured)
