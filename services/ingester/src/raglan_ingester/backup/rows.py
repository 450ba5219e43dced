"""Rows of the database as JSON, and back.

A column that the reader does not know is left out, one that the backup lacks has its default: rows
of an earlier version fit into a later schema, as long as no column changes its meaning.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import sqlalchemy as sa
from raglan.database import Transactions
from raglan.errors import InvalidInput
from raglan.v1 import backup_pb2
from sqlalchemy.orm import Session, undefer
from sqlalchemy.orm.interfaces import LoaderOption

from raglan_ingester.labels import begin_labels
from raglan_ingester.model import (
    Base,
    Deployment,
    Document,
    DocumentState,
    DocumentStructure,
    EarlierVersion,
    Item,
    Job,
    JobCounter,
    JobWarning,
)
from raglan_ingester.revisions import insert

_MODELS: Final = (Job, Item, JobWarning, Document, EarlierVersion, DocumentStructure)
TABLES: Final[Mapping[str, type[Base]]] = {str(model.__tablename__): model for model in _MODELS}
"""Tables of a backup, in the order in which rows may refer to each other."""

LARGE: Final = {
    "documents": "text",
    "document_versions": "text",
    "document_structures": "structure",
}
"""Columns that travel as pieces before their row."""


@dataclass(frozen=True, slots=True)
class Version:
    """Columns that decide a document's chunks and bytes."""

    collection: str
    id: str
    state: str
    fingerprint: str
    chunks: int
    sha256: str
    size_bytes: int
    edited_ms: int
    earlier: Mapping[str, int] = field(default_factory=dict)
    """Chunks of each earlier version, by fingerprint."""

    @property
    def all_chunks(self) -> int:
        """Number of chunks, those of earlier versions included."""
        return self.chunks + sum(self.earlier.values())


@dataclass(frozen=True, slots=True)
class WholeDocument:
    """A document's rows."""

    version: Version
    row: Document
    structure: DocumentStructure | None
    earlier: Sequence[EarlierVersion]


class RowReader:
    """Reads pages of rows by key."""

    def __init__(self, database: Transactions) -> None:
        self._database = database

    async def deployment(self) -> str:
        """The name of this database."""
        query = sa.select(Deployment.id)
        return await self._database.run(lambda session: session.scalars(query).one())

    async def items(self, job_id: str, ordinal: int, limit: int) -> list[Item]:
        """Items after this one, by job and ordinal."""
        key = sa.tuple_(Item.job_id, Item.ordinal)
        query = (
            sa.select(Item)
            .where(key > sa.tuple_(sa.literal(job_id), sa.literal(ordinal)))
            .order_by(Item.job_id, Item.ordinal)
            .limit(limit)
        )
        return await self._database.run(lambda session: list(session.scalars(query)))

    async def job(self, job_id: str) -> list[Base]:
        """A job and its warnings; nothing once it is forgotten."""
        warnings = sa.select(JobWarning).where(JobWarning.job_id == job_id)

        def work(session: Session) -> list[Base]:
            job = session.get(Job, job_id)
            return [] if job is None else [job, *session.scalars(warnings)]

        return await self._database.run(work)

    async def versions(self, collection: str, id_: str, limit: int) -> list[Version]:
        """Documents after this one, by collection and id."""
        key = sa.tuple_(Document.collection, Document.id)
        query = (
            sa.select(Document)
            .where(key > sa.tuple_(sa.literal(collection), sa.literal(id_)))
            .order_by(Document.collection, Document.id)
            .limit(limit)
        )

        def work(session: Session) -> list[Version]:
            return [_version(row, _earlier(session, row)) for row in session.scalars(query).all()]

        return await self._database.run(work)

    async def document(self, collection: str, id_: str) -> WholeDocument | None:
        """A document with its text; None when it is gone."""

        def work(session: Session) -> WholeDocument | None:
            row = session.get(Document, (collection, id_), options=[undefer(Document.text)])
            if row is None:
                return None
            options = [undefer(DocumentStructure.structure)]
            found = session.get(DocumentStructure, (collection, id_), options=options)
            earlier = _earlier(session, row, undefer(EarlierVersion.text))
            return WholeDocument(_version(row, earlier), row, found, earlier)

        return await self._database.run(work)


def to_record(row: Base) -> backup_pb2.BackupRecord:
    """Convert a row, without its large column."""
    table = str(row.__tablename__)
    columns = {
        column.name: getattr(row, column.name)
        for column in row.__table__.columns
        if column.name != LARGE.get(table)
    }
    text = json.dumps(columns, separators=(",", ":"))
    return backup_pb2.BackupRecord(row=backup_pb2.BackupRow(table=table, json=text))


def from_message(message: backup_pb2.BackupRow, large: bytes) -> dict[str, Any]:
    """Read the columns of a row.

    Args:
        message: the row.
        large: its large column, where the table has one.

    Raises:
        InvalidInput: it is no row of a table that is known.
    """
    model = TABLES.get(message.table)
    try:
        held = json.loads(message.json)
        columns = model.__table__.columns if model else ()
        values = {column.name: held[column.name] for column in columns if column.name in held}
        if LARGE.get(message.table) == "text":
            values["text"] = large.decode()
        elif message.table == "document_structures":
            values["structure"] = large
    except (ValueError, TypeError):
        values = {}
    if not values:
        raise InvalidInput(f"The backup holds a row that is none of a table {message.table!r}.")
    return values


def store(session: Session, rows: Mapping[str, Sequence[dict[str, Any]]]) -> None:
    """Write rows by table, in place of those with the same key."""
    for table, model in TABLES.items():
        if not rows.get(table):
            continue
        key = [column.name for column in model.__table__.primary_key]
        statement = insert(session, model)
        others = {
            name: getattr(statement.excluded, name) for name in rows[table][0] if name not in key
        }
        session.execute(
            statement.on_conflict_do_update(index_elements=key, set_=others), list(rows[table])
        )


def follow_edits(session: Session, rows: Mapping[str, Sequence[dict[str, Any]]]) -> None:
    """Note that the index has to follow edits: a chunk may be older in the backup than its row."""
    for row in rows.get("documents", ()):
        if row.get("edited_ms"):
            begin_labels(session, row["collection"], [row["id"]])


def forget_unclaimed(session: Session) -> None:
    """Remove documents that wait for a job submitted after the jobs were copied."""
    jobs = sa.select(Job.id)
    session.execute(
        sa.delete(Document)
        .where(Document.state == DocumentState.QUEUED, Document.job_id.not_in(jobs))
        .execution_options(synchronize_session=False)
    )


def raise_counters(session: Session) -> None:
    """Number the jobs that come after those of the backup, and after its documents."""
    newest: dict[str, int] = {}
    for table, number in ((Job, Job.number), (Document, Document.submission)):
        query = sa.select(table.collection, sa.func.max(number)).group_by(table.collection)
        for collection, highest in session.execute(query):
            newest[collection] = max(newest.get(collection, 0), highest)
    for collection, highest in newest.items():
        risen = sa.case((JobCounter.number < highest, highest), else_=JobCounter.number)
        added = insert(session, JobCounter).values(collection=collection, number=highest)
        session.execute(
            added.on_conflict_do_update(index_elements=["collection"], set_={"number": risen})
        )


def fitting(versions: Iterable[Version], *, chunks: int, size_bytes: int) -> list[Version]:
    """Return the first documents that have up to so many chunks and bytes, and at least one."""
    chosen: list[Version] = []
    for version in versions:
        chunks -= version.all_chunks
        size_bytes -= version.size_bytes
        if chosen and (chunks < 0 or size_bytes < 0):
            break
        chosen.append(version)
    return chosen


def _earlier(session: Session, row: Document, *options: LoaderOption) -> list[EarlierVersion]:
    if row.version < 2:
        return []
    query = sa.select(EarlierVersion).where(
        EarlierVersion.collection == row.collection, EarlierVersion.document_id == row.id
    )
    return list(session.scalars(query.options(*options)))


def _version(row: Document, earlier: Sequence[EarlierVersion]) -> Version:
    return Version(
        row.collection, row.id, row.state, row.fingerprint, row.chunks, row.sha256,
        row.size_bytes, row.edited_ms, {each.fingerprint: each.chunks for each in earlier},
    )  # fmt: skip
