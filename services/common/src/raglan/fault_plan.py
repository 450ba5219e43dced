"""Fault plans (RAGLAN_FAULTS): calls that fail, the kind of failure and its rate.

A rehearsal of failures needs no code of its own in the services: the plan is read here, and
`raglan.rpc.faults` carries it out at the border where calls leave a process.
"""

from __future__ import annotations

import json
import random
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, ValidationError
from pydantic import model_validator as model_check

VARIABLE: Final = "RAGLAN_FAULTS"
"""JSON, or `@path` of a file that holds it and may change while the process runs."""

_SEED: Final = "seed"
_SHOWN_PROBLEMS: Final = 3
Status = Literal[
    "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE",
    "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
]  # fmt: skip


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Range(_Strict):
    """Milliseconds, drawn evenly between the two."""

    min: NonNegativeFloat
    max: NonNegativeFloat

    @model_check(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min is {self.min:g}, more than max, {self.max:g}")
        return self


class Fault(_Strict):
    """The effect on a selected call: its latency first, then the failure."""

    latency_ms: NonNegativeFloat | Range | None = None
    """Added before the call leaves."""

    error: Status | None = None
    """Answered in the service's place."""

    stall: bool = False
    """Held until the caller cancels or the deadline passes."""

    cut_after: Annotated[int, Field(ge=0)] | None = None
    """Messages of a reply stream that still arrive; then it breaks as a lost connection does."""

    percent: Annotated[float, Field(gt=0, le=100)] = 100
    """Share of the calls that are hit."""

    @model_check(mode="after")
    def _does_something(self) -> Self:
        if self.latency_ms is None and self.error is None and self.cut_after is None:
            if not self.stall:
                raise ValueError("name at least one of latency_ms, error, stall and cut_after")
        elif self.stall and (self.error is not None or self.cut_after is not None):
            raise ValueError("a stalled call meets neither error nor cut_after")
        return self

    def delay_s(self, chance: random.Random) -> float:
        """Seconds to wait before this call."""
        if isinstance(self.latency_ms, Range):
            return chance.uniform(self.latency_ms.min, self.latency_ms.max) / 1e3
        return (self.latency_ms or 0.0) / 1e3


class Plan(_Strict):
    """Faults by target: "embedder", or "embedder@10.0.0.1:7101" for one replica."""

    faults: Mapping[str, Fault]
    seed: int

    def fault(self, target: str, address: str) -> Fault | None:
        """Return the fault for calls to `target` at `address`; one for the address wins."""
        return self.faults.get(f"{target}@{address}") or self.faults.get(target)

    def chance(self, target: str, address: str) -> random.Random:
        """The dice of one endpoint: the same seed hits the same calls of it again."""
        return random.Random(f"{self.seed}:{target}:{address}")  # noqa: S311 - no secret


def read(value: str) -> str:
    """The JSON that `value` of the variable is, or is the `@path` of.

    Raises:
        ValueError: the file cannot be read.
    """
    if not value.startswith("@"):
        return value
    try:
        return Path(value[1:]).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{VARIABLE}: the file {value[1:]} cannot be read: {error}.") from None


def parse(text: str) -> Plan:
    """The plan in `text`; without "seed", a random one, so that a run can be repeated.

    Raises:
        ValueError: one sentence that says what is wrong where.
    """
    try:
        document = json.loads(text)
    except ValueError as error:
        raise ValueError(
            f'{VARIABLE} is no JSON ({error}). Example: {{"embedder": {{"latency_ms": 500}}}}.'
        ) from None
    if not isinstance(document, dict):
        raise ValueError(f'{VARIABLE} must be an object such as {{"embedder": {{"stall": true}}}}.')
    seed = document.pop(_SEED, None)
    if seed is None:
        seed = random.randrange(2**31)  # noqa: S311 - no secret
    try:
        return Plan.model_validate({"faults": document, "seed": seed})
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False)[:_SHOWN_PROBLEMS]
        raise ValueError(f"{VARIABLE}: {'; '.join(_sentence(each) for each in found)}.") from None


def problem(environ: Mapping[str, str], targets: Collection[str]) -> str | None:
    """Describe the error in the variable in one sentence, or return None."""
    if not (value := environ.get(VARIABLE)):
        return None
    try:
        plan = parse(read(value))
    except ValueError as error:
        return str(error)
    strangers = sorted({key.partition("@")[0] for key in plan.faults} - set(targets))
    if strangers:
        return f"{VARIABLE}: there is no {', '.join(strangers)}; there are {', '.join(targets)}."
    return None


def _sentence(problem: object) -> str:
    assert isinstance(problem, dict)
    # The alternatives of a union follow the field's name; they mean nothing to a reader.
    where = [str(part) for part in problem["loc"] if part != "faults"][:2]
    message = problem["msg"].removeprefix("Value error, ")
    shown = "" if isinstance(problem["input"], dict) else f" (got {problem['input']!r})"
    return f"{'.'.join(where)}: {message}{shown}"
