"""State of the sources in the database.

Only the worker that owns a source may change it: every change checks that in its transaction, so
that a worker that was held up, and whose source moved to another one, changes nothing any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from raglan.database import Transactions, now_ms
from raglan.errors import Conflict
from sqlalchemy.orm import Session

from raglan_ingester.model import (
    Document,
    DocumentState,
    Item,
    ItemState,
    Source,
    SourceDocument,
)
from raglan_ingester.revisions import insert

_AT_ONCE: Final = 500


class LeaseLostError(Conflict):
    """Another worker syncs the source by now."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to sync a source."""

    source: str
    worker: str


@dataclass(frozen=True, slots=True)
class Known:
    """A document that the source has brought."""

    version: str
    digest: str
    attempts: int
    missing_ms: int | None
    state: str
    """Of the stored document; empty where there is none."""


@dataclass(frozen=True, slots=True)
class Row:
    """A document as it is submitted."""

    document_id: str
    version: str
    digest: str
    attempts: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """End of a sync."""

    next_ms: int
    error: str = ""
    cursor: str = ""
    counts: Mapping[str, int] | None = None
    """None leaves those of the sync before, as this one did not reach its end."""
    skipped: Sequence[str] = ()


class SourceStore:
    """The sources and their documents."""

    def __init__(self, database: Transactions) -> None:
        self._database = database

    # Sources

    async def all(self) -> dict[str, Source]:
        """Return every source that ever was configured, by name."""
        return await self._database.run(
            lambda session: {row.name: row for row in session.scalars(sa.select(Source))}
        )

    async def claim(self, name: str, worker: str, *, former: str, settings: str) -> Source | None:
        """Make `worker` the owner of a source; None if another one was faster.

        Args:
            name: of the source.
            worker: that is to sync it.
            former: the owner as it was read: nobody, a dead worker, or this one before a restart.
            settings: digest of the settings.
        """

        def work(session: Session) -> Source | None:
            session.execute(
                insert(session, Source)
                .values(_new(name))
                .on_conflict_do_nothing(index_elements=["name"])
            )
            claimed = session.execute(
                sa.update(Source)
                .where(Source.name == name, Source.owner == former)
                .values(
                    owner=worker,
                    settings=settings,
                    started_ms=now_ms(),
                    is_requested=False,
                    # What was synced with other settings has to be looked at again.
                    cursor=sa.case((Source.settings == settings, Source.cursor), else_=""),
                )
            )
            if not claimed.rowcount:  # type: ignore[attr-defined]
                return None
            return session.get(Source, name)

        return await self._database.run(work)

    async def finish(self, lease: Lease, outcome: Outcome) -> None:
        """Record the end of a sync and give the source up."""

        def work(session: Session) -> None:
            row = _owned(session, lease)
            now = now_ms()
            row.owner, row.finished_ms, row.next_ms = "", now, outcome.next_ms
            row.error, row.cursor = outcome.error, outcome.cursor
            row.skipped = list(outcome.skipped)
            row.failures = row.failures + 1 if outcome.error else 0
            if outcome.counts is not None:
                row.counts = dict(outcome.counts)
                row.accepts_deletions = row.accepts_deletions and row.is_requested
            if not outcome.error:
                row.succeeded_ms = now

        await self._database.run(work)

    async def release(self, lease: Lease) -> None:
        """Give a source up whose sync was interrupted: it stays due."""
        await self._database.run(
            lambda session: session.execute(
                sa.update(Source)
                .where(Source.name == lease.source, Source.owner == lease.worker)
                .values(owner="", next_ms=0)
            )
        )

    async def request(self, name: str, *, accept_deletions: bool) -> None:
        """Have a source synced now, or once more after the sync that is under way."""
        values: dict[str, Any] = {"is_requested": True}
        if accept_deletions:
            values["accepts_deletions"] = True

        def work(session: Session) -> None:
            session.execute(
                insert(session, Source)
                .values({**_new(name), **values})
                .on_conflict_do_update(index_elements=["name"], set_=values)
            )

        await self._database.run(work)

    # Their documents

    async def known(self, source: str) -> dict[tuple[str, str], Known]:
        """Return the documents of a source by (collection, id)."""
        table = SourceDocument
        query = (
            sa.select(table, _state())
            .outerjoin(Document, _IS_DOCUMENT)
            .outerjoin(Item, _IS_ITEM)
            .where(table.source == source)
        )
        return await self._database.run(
            lambda session: {
                (row.collection, row.document_id): Known(
                    row.version, row.digest, row.attempts, row.missing_ms, state or ""
                )
                for row, state in session.execute(query)
            }
        )

    async def strangers(self, source: str, collection: str) -> list[tuple[str, str]]:
        """Return (id, metadata) of documents below `source/` that the source does not know."""
        prefix = f"{source}/"
        ours = sa.select(SourceDocument.document_id).where(
            SourceDocument.source == source, SourceDocument.collection == collection
        )
        query = sa.select(Document.id, Document.metadata_json).where(
            Document.collection == collection,
            Document.id.startswith(prefix, autoescape=True),
            Document.id.not_in(ours),
        )
        return await self._database.run(
            lambda session: [(row.id, row.metadata_json) for row in session.execute(query)]
        )

    async def record(self, lease: Lease, collection: str, rows: Iterable[Row]) -> None:
        """Write what is known of documents: before they are submitted, and after it."""
        values = [
            {
                "source": lease.source,
                "collection": collection,
                "document_id": row.document_id,
                "version": row.version,
                "digest": row.digest,
                "attempts": row.attempts,
                "missing_ms": None,
            }
            for row in rows
        ]

        def work(session: Session) -> None:
            _owned(session, lease)
            added = insert(session, SourceDocument)
            statement = added.on_conflict_do_update(
                index_elements=["source", "collection", "document_id"],
                set_={
                    name: added.excluded[name]
                    for name in ("version", "digest", "attempts", "missing_ms")
                },
            )
            for at in range(0, len(values), _AT_ONCE):
                session.execute(statement, values[at : at + _AT_ONCE])

        if values:
            await self._database.run(work)

    async def mark_missing(self, lease: Lease, collection: str, ids: Sequence[str]) -> None:
        """Note since when documents are missing; those that are not named are there."""
        of_source = (
            SourceDocument.source == lease.source,
            SourceDocument.collection == collection,
        )

        def work(session: Session) -> None:
            _owned(session, lease)
            now = now_ms()
            missing = set(ids)
            noted = session.execute(
                sa.select(SourceDocument.document_id).where(
                    *of_source, SourceDocument.missing_ms.is_not(None)
                )
            ).scalars()
            back = [id_ for id_ in noted if id_ not in missing]
            for part, value, only in (
                (back, None, sa.true()),
                (list(ids), now, SourceDocument.missing_ms.is_(None)),
            ):
                for at in range(0, len(part), _AT_ONCE):
                    session.execute(
                        sa.update(SourceDocument)
                        .where(
                            *of_source,
                            only,
                            SourceDocument.document_id.in_(part[at : at + _AT_ONCE]),
                        )
                        .values(missing_ms=value)
                    )

        await self._database.run(work)

    async def forget(self, lease: Lease, collection: str, ids: Sequence[str]) -> None:
        """Forget documents that were deleted; 1,000 at most."""

        def work(session: Session) -> None:
            _owned(session, lease)
            session.execute(
                sa.delete(SourceDocument).where(
                    SourceDocument.source == lease.source,
                    SourceDocument.collection == collection,
                    SourceDocument.document_id.in_(ids),
                )
            )

        await self._database.run(work)

    async def check(self, lease: Lease) -> None:
        """Raise LeaseLostError if the source has another owner by now."""

        def work(session: Session) -> None:
            _owned(session, lease)

        await self._database.run(work)

    async def totals(self) -> dict[str, dict[str, int]]:
        """Return the number of documents of each source, by the state of the document."""
        # One expression: PostgreSQL takes two with parameters of their own for different ones.
        table, state = SourceDocument, _state()
        query = (
            sa.select(table.source, state, sa.func.count())
            .outerjoin(Document, _IS_DOCUMENT)
            .outerjoin(Item, _IS_ITEM)
            .group_by(table.source, state)
        )

        def work(session: Session) -> dict[str, dict[str, int]]:
            found: dict[str, dict[str, int]] = {}
            for source, state, count in session.execute(query):
                found.setdefault(source, {})[state or DocumentState.QUEUED] = count
            return found

        return await self._database.run(work)


_IS_DOCUMENT: Final = sa.and_(
    Document.collection == SourceDocument.collection, Document.id == SourceDocument.document_id
)
_IS_ITEM: Final = sa.and_(
    Item.job_id == Document.job_id, Item.document_id == SourceDocument.document_id
)
"""The last submission of the document."""


def _state() -> sa.ColumnElement[str]:
    """The state of a document; failed also where the version before the failed one is served."""
    has_failed = Item.state.in_((ItemState.FAILED.value, ItemState.CANCELLED.value))
    return sa.case((has_failed, DocumentState.FAILED.value), else_=Document.state)


def _owned(session: Session, lease: Lease) -> Source:
    row = session.get(Source, lease.source, with_for_update=True)
    if row is None or row.owner != lease.worker:
        raise LeaseLostError(f"The source {lease.source!r} is synced by another worker now.")
    return row


def _new(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "owner": "",
        "settings": "",
        "cursor": "",
        "is_requested": False,
        "accepts_deletions": False,
        "next_ms": 0,
        "failures": 0,
        "error": "",
        "counts": {},
        "skipped": [],
    }
