"""Versions of documents in requests: which are kept, and as of which time is searched."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field
from raglan.moments import moment_of

from raglan_gateway.api.strict import Strict
from raglan_gateway.api.text import PlainText


class KeptVersions(Strict):
    """Earlier versions of documents that a collection keeps. Fixed when it is made."""

    max_versions: Annotated[int, Field(ge=1, le=1_000)] = 100
    """Earlier versions of a document; the oldest give way."""
    max_age_days: Annotated[int, Field(ge=1, le=36_500)] | None = None
    """Days after a version was replaced; null for no limit."""


def _check_moment(text: str) -> str:
    if moment_of(text) is None:
        raise ValueError("use a date or time as RFC 3339 has it, such as 2026-11-28T12:00:00Z")
    return text


Moment = Annotated[
    PlainText,
    Field(max_length=40, examples=["2026-11-28T12:00:00Z"]),
    AfterValidator(_check_moment),
]
"""A date or time (RFC 3339); a date is its midnight, a time without an offset is UTC."""


def milliseconds(moment: str | None) -> int | None:
    """Return a `Moment` in whole milliseconds since 1970; None for None."""
    found = moment_of(moment) if moment else None
    return None if found is None else int(found.timestamp() * 1_000)
