"""The checks of `raglan verify`: what is looked at, and what the outcome means."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

Row = dict[str, Any]
"""A process, as `/v1/status` shows it."""

SERVING: Final = "serving"


class Result(StrEnum):
    """Outcome of a check."""

    OK = "ok"
    FAILED = "failed"
    SKIPPED = "skipped"
    """There is nothing to look at; `reason` says why."""


@dataclass(frozen=True, slots=True)
class Check:
    """One check and its outcome."""

    name: str
    result: Result
    reason: str
    """A sentence: what was found, what is wrong, or why nothing was looked at."""
    remedy: str = ""
    """The way out of a failure, in a sentence."""
    ms: float = 0.0
    """Its duration in milliseconds; 0 for what `/v1/status` had told already."""

    def document(self) -> dict[str, Any]:
        """The form that `--json` prints."""
        return {
            "name": self.name,
            "result": self.result.value,
            "reason": self.reason,
            "remedy": self.remedy or None,
            "ms": round(self.ms, 1),
        }


def passed(name: str, reason: str) -> Check:
    """A check that found all as it should be."""
    return Check(name, Result.OK, reason)


def failed(name: str, reason: str, remedy: str) -> Check:
    """A check that found a fault."""
    return Check(name, Result.FAILED, reason, remedy)


def skipped(name: str, reason: str) -> Check:
    """A check that has nothing to look at."""
    return Check(name, Result.SKIPPED, reason)
