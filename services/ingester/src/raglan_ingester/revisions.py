"""Index revision of each collection, for the time while the retriever cannot be asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from raglan.database import Transactions
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from raglan_ingester.model import ATTEMPTS, IndexRevision, UnfinishedDeletion, UnfinishedLabel


@dataclass(frozen=True, slots=True)
class KnownRevisions:
    """Revisions by collection, and collections of which the index holds documents of before."""

    revisions: dict[str, int]
    unfinished: list[str]


class RevisionStore:
    """Revisions in the database, so that every ingester on it knows them."""

    def __init__(self, database: Transactions) -> None:
        self._database = database

    async def record(self, collection: str, revision: int) -> None:
        """Remember the revision that a change led to.

        Args:
            collection: Name of the collection.
            revision: As the retriever returned it; 0 where it is older than revisions. That the
                collection has changed is recorded all the same, as one above what was known.
        """

        def work(session: Session) -> None:
            known = IndexRevision.revision
            if not revision:
                unchanged = IndexRevision.collection == collection
                session.execute(
                    sa.update(IndexRevision).where(unchanged).values(revision=known + 1)
                )
                return
            newest = sa.case((known < revision, revision), else_=known)
            session.execute(
                insert(session, IndexRevision)
                .values(collection=collection, revision=revision)
                .on_conflict_do_update(index_elements=["collection"], set_={"revision": newest})
            )

        await self._database.run(work)

    async def known(self, collections: Sequence[str]) -> KnownRevisions:
        """The revisions recorded of these collections."""
        rows = sa.select(IndexRevision).where(IndexRevision.collection.in_(collections))
        unfinished = sa.union(
            *(
                sa.select(table.collection).where(table.collection.in_(collections), is_tried)
                for table, is_tried in (
                    (UnfinishedDeletion, sa.true()),
                    # What is set aside would keep a change from its end for ever.
                    (UnfinishedLabel, UnfinishedLabel.attempts < ATTEMPTS),
                )
            )
        )
        return await self._database.run(
            lambda session: KnownRevisions(
                {row.collection: row.revision for row in session.scalars(rows)},
                list(session.scalars(unfinished)),
            )
        )

    async def unfinished(self) -> list[str]:
        """Return the collections with unfinished deletions."""
        query = sa.select(UnfinishedDeletion.collection).distinct()
        return await self._database.run(lambda session: list(session.scalars(query)))

    async def deletions(self, collection: str, limit: int) -> list[str]:
        """Return up to `limit` documents whose deletion is unfinished."""
        query = (
            sa.select(UnfinishedDeletion.document_id)
            .where(UnfinishedDeletion.collection == collection)
            .limit(limit)
        )
        return await self._database.run(lambda session: list(session.scalars(query)))

    async def finish(self, collection: str, ids: Sequence[str]) -> None:
        """The index holds nothing any more of these deleted documents."""
        done = sa.delete(UnfinishedDeletion).where(
            UnfinishedDeletion.collection == collection, UnfinishedDeletion.document_id.in_(ids)
        )
        await self._database.run(lambda session: session.execute(done))


def begin_deletions(session: Session, collection: str, ids: Sequence[str]) -> None:
    """Note, in the transaction that forgets documents, that their chunks have to go as well."""
    if ids:
        session.execute(
            insert(session, UnfinishedDeletion).on_conflict_do_nothing(),
            [{"collection": collection, "document_id": id_} for id_ in ids],
        )


def insert(session: Session, table: Any) -> Any:
    """An `INSERT` of the session's dialect, which can say what to do about rows that exist."""
    is_postgresql = session.get_bind().dialect.name == "postgresql"
    return (postgresql.insert if is_postgresql else sqlite.insert)(table)
