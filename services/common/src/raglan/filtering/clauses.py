"""Filters as both stores understand them: five kinds of clause over terms and numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Terms:
    """Holds at least one of these terms (`raglan.filtering.terms.term`)."""

    any_of: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Numbers:
    """Has a number at `key` (`raglan.filtering.terms.number_key`) within all bounds given."""

    key: str
    gt: float | None = None
    gte: float | None = None
    lt: float | None = None
    lte: float | None = None


@dataclass(frozen=True, slots=True)
class Ids:
    """Is one of these points."""

    any_of: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class All:
    """Each clause holds. At least one clause."""

    clauses: tuple[Clause, ...]


@dataclass(frozen=True, slots=True)
class Any:
    """One clause or more holds. At least one clause."""

    clauses: tuple[Clause, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The clause does not hold."""

    clause: Clause


Clause = Terms | Numbers | Ids | All | Any | Not
