"""Checks that a request has to pass before it runs, as the metric of refusals names them."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import TypeAlias


class Check(StrEnum):
    """A check that refused a request."""

    MALFORMED = "malformed"
    HEAD_SIZE = "head_size"
    HEAD_TIME = "head_time"
    LOAD = "load"
    ORIGIN = "origin"
    KEY = "key"
    """No valid key, a scope that it lacks, or a collection that it does not allow."""
    RATE = "rate"
    BODY_SIZE = "body_size"
    BODY_TIME = "body_time"
    CONCURRENCY = "concurrency"
    """Requests in progress, and the bytes of all bodies together."""
    DEADLINE = "deadline"


CountRefusal: TypeAlias = Callable[[Check], None]
