"""Fields of requests that prefer some passages to others."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Annotated

from pydantic import Field, model_validator

from raglan_gateway.api.filters import FieldName, Scalar
from raglan_gateway.api.strict import Strict
from raglan_gateway.preferences import Boost as Preference


class Boost(Strict):
    """A preference for passages by their metadata, with either `value` or `half_life_days`."""

    field: FieldName
    weight: Annotated[float, Field(ge=-1, le=1)] = 0.2
    """Worth of the boost: 1 is the way from the last place to the first of the passages found,
    0.2 a fifth of it. Below 0, passages are lowered."""
    value: Scalar | None = None
    """Passages whose field has this value, or holds it, get the weight."""
    half_life_days: Annotated[float, Field(gt=0, le=36_500)] | None = None
    """Passages get the weight by the date in their field: all of it today and later, half of it
    for one that is so many days old."""

    @model_validator(mode="after")
    def _check_kind(self) -> Boost:
        if (self.value is None) == (self.half_life_days is None):
            raise ValueError("give either value or half_life_days")
        return self


class WithPreferences(Strict):
    """A request that may prefer some passages to others of the same relevance."""

    boosts: Annotated[list[Boost], Field(max_length=8, fail_fast=True)] = Field(
        default_factory=list
    )
    """Preferences for passages by their metadata, such as newer ones. Applied after the reranker;
    passages that hold an identifier of the question stay first."""
    diversity: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share by which likeness to better passages counts against one: 0 orders by relevance alone,
    about 0.3 leaves out what repeats."""


def preferences(boosts: Iterable[Boost]) -> tuple[Preference, ...]:
    """Return boosts as the pipeline takes them."""
    return tuple(
        Preference(
            each.field,
            each.weight,
            "" if each.value is None else json.dumps(each.value),
            each.half_life_days or 0.0,
        )
        for each in boosts
    )
