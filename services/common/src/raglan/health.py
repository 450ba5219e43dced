"""Health of a started service, as gRPC health and Info report it."""

from __future__ import annotations

from enum import Enum


class Health(Enum):
    """By forward progress: idle is healthy, work without results is not."""

    SERVING = "serving"

    STALLED = "stalled"
    """Nothing has finished for too long: NOT_SERVING until something does."""

    AWAY = "away"
    """A server that this process only passes work on to cannot be reached: NOT_SERVING, and a
    restart of this process would not help."""

    DEAD = "dead"
    """It never will again: NOT_SERVING, and the process ends."""
