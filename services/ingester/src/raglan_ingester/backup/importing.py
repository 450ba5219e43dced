"""A restore: checks of the whole backup first, then one unit after the other, each all or none."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

import sqlalchemy as sa
import structlog
from raglan.database import Transactions, now_ms
from raglan.deadline import Deadline
from raglan.errors import Conflict, InvalidInput, Unavailable
from raglan.v1 import backup_pb2, retriever_pb2
from sqlalchemy.orm import Session

from raglan_ingester.backup import rows
from raglan_ingester.backup.exporting import FORMAT
from raglan_ingester.blobs import BlobStore, BlobWriter
from raglan_ingester.clients.embedder import Model
from raglan_ingester.documents import DocumentStore
from raglan_ingester.jobs import JobStore
from raglan_ingester.model import (
    Base,
    Deployment,
    IndexRevision,
    Item,
    Job,
    JobCounter,
    JobTrace,
    JobWarning,
    Restore,
    Source,
    SourceDocument,
    UnfinishedDeletion,
    UnfinishedLabel,
    Worker,
)
from raglan_ingester.schema import SCHEMA

log: Final = structlog.get_logger()

_MAX_LARGE_BYTES: Final = 512 * 1024 * 1024
"""Of a document's text; parsers make at most 64 Mi characters."""
_RETRY_S: Final = 30.0


SYNCED: Final = (SourceDocument, Source)
"""What sources know of their documents: those of a backup may be older. A sync that is under way
loses its source, and the next one looks at every document."""
FORGOTTEN: Final = (JobWarning, Item, JobTrace, Job, UnfinishedDeletion, UnfinishedLabel, *SYNCED)
"""Tables that a restore in place of everything empties, besides the documents."""
KEPT: Final = (Deployment, Worker, Restore, IndexRevision, JobCounter)
"""Tables of the deployment. Revisions and numbers of jobs only rise."""


class Index(Protocol):
    """The part of the index that a restore writes; every method raises RaglanError."""

    async def collections(self) -> Sequence[retriever_pb2.Collection]:
        """All collections; those that cannot be served have an `error`."""
        ...

    async def create(self, description: retriever_pb2.CollectionDescription) -> None:
        """Create a collection as it was described. Raises Conflict when there is one."""
        ...

    async def drop(self, name: str) -> None:
        """Delete a collection; one that is gone already is no error."""
        ...

    async def add(self, chunks: retriever_pb2.IndexedChunks) -> None:
        """Store chunks durably."""
        ...


@dataclass(frozen=True, slots=True)
class Target:
    """Stores that a restore writes to, beside the index."""

    database: Transactions
    documents: DocumentStore
    jobs: JobStore
    blobs: BlobStore
    delete_documents: Callable[[str, Deadline], Awaitable[int]]
    """Deletes every document of a collection."""
    model: Callable[[], Awaitable[Model]]
    """Returns the embedder's model."""


class Importer:
    """Restores backups, one at a time. What has begun is recorded in the database."""

    def __init__(self, target: Target, index: Index) -> None:
        self._target = target
        self._database = target.database
        self._index = index

    async def under_way(self) -> bool:
        """Return whether a restore has begun and not ended."""
        return await self._current() is not None

    async def refuse_while_under_way(self) -> None:
        """Raise Unavailable while a restore has begun and not ended."""
        if await self.under_way():
            raise Unavailable(
                "A backup is being restored; send documents when that has ended. One that was cut "
                "off goes on with: raglan restore DIR, or is left as it is by: raglan restore "
                "--abandon.",
                retry_after_s=_RETRY_S,
            )

    async def begin(
        self,
        backup_id: str,
        header: backup_pb2.BackupHeader,
        *,
        replace: bool,
        deadline: Deadline,
    ) -> int:
        """Begin a restore, or go on with one; return the number of units that are restored.

        Args:
            backup_id: names the backup.
            header: what it holds.
            replace: whether to delete what there is.
            deadline: of the call.

        Raises:
            Conflict: the backup does not fit here; nothing was changed.
        """
        if not backup_id:
            raise InvalidInput("The backup has no id.")
        _check_version(header)
        begun = await self._current()
        if begun is not None and begun.backup_id == backup_id and begun.units:
            return begun.units
        if begun is not None and begun.backup_id != backup_id and not replace:
            raise Conflict(
                f"The restore of another backup ({begun.backup_id}) was cut off here; finish that "
                "one, or pass --replace to delete what it has restored."
            )
        await self._check_models(header)
        # A restore that was cut off before it was empty here had passed this check.
        if begun is None and not replace:
            await self._refuse_holdings()
        await self._database.run(lambda session: _record(session, backup_id, 0))
        everything = replace or begun is not None
        await self._empty(header, everything=everything, deadline=deadline)
        await self._database.run(lambda session: _record(session, backup_id, 1))
        log.info("a restore begins", backup=backup_id, made_with=header.version)
        return 1

    async def unit(
        self, backup_id: str, number: int, records: AsyncIterator[backup_pb2.BackupRecord]
    ) -> int:
        """Restore a unit; return the number of units that are restored then.

        Raises:
            Conflict: the backup is not the one whose restore has begun.
            InvalidInput: a unit out of order or cut short, or a record that is none.
        """
        begun = await self._current()
        if begun is None or begun.backup_id != backup_id:
            raise Conflict(f"No restore of the backup {backup_id!r} has begun.")
        if number < begun.units:
            return begun.units
        if number > begun.units:
            raise InvalidInput(f"Unit {number} came; the next one is {begun.units}.")
        receiver = _UnitReceiver(self._target.blobs, self._index)
        try:
            async for record in records:
                await receiver.take(record)
            restored = receiver.end()

            def work(session: Session) -> None:
                rows.store(session, restored)
                rows.follow_edits(session, restored)
                _advance(session, backup_id, number)

            await self._database.run(work)
        finally:
            await receiver.release()
        return number + 1

    async def end(self, backup_id: str) -> int:
        """End a restore, of any backup where the id is empty; return its units."""
        begun = await self._current()
        if begun is None:
            return 0
        if backup_id not in ("", begun.backup_id):
            raise Conflict(f"No restore of the backup {backup_id!r} has begun.")

        def work(session: Session) -> None:
            rows.forget_unclaimed(session)
            rows.raise_counters(session)
            session.execute(sa.delete(Restore))

        await self._database.run(work)
        log.info("a restore has ended", backup=begun.backup_id, units=begun.units)
        return begun.units

    async def _current(self) -> Restore | None:
        return await self._database.run(
            lambda session: session.scalars(sa.select(Restore)).one_or_none()
        )

    async def _check_models(self, header: backup_pb2.BackupHeader) -> None:
        """Raise Conflict unless the embedder's model made the vectors of every collection."""
        model = await self._target.model()
        for collection in header.collections:
            made_by = collection.embedder
            if Model(made_by.id, made_by.revision, made_by.dimension) != model:
                raise Conflict(
                    f"The backup's collection {collection.name!r} was embedded by "
                    f"{_named(made_by.id, made_by.revision)} with {made_by.dimension} dimensions; "
                    f"the embedder here has {_named(model.id, model.revision)} with "
                    f"{model.dimension}. Start it with the model of the backup."
                )

    async def _refuse_holdings(self) -> None:
        documents = await self._target.documents.collections()
        held = [each for each in await self._index.collections() if each.chunks or each.error]
        named = sorted({*documents, *(each.name for each in held)})
        if named:
            raise Conflict(
                f"This deployment holds documents ({', '.join(named[:3])}"
                f"{', ...' if len(named) > 3 else ''}); restore into an empty one, or pass "
                "--replace to delete them first."
            )

    async def _empty(
        self, header: backup_pb2.BackupHeader, *, everything: bool, deadline: Deadline
    ) -> None:
        """Make room: delete documents and collections, then create those of the backup."""
        created = {collection.name for collection in header.collections}
        for collection in await self._index.collections():
            if everything or collection.name in created:
                await self._index.drop(collection.name)
        unfinished = {job.collection for job in await self._target.jobs.unfinished()}
        for name in sorted({*await self._target.documents.collections(), *unfinished}):
            await self._target.delete_documents(name, deadline)
        await self._database.run(partial(_forget, FORGOTTEN if everything else SYNCED))
        for description in header.collections:
            await self._create(description)

    async def _create(self, description: retriever_pb2.CollectionDescription) -> None:
        """Create a collection in place of an empty one that a starting gateway made just now."""
        try:
            await self._index.create(description)
        except Conflict:
            await self._index.drop(description.name)
            await self._index.create(description)


class _UnitReceiver:
    """Takes the records of a unit: blobs and chunks are stored as they come, rows at the end."""

    def __init__(self, blobs: BlobStore, index: Index) -> None:
        self._blobs = blobs
        self._index = index
        self._rows: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        self._writer: BlobWriter | None = None
        self._pinned: list[str] = []
        self._large = bytearray()
        self._ended = False

    async def take(self, record: backup_pb2.BackupRecord) -> None:
        match record.WhichOneof("record"):
            case "chunks":
                await self._index.add(record.chunks)
            case "piece":
                await self._piece(record.piece)
            case "row":
                values = rows.from_message(record.row, bytes(self._large))
                if record.row.table in rows.LARGE:
                    self._large.clear()
                self._rows[record.row.table].append(values)
            case "collection":
                try:
                    await self._index.create(record.collection)
                except Conflict:
                    return  # the header has it
            case "end":
                self._ended = True
            case other:
                raise InvalidInput(f"The backup holds a record {other!r} that is not known here.")

    def end(self) -> Mapping[str, list[dict[str, Any]]]:
        """Return the rows by table. Raises InvalidInput when the unit is not whole."""
        if not self._ended or self._writer is not None or self._large:
            raise InvalidInput("The unit is cut short.")
        return self._rows

    async def release(self) -> None:
        """Let go of blobs that rows name by now, or that will never be needed."""
        if self._writer is not None:
            await self._writer.discard()
        await self._blobs.unpin(self._pinned)

    async def _piece(self, piece: backup_pb2.BackupPiece) -> None:
        if piece.kind != backup_pb2.PIECE_KIND_BLOB:
            self._large += piece.data
            if len(self._large) > _MAX_LARGE_BYTES:
                raise InvalidInput(
                    f"A text of the backup is larger than {_MAX_LARGE_BYTES:,} bytes, the limit."
                )
            return
        self._writer = self._writer or self._blobs.writer()
        await self._writer.write(piece.data)
        if not piece.is_last:
            return
        writer, self._writer = self._writer, None
        sha256 = await writer.commit()
        self._pinned.append(sha256)
        if sha256 != piece.sha256:
            raise InvalidInput(f"The bytes named {piece.sha256} have the hash {sha256}.")


def _check_version(header: backup_pb2.BackupHeader) -> None:
    if header.format > FORMAT or not SCHEMA.is_known(header.schema):
        raise Conflict(
            f"The backup was made by Raglan {header.version} (format {header.format}, schema "
            f"{header.schema}), which is newer than this one (format {FORMAT}, schema "
            f"{SCHEMA.newest()}): restore it with that version."
        )


def _record(session: Session, backup_id: str, units: int) -> None:
    session.execute(sa.delete(Restore).where(Restore.backup_id != backup_id))
    session.merge(Restore(backup_id=backup_id, units=units, began_ms=now_ms()))


def _forget(tables: Sequence[type[Base]], session: Session) -> None:
    for table in tables:
        session.execute(sa.delete(table))


def _advance(session: Session, backup_id: str, number: int) -> None:
    """Count a unit, in the transaction of its rows."""
    begun = session.get(Restore, backup_id, with_for_update=True)
    if begun is None or begun.units != number:
        raise Conflict("Another process restores the same backup; let one of them do it.")
    begun.units = number + 1


def _named(id_: str, revision: str) -> str:
    return f"{id_} at revision {revision}" if revision else id_
