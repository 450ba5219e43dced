"""Documents in the database: claimed by the job that submitted them last, ready when indexed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from raglan import access_tags
from raglan.database import Transactions
from raglan.errors import Forbidden, NotFound
from raglan.identifiers import shortened
from sqlalchemy.orm import Session, undefer

from raglan_ingester.labels import Labels, begin_labels, submitted_labels
from raglan_ingester.model import (
    Document,
    DocumentState,
    DocumentStructure,
    Item,
    ItemState,
    Job,
    JobState,
    JobWarning,
    UnfinishedLabel,
)
from raglan_ingester.revisions import begin_deletions, insert
from raglan_ingester.versions import Edition, keep_earlier

_AT_ONCE: Final = 500
"""Rows a statement names; SQLite takes 32,766 parameters."""

FORGOTTEN: Final = {"title": "", "metadata_json": "{}", "filename": "", "edits": []}
"""Fields of an item that are cleared when nothing will be run with it."""

_REFUSED: Final = (
    "The index refused the newest metadata and access tags; searches go by those of before. {}"
)
NAMES_ITS_BLOB: Final = (ItemState.QUEUED, ItemState.FAILED, ItemState.CANCELLED)
"""Items that may still be run, and then need their bytes."""


@dataclass(frozen=True, slots=True)
class Version:
    """A parsed document, to be indexed."""

    item: Item
    title: str
    text: str
    chunks: int
    fingerprint: str
    metadata_json: str
    """As submitted, completed with the document's own; without edits."""
    labels: Labels
    """As they are on its chunks."""
    language: str = ""
    warnings: Sequence[str] = ()
    structure: bytes = b""
    edition: Edition | None = None
    """Place in the document's history; None where the collection keeps no versions."""


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """A document with its text and what parsing found out about it."""

    row: Document
    language: str = ""
    warnings: Sequence[str] = ()


class DocumentStore:
    """The documents of all collections."""

    def __init__(self, database: Transactions) -> None:
        self._database = database

    async def page(self, collection: str, *, limit: int, after: str) -> list[Document]:
        """By id, without their texts."""
        query = (
            sa.select(Document)
            .where(Document.collection == collection, Document.id > after)
            .order_by(Document.id)
            .limit(limit)
        )
        return await self._database.run(lambda session: list(session.scalars(query)))

    async def get(self, collection: str, document_id: str) -> StoredDocument:
        """With its text. Raises NotFound."""

        def work(session: Session) -> StoredDocument:
            key = (collection, document_id)
            found = session.get(Document, key, options=[undefer(Document.text)])
            if found is None:
                raise NotFound(f"There is no document {shortened(document_id)} in {collection!r}.")
            parsed = session.get(DocumentStructure, key) or DocumentStructure(
                language="", warnings=[]
            )
            mark = session.get(UnfinishedLabel, key)
            refused = [_REFUSED.format(mark.error)] if mark and mark.error else []
            return StoredDocument(found, parsed.language, [*parsed.warnings, *refused])

        return await self._database.run(work)

    async def unreached(self, collection: str, ids: Sequence[str]) -> set[str]:
        """Return those of the documents that exist and that the caller does not reach."""
        held = access_tags.current()
        query = sa.select(Document.id, Document.access).where(
            Document.collection == collection, Document.id.in_(ids)
        )
        return await self._database.run(
            lambda session: {
                row.id
                for row in session.execute(query)
                if not access_tags.reaches(held, row.access)
            }
        )

    async def holds_unreached(self, collection: str) -> bool:
        """Return whether the collection has a document that the caller does not reach."""
        if (held := access_tags.current()) is None:
            return False
        sets = sa.select(sa.cast(Document.access, sa.Text)).where(Document.collection == collection)
        return await self._database.run(
            lambda session: any(
                not access_tags.reaches(held, json.loads(tags))
                for tags in session.scalars(sets.distinct())
            )
        )

    async def claimed(self, job: Job, ids: Sequence[str]) -> dict[str, Document]:
        """Return the documents that this job may write, by id."""
        query = sa.select(Document).where(
            Document.collection == job.collection,
            Document.id.in_(ids),
            Document.job_id == job.id,
        )
        return await self._database.run(
            lambda session: {row.id: row for row in session.scalars(query)}
        )

    async def items(self, job: Job, ids: Sequence[str]) -> dict[str, Item]:
        """Return the submissions of documents in this job, by id, as they are now."""
        query = sa.select(Item).where(Item.job_id == job.id, Item.document_id.in_(ids))
        return await self._database.run(
            lambda session: {item.document_id: item for item in session.scalars(query)}
        )

    async def states(self, collection: str, ids: Sequence[str]) -> dict[str, DocumentState]:
        """Return the state of each document; one that was deleted has none."""
        query = sa.select(Document.id, Document.state).where(
            Document.collection == collection, Document.id.in_(ids)
        )
        return await self._database.run(
            lambda session: {row.id: DocumentState(row.state) for row in session.execute(query)}
        )

    async def publish(self, job: Job, versions: Sequence[Version]) -> set[str]:
        """Switch the documents to these versions and mark their items done, all or nothing.

        Returns:
            The ids still claimed.
        """

        def work(session: Session) -> set[str]:
            held = _update(session, job, versions)
            _store_structures(session, job, [v for v in versions if v.item.document_id in held])
            rows = [
                {"job_id": job.id, "ordinal": v.item.ordinal, "state": ItemState.DONE,
                 "chunks": v.chunks}
                for v in versions
                if v.item.document_id in held
            ]  # fmt: skip
            if rows:
                session.execute(sa.update(Item), rows)
            return held

        return await self._database.run(work)

    async def ready(self, job: Job, after: str, limit: int) -> list[Document]:
        """The ready documents that this job holds, by id, without their texts."""
        query = (
            sa.select(Document)
            .where(
                Document.collection == job.collection,
                Document.job_id == job.id,
                Document.state == DocumentState.READY,
                Document.id > after,
            )
            .order_by(Document.id)
            .limit(limit)
        )
        return await self._database.run(lambda session: list(session.scalars(query)))

    async def collections(self) -> list[str]:
        """Every collection that has documents."""
        query = sa.select(Document.collection).distinct().order_by(Document.collection)
        return await self._database.run(lambda session: list(session.scalars(query)))

    async def settled(self, collection: str, after: str, limit: int) -> list[Document]:
        """Ready documents that no unfinished job is about to write, by id."""
        unfinished = sa.select(Job.id).where(Job.state.in_([JobState.QUEUED, JobState.RUNNING]))
        query = (
            sa.select(Document)
            .where(
                Document.collection == collection,
                Document.state == DocumentState.READY,
                Document.job_id.not_in(unfinished),
                Document.id > after,
            )
            .order_by(Document.id)
            .limit(limit)
        )
        return await self._database.run(lambda session: list(session.scalars(query)))

    async def delete(self, collection: str, document_id: str) -> str | None:
        """Forget a document; the hash of its bytes, or None when there was none."""
        named = Document.id == document_id
        gone = await self._database.run(lambda session: delete_rows(session, collection, named))
        return gone.get(document_id)

    async def delete_some(self, collection: str, limit: int) -> list[tuple[str, str]]:
        """Forget up to `limit` documents of a collection: (id, hash of the bytes) of each."""

        def work(session: Session) -> list[tuple[str, str]]:
            query = sa.select(Document.id, Document.sha256).where(Document.collection == collection)
            ids = [row.id for row in session.execute(query.limit(limit))]
            return list(delete_rows(session, collection, Document.id.in_(ids)).items())

        return await self._database.run(work)

    async def unnamed_blobs(self, hashes: list[str]) -> list[str]:
        """Return those of `hashes` that no document and no unfinished item needs."""

        def work(session: Session) -> list[str]:
            needed: set[str] = set()
            for part in _parts(hashes):
                needed.update(
                    session.scalars(sa.select(Document.sha256).where(Document.sha256.in_(part)))
                )
                needed.update(
                    session.scalars(
                        sa.select(Item.sha256)
                        .join(Job, Job.id == Item.job_id)
                        .join(
                            Document,
                            sa.and_(
                                Document.collection == Job.collection,
                                Document.id == Item.document_id,
                                Document.job_id == Job.id,
                            ),
                        )
                        .where(Item.sha256.in_(part), Item.state.in_(NAMES_ITS_BLOB))
                    )
                )
            return [sha256 for sha256 in hashes if sha256 not in needed]

        return await self._database.run(work)


def claim(
    session: Session,
    job: Job,
    items: Iterable[Item],
    held: access_tags.Held = None,
    *,
    is_repair: bool = False,
) -> None:
    """Make `job` the only one that may write these documents; add those that are new.

    Args:
        session: of the caller's transaction.
        job: the job.
        items: what it is to ingest.
        held: access tags of who submits it; None reaches every document.
        is_repair: whether to forget that they are indexed, so that they are indexed anew.

    Raises:
        Forbidden: one exists whose access tags the caller does not hold.
    """
    rows = [_new_row(job, item) for item in items]
    _require_reach(session, job.collection, [row["id"] for row in rows], held)
    was_failed = Document.state == DocumentState.FAILED
    statement = insert(session, Document).on_conflict_do_update(
        index_elements=["collection", "id"],
        set_={
            "job_id": job.id,
            "state": sa.case((was_failed, DocumentState.QUEUED), else_=Document.state),
            "error": "",
            **({"fingerprint": ""} if is_repair else {"submission": job.number}),
        },
    )
    for part in _parts(rows):
        session.execute(statement, part)


def _require_reach(
    session: Session, collection: str, ids: Sequence[str], held: access_tags.Held
) -> None:
    for part in _parts(ids):
        query = sa.select(Document.id, Document.access).where(
            Document.collection == collection, Document.id.in_(part)
        )
        for row in session.execute(query):
            if not access_tags.reaches(held, row.access):
                raise Forbidden(
                    f"The key holds none of the access tags of document {shortened(row.id)}, so it "
                    "cannot replace it; give the new one another id."
                )


def delete_rows(
    session: Session, collection: str, *where: sa.ColumnElement[bool]
) -> dict[str, str]:
    """Forget the documents of a collection that `where` names; return the hash of each by id.

    One statement decides and deletes: a submission cannot come between.
    """
    statement = sa.delete(Document).where(Document.collection == collection, *where)
    statement = statement.execution_options(synchronize_session=False)
    gone = session.execute(statement.returning(Document.id, Document.sha256))
    hashes = {row.id: row.sha256 for row in gone}
    begin_deletions(session, collection, list(hashes))
    _forget_submissions(session, collection, list(hashes))
    return hashes


def _forget_submissions(session: Session, collection: str, ids: Sequence[str]) -> None:
    """Remove what jobs remember of deleted documents: only that they were submitted stays."""
    jobs = sa.select(Job.id).where(Job.collection == collection)
    session.execute(
        sa.update(Item)
        .where(Item.job_id.in_(jobs), Item.document_id.in_(ids))
        .values(
            {**FORGOTTEN, "error": sa.case((Item.error == "", ""), else_="It was deleted later.")}
        )
        .execution_options(synchronize_session=False)
    )
    session.execute(
        sa.delete(JobWarning).where(JobWarning.job_id.in_(jobs), JobWarning.document_id.in_(ids))
    )


def _new_row(job: Job, item: Item) -> dict[str, Any]:
    return {
        "collection": job.collection,
        "id": item.document_id,
        "job_id": job.id,
        "state": DocumentState.QUEUED,
        "error": "",
        "title": item.title,
        "text": "",
        "metadata_json": item.metadata_json,
        "filename": item.filename,
        "media_type": item.media_type,
        "sha256": item.sha256,
        "size_bytes": item.size_bytes,
        "chunks": 0,
        "fingerprint": "",
        "access": item.access or [],
        "created_ms": job.created_ms,
        "submission": job.number,
    }


def _values_of(version: Version) -> dict[str, Any]:
    item = version.item
    return {
        "state": DocumentState.READY,
        "error": "",
        "title": version.title,
        "text": version.text,
        "filename": item.filename,
        "media_type": item.media_type,
        "sha256": item.sha256,
        "size_bytes": item.size_bytes,
        "chunks": version.chunks,
        "fingerprint": version.fingerprint,
        **(version.edition.columns() if version.edition else {}),
    }


def _store_structures(session: Session, job: Job, versions: Sequence[Version]) -> None:
    """Replace what was known of these documents' structure, and this job's warnings about them."""
    for version in versions:
        id_ = version.item.document_id
        session.merge(
            DocumentStructure(
                collection=job.collection,
                document_id=id_,
                language=version.language,
                warnings=list(version.warnings),
                structure=version.structure,
            )
        )
        add_warnings(session, job.id, id_, version.warnings)


def add_warnings(session: Session, job_id: str, document_id: str, messages: Sequence[str]) -> None:
    """Replace the warnings of a job about a document, or about itself (an empty id)."""
    about = (JobWarning.job_id == job_id, JobWarning.document_id == document_id)
    session.execute(sa.delete(JobWarning).where(*about))
    session.add_all(
        JobWarning(job_id=job_id, document_id=document_id, ordinal=ordinal, message=message)
        for ordinal, message in enumerate(messages)
    )


def _update(session: Session, job: Job, versions: Sequence[Version]) -> set[str]:
    held = set()
    for version in versions:
        id_ = version.item.document_id
        row = session.get(Document, (job.collection, id_), with_for_update=True)
        if row is None or row.job_id != job.id:
            continue
        if version.edition is not None:
            keep_earlier(session, row, version.edition)
        for name, value in _values_of(version).items():
            setattr(row, name, value)
        item = session.get_one(Item, (job.id, version.item.ordinal))
        labels = submitted_labels(item, row, completed_json=version.metadata_json)
        if labels != version.labels:  # edited meanwhile
            begin_labels(session, job.collection, [id_])
        row.metadata_json, row.access = labels.metadata_json, [*labels.access]
        row.edited_ms = row.edited_ms if item.edits else 0
        held.add(id_)
    return held


def _parts(rows: Sequence[Any]) -> Iterable[Sequence[Any]]:
    return (rows[at : at + _AT_ONCE] for at in range(0, len(rows), _AT_ONCE))
