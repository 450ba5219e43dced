"""Earlier versions of documents, in collections that keep them.

The transaction that publishes a version keeps the one before as a row of its own, and forgets those
beyond the retention; then the index is told which versions are left. A document that is deleted
takes its versions along.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa
from raglan.database import Transactions
from raglan.errors import NotFound
from raglan.identifiers import shortened
from sqlalchemy.orm import Session, undefer

from raglan_ingester.labels import begin_labels
from raglan_ingester.model import Document, DocumentStructure, EarlierVersion

_DAY_MS: Final = 24 * 3600 * 1000
_EXPIRED_AT_ONCE: Final = 1000


@dataclass(frozen=True, slots=True)
class Retention:
    """How long a collection keeps earlier versions of a document."""

    max_versions: int
    max_age_days: int = 0
    """After a version was replaced; 0 for no limit."""

    def expiry_ms(self, replaced_ms: int) -> int | None:
        """Return when a version that was replaced at `replaced_ms` is to be removed."""
        return replaced_ms + self.max_age_days * _DAY_MS if self.max_age_days else None


@dataclass(frozen=True, slots=True)
class Edition:
    """Place of a version in the history of its document."""

    number: int
    """From 1."""
    valid_from_ms: int
    """When it takes the place of the one before, in milliseconds since the epoch."""
    retention: Retention

    def columns(self) -> dict[str, int]:
        """Return the columns of a document that say so."""
        return {"version": self.number, "valid_from_ms": self.valid_from_ms}


@dataclass(frozen=True, slots=True)
class Kept:
    """Versions of a document that are kept."""

    present: int
    access: tuple[str, ...]
    """Tags of the document."""
    earlier: Mapping[int, int]
    """Number -> milliseconds since the epoch at which it was replaced."""


def following(row: Document, *, is_repair: bool) -> int:
    """Return the number that the next version of a document gets; a repair makes no other one."""
    return row.version if is_repair and row.version else row.version + 1


def keep_earlier(session: Session, row: Document, edition: Edition) -> None:
    """Keep the present version of a document, which `edition` replaces, as far as is allowed."""
    if not 0 < row.version < edition.number:
        return
    parsed = session.get(DocumentStructure, (row.collection, row.id))
    shared = (
        *("collection", "valid_from_ms", "title", "text", "metadata_json", "filename"),
        *("media_type", "sha256", "size_bytes", "chunks", "fingerprint", "access"),
    )
    session.add(
        EarlierVersion(
            **{name: getattr(row, name) for name in shared},
            document_id=row.id,
            number=row.version,
            valid_to_ms=edition.valid_from_ms,
            expires_ms=edition.retention.expiry_ms(edition.valid_from_ms),
            language=parsed.language if parsed else "",
        )
    )
    session.flush()
    session.execute(
        sa.delete(EarlierVersion).where(
            *_of(row.collection, [row.id]),
            EarlierVersion.number < edition.number - edition.retention.max_versions,
        )
    )


class VersionStore:
    """Earlier versions in the database."""

    def __init__(self, database: Transactions) -> None:
        self._database = database

    async def kept(self, collection: str, ids: Sequence[str]) -> dict[str, Kept]:
        """Return the versions of those of the documents whose collection keeps any."""
        present = sa.select(Document).where(
            Document.collection == collection, Document.id.in_(ids), Document.version > 0
        )
        columns = (EarlierVersion.document_id, EarlierVersion.number, EarlierVersion.valid_to_ms)
        earlier = sa.select(*columns).where(*_of(collection, ids))

        def work(session: Session) -> dict[str, Kept]:
            rows = list(session.scalars(present))
            ends: dict[str, dict[int, int]] = {row.id: {} for row in rows}
            for id_, number, valid_to_ms in session.execute(earlier) if rows else ():
                ends[id_][number] = valid_to_ms
            return {row.id: Kept(row.version, tuple(row.access), ends[row.id]) for row in rows}

        return await self._database.run(work)

    async def earlier(self, collection: str, id_: str) -> list[EarlierVersion]:
        """Return the earlier versions of a document without their texts, the newest first."""
        query = (
            sa.select(EarlierVersion)
            .where(*_of(collection, [id_]))
            .order_by(EarlierVersion.number.desc())
        )
        return await self._database.run(lambda session: list(session.scalars(query)))

    async def get(self, collection: str, id_: str, number: int) -> EarlierVersion:
        """Return an earlier version with its text. Raises NotFound."""
        found = await self._database.run(
            lambda session: session.get(
                EarlierVersion, (collection, id_, number), options=[undefer(EarlierVersion.text)]
            )
        )
        if found is None:
            raise NotFound(f"There is no version {number} of document {shortened(id_)}.")
        return found

    async def expire(self, now_ms: int) -> None:
        """Forget versions whose time is up, and note that the index has to follow."""
        due = (
            sa.select(EarlierVersion)
            .where(EarlierVersion.expires_ms <= now_ms)
            .limit(_EXPIRED_AT_ONCE)
        )

        def work(session: Session) -> None:
            for version in session.scalars(due).all():
                begin_labels(session, version.collection, [version.document_id])
                session.delete(version)

        await self._database.run(work)

    async def leave(self, collection: str, ids: Sequence[str]) -> None:
        """Note that the index has to be told later which versions of documents are kept."""
        await self._database.run(lambda session: begin_labels(session, collection, ids))


def _of(collection: str, ids: Sequence[str]) -> tuple[sa.ColumnElement[bool], ...]:
    return EarlierVersion.collection == collection, EarlierVersion.document_id.in_(ids)
