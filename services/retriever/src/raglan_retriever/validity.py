"""Versions of documents in the index: which chunks were a document's text at which time.

Chunks of a collection that keeps versions carry the number of theirs and the time at which it took
the place of the one before; those of earlier versions also the time at which they gave way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from raglan import access_tags
from raglan.errors import Conflict
from raglan.filtering.clauses import All, Clause, Not, Numbers, Terms

from raglan_retriever.collection import Collection

_Where = TypeVar("_Where", Clause, Clause | None)

VERSION: Final = "version"
FROM: Final = "%valid_from"
TO: Final = "%valid_to"
"""Keys of numbers: a quoted path never begins like that (`raglan.filtering.terms.number_key`)."""

_EARLIER: Final = "-"
"""Term of every chunk of an earlier version. Terms of metadata begin with `[` or `#`, those of
tenants with `@`, of access tags with `+`, of versions with `=`."""


@dataclass(frozen=True, slots=True)
class Version:
    """Of which version of its document a chunk is. Times in milliseconds since 1970."""

    number: int
    valid_from_ms: int
    valid_to_ms: int | None = None
    """None for the present version."""
    own_access: tuple[str, ...] = ()
    """Of an earlier version: its access tags when it was replaced."""

    @classmethod
    def from_payload(cls, stored: Mapping[str, Any] | None) -> Version | None:
        """Read what `payload` returned."""
        if not stored:
            return None
        return cls(**{**stored, "own_access": tuple(stored["own_access"])})

    def payload(self) -> dict[str, Any]:
        """Return it as stores keep it."""
        return {
            "number": self.number,
            "valid_from_ms": self.valid_from_ms,
            "valid_to_ms": self.valid_to_ms,
            "own_access": list(self.own_access),
        }

    @property
    def is_earlier(self) -> bool:
        """Return whether another version has taken its place."""
        return self.valid_to_ms is not None

    def terms(self) -> list[str]:
        """Return the terms that searches find its chunks by."""
        return [number_term(self.number), *([_EARLIER] if self.is_earlier else ())]

    def numbers(self) -> dict[str, list[float]]:
        """Return the numbers that searches find its chunks by."""
        ends = {} if self.valid_to_ms is None else {TO: [float(self.valid_to_ms)]}
        return {FROM: [float(self.valid_from_ms)], **ends}

    def replaced(self, at_ms: int, access: tuple[str, ...]) -> Version:
        """Return it as an earlier version, which had these access tags until `at_ms`."""
        if self.is_earlier:
            return self
        return Version(self.number, self.valid_from_ms, at_ms, access)

    def access(self, document: tuple[str, ...]) -> tuple[str, ...]:
        """Return the access tags of its chunks where the document has the tags `document`."""
        return access_tags.narrowed(self.own_access, document) if self.is_earlier else document


@dataclass(frozen=True, slots=True)
class KeptVersions:
    """The versions of a document that are kept."""

    present: int
    """Number of the present one."""
    access: tuple[str, ...]
    """Access tags of the document."""
    earlier: Mapping[int, int]
    """Number -> milliseconds since 1970 at which the version gave way."""

    def terms(self) -> Terms:
        """Return the terms of the chunks of all of them."""
        return Terms(tuple(map(number_term, (self.present, *self.earlier))))


def number_term(number: int) -> str:
    """Return the term of the chunks of a version."""
    return f"={number}"


EARLIER: Final = Terms((_EARLIER,))
PRESENT: Final = Not(EARLIER)


def valid(collection: Collection, as_of_ms: int | None, where: _Where) -> Clause | _Where:
    """Return `where`, narrowed to the versions that were present at a time.

    Args:
        collection: that is searched.
        as_of_ms: the time, in milliseconds since 1970; None for the present.
        where: what else has to hold.

    Raises:
        Conflict: the collection keeps no versions, and a time is given.
    """
    if collection.versions is None:
        if as_of_ms is None:
            return where
        raise Conflict(
            f"Collection {collection.name!r} keeps no versions of its documents, so it cannot be "
            'searched as of a time; make one with "versions": {}, and search that.'
        )
    clause: Clause = PRESENT
    if as_of_ms is not None:
        clause = All((Not(Numbers(FROM, gt=as_of_ms)), Not(Numbers(TO, lte=as_of_ms))))
    return clause if where is None else All((clause, where))
