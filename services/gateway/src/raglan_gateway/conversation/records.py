"""Records that the statements over kept answers take and return."""

from __future__ import annotations

from dataclasses import dataclass

DocumentKey = tuple[str, bytes]
"""A document that an answer was made of: its collection, and the digest of its id."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose rows are read and written; nobody else's are found."""

    tenant: str
    caller: str


@dataclass(frozen=True, slots=True)
class NewAnswer:
    """An answer to keep."""

    owner: Owner
    id: str
    session_id: str | None
    created_ms: int
    question: str
    answer: str
    record: bytes
    """JSON of request and reply."""
    began_ms: int
    """When its request began, before anything was read for it."""
    sources: frozenset[DocumentKey] = frozenset()
    """Of its passages and of its history."""


@dataclass(frozen=True, slots=True)
class History:
    """Questions of a session with their answers, oldest first."""

    turns: list[tuple[str, str]]
    sources: frozenset[DocumentKey]


@dataclass(frozen=True, slots=True)
class OpenChange:
    """A change of documents that is not known to have ended."""

    id: str
    tenant: str
    collection: str
    job_id: str
    """Empty where none is known."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits of what is kept; all but the age are of each caller."""

    age_ms: int
    answers: int
    bytes: int
    sessions: int
