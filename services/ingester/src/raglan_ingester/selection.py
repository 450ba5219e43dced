"""Documents by filter: the filter language of searches, evaluated over rows of the database."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from raglan import access_tags
from raglan.errors import InvalidInput
from raglan.filtering import terms
from raglan.filtering.clauses import Clause
from raglan.filtering.matching import matches

from raglan_ingester.documents import DocumentStore
from raglan_ingester.model import Document

_READ_AT_ONCE: Final = 1_000
SCANNED: Final = 20_000
"""Rows that one call looks at, about a second's work; a cursor leads to the rest."""


@dataclass(frozen=True, slots=True)
class Page:
    """Documents that pass, by id."""

    rows: Sequence[Document]
    next_after: str
    """Id from which to go on; empty once every document was looked at."""
    scanned: int


@dataclass(frozen=True, slots=True)
class Counted:
    """Documents that pass, among the first `SCANNED` ones of a collection."""

    passing: int
    reached: int
    """Documents that the caller reaches, whether they pass or not."""
    is_exact: bool
    """True once every document was looked at."""
    ids: list[str]
    """Of the first ones that pass."""


class Selection:
    """Selects documents that the current caller reaches."""

    def __init__(self, documents: DocumentStore) -> None:
        self._documents = documents

    async def page(self, collection: str, where: Clause | None, *, limit: int, after: str) -> Page:
        """Return up to `limit` documents that pass, after the id `after`.

        Fewer than `limit`, even none, are returned when `SCANNED` rows were looked at.
        """
        found: list[Document] = []
        scanned = 0
        while True:
            # One more than needed tells whether there are more.
            size = min(_READ_AT_ONCE, limit + 1) if where is None else _READ_AT_ONCE
            rows = await self._documents.page(collection, limit=size, after=after)
            scanned += len(rows)
            for row in await asyncio.to_thread(_passing, rows, where):
                if len(found) == limit:
                    return Page(found, found[-1].id, scanned)
                found.append(row)
            if len(rows) < size:
                return Page(found, "", scanned)
            after = rows[-1].id
            if scanned >= SCANNED:
                return Page(found, after, scanned)

    async def count(self, collection: str, where: Clause, *, ids: int) -> Counted:
        """Count the documents that pass, and name the first `ids` of them."""
        passing = reached = scanned = 0
        first: list[str] = []
        after = ""
        while True:
            rows = await self._documents.page(collection, limit=_READ_AT_ONCE, after=after)
            scanned += len(rows)
            reached += sum(access_tags.allows(row.access) for row in rows)
            found = await asyncio.to_thread(_passing, rows, where)
            passing += len(found)
            first += [row.id for row in found[: ids - len(first)]]
            is_exact = len(rows) < _READ_AT_ONCE
            if is_exact or scanned >= SCANNED:
                return Counted(passing, reached, is_exact, first)
            after = rows[-1].id


def _passing(rows: Sequence[Document], where: Clause | None) -> list[Document]:
    return [row for row in rows if access_tags.allows(row.access) and passes(row, where)]


def passes(row: Document, where: Clause | None) -> bool:
    """Return whether a document passes a filter, as its chunks do in the index."""
    if where is None:
        return True
    created = datetime.fromtimestamp(row.created_ms / 1e3, UTC)
    own = {
        "title": row.title,
        "filename": row.filename,
        "created_at": created.isoformat(timespec="milliseconds"),
    }
    try:
        indexed = terms.index(row.metadata_json, document_id=row.id, also=own)
    except InvalidInput:  # of a version with other limits
        return False
    return matches(where, frozenset(indexed.terms), indexed.numbers)
