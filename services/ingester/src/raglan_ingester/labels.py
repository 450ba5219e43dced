"""Metadata and access tags of documents: changed in the database first, then on their chunks.

A change is recorded together with a mark that the index has to follow. Whoever makes it clears the
mark once the index has followed; what a crash or an index that is away leaves marked is finished
by the reconciler. What the index refuses `ATTEMPTS` times is set aside, so that it keeps nothing
after it from its turn.

A change of a document whose newest submission is not indexed yet is made to its present version
and noted with the submission (`Item.edits`), so that the result is that of one after the other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import sqlalchemy as sa
from raglan import access_tags, metadata
from raglan.database import Transactions, now_ms
from raglan.errors import Conflict, InvalidInput, NotFound
from raglan.identifiers import shortened
from sqlalchemy.orm import Session

from raglan_ingester.model import (
    ATTEMPTS,
    Document,
    DocumentState,
    Item,
    ItemState,
    UnfinishedLabel,
)
from raglan_ingester.revisions import insert

_EDITS: Final = 16
"""Edits kept with a submission; more become one that replaces the metadata. The document's own
metadata, which only parsing shows, is then left out."""


@dataclass(frozen=True, slots=True)
class Labels:
    """Metadata and access tags on a document's chunks."""

    metadata_json: str
    access: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LabelChange:
    """A change of metadata and tags, the same for any number of documents."""

    metadata: Mapping[str, Any] | None = None
    """Merged as RFC 7396 says, or taking the place of the present one; None changes nothing."""
    replace_metadata: bool = False
    access: Sequence[str] | None = None
    """The new tags; None keeps the present ones."""
    add_access: Sequence[str] = ()
    remove_access: Sequence[str] = ()

    def applied(self, held: Labels, max_bytes: int) -> Labels:
        """Return the labels that a document has after the change.

        Raises:
            InvalidInput: they are beyond a limit.
        """
        metadata_json = held.metadata_json
        if self.metadata is not None:
            present = json.loads(metadata_json or "{}")
            fresh = self.metadata if self.replace_metadata else _merged(present, self.metadata)
            metadata.check(fresh, max_bytes=max_bytes)
            metadata_json = json.dumps(fresh, sort_keys=True, separators=(",", ":"))
        tags = set(held.access if self.access is None else self.access)
        tags = (tags | set(self.add_access)) - set(self.remove_access)
        return Labels(metadata_json, access_tags.check(sorted(tags)))


def _merged(target: Any, patch: Any) -> Any:
    """Apply a JSON merge patch (RFC 7396, 2)."""
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(target) if isinstance(target, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = _merged(merged.get(name), value)
    return merged


def replacement(labels: Labels, *, keeps_tags: bool) -> dict[str, Any]:
    """Return an edit that leaves a document with these labels, as an item stores it."""
    access = None if keeps_tags else labels.access
    return asdict(LabelChange(json.loads(labels.metadata_json or "{}"), True, access))


def labels_of(document: Document) -> Labels:
    """Return the labels of a document's present version."""
    return Labels(document.metadata_json, tuple(document.access))


def submitted_labels(
    item: Item,
    document: Document,
    *,
    completed_json: str | None = None,
    max_bytes: int = metadata.MAX_BYTES,
) -> Labels:
    """Return the labels that a submission leaves a document with: its own, then the edits after it.

    Args:
        item: the submission.
        document: the present version, whose tags stay where the submission names none.
        completed_json: submitted metadata, completed with the document's own; left out where the
            edits do not fit beside it.
        max_bytes: of the metadata.

    Raises:
        InvalidInput: they are beyond a limit.
    """
    # Tags that stay have the edits in them already: each was made to the present version as well.
    access = tuple(document.access if item.access is None else item.access)
    edits = [LabelChange(**edit) for edit in item.edits]
    bare = Labels(item.metadata_json, access)
    whole = bare if completed_json is None else Labels(completed_json, access)
    try:
        return _edited(whole, edits, max_bytes)
    except InvalidInput:
        if whole == bare:
            raise
        return _edited(bare, edits, max_bytes)


def _edited(labels: Labels, edits: Sequence[LabelChange], max_bytes: int) -> Labels:
    for edit in edits:
        labels = edit.applied(labels, max_bytes)
    return labels


@dataclass(frozen=True, slots=True)
class Edited:
    """Result of a change of several documents."""

    ids: Sequence[str]
    """Documents that have the labels now."""
    refused: Mapping[str, str]
    """Id -> sentence."""


class LabelStore:
    """Labels in the database.

    Args:
        database: of the ingester.
        max_metadata_bytes: of a document's metadata.
    """

    def __init__(self, database: Transactions, max_metadata_bytes: int) -> None:
        self._database = database
        self._max_bytes = max_metadata_bytes

    async def update(self, collection: str, id_: str, change: LabelChange) -> tuple[Document, bool]:
        """Change one document; return it, and whether the index has to follow.

        Raises:
            NotFound: there is none that the current caller reaches.
            Conflict: it was never ingested yet.
            InvalidInput: the labels would be beyond a limit.
        """
        held = access_tags.current()

        def work(session: Session) -> tuple[Document, bool]:
            row = session.get(Document, (collection, id_), with_for_update=True)
            if row is None or not access_tags.reaches(held, row.access):
                raise NotFound(f"There is no document {shortened(id_)} in {collection!r}.")
            return row, _edit(session, row, change, held, self._max_bytes)

        return await self._database.run(work)

    # Marks

    async def collections(self) -> list[str]:
        """Return the collections whose index has to follow."""
        query = sa.select(UnfinishedLabel.collection).where(_IS_TRIED).distinct()
        return await self._database.run(lambda session: list(session.scalars(query)))

    async def unfinished(self, collection: str, limit: int) -> list[str]:
        """Return ids of documents that the index has to follow, those never refused first."""
        query = (
            sa.select(UnfinishedLabel.document_id)
            .where(UnfinishedLabel.collection == collection, _IS_TRIED)
            .order_by(UnfinishedLabel.attempts, UnfinishedLabel.document_id)
            .limit(limit)
        )
        return await self._database.run(lambda session: list(session.scalars(query)))

    async def marked(self, collection: str, ids: Sequence[str]) -> dict[str, Document | None]:
        """Return those of the documents that the index has to follow; None once one is gone."""

        def work(session: Session) -> dict[str, Document | None]:
            marks = session.scalars(sa.select(UnfinishedLabel).where(*_marks(collection, ids)))
            return {
                mark.document_id: session.get(Document, (collection, mark.document_id))
                for mark in marks.all()
            }

        return await self._database.run(work)

    async def finish(self, collection: str, followed: Mapping[str, int]) -> None:
        """Clear marks: the index has what documents held at that `edited_ms`, by id."""

        def work(session: Session) -> None:
            for id_, edited_ms in followed.items():
                row = session.get(Document, (collection, id_), with_for_update=True)
                if row is None or row.edited_ms == edited_ms:
                    session.execute(sa.delete(UnfinishedLabel).where(*_marks(collection, [id_])))

        await self._database.run(work)

    async def refuse(self, collection: str, refused: Mapping[str, str]) -> list[str]:
        """Record why the index refused labels; return the documents that are set aside by that."""

        def work(session: Session) -> list[str]:
            set_aside = []
            marks = sa.select(UnfinishedLabel).where(*_marks(collection, list(refused)))
            for mark in session.scalars(marks.with_for_update()):
                mark.attempts, mark.error = mark.attempts + 1, refused[mark.document_id]
                if mark.attempts == ATTEMPTS:
                    set_aside.append(mark.document_id)
            return set_aside

        return await self._database.run(work)

    async def reconsider(self) -> None:
        """Let those that are set aside be tried once more."""
        again = sa.update(UnfinishedLabel).where(UnfinishedLabel.attempts >= ATTEMPTS)
        await self._database.run(
            lambda session: session.execute(again.values(attempts=ATTEMPTS - 1))
        )


_IS_TRIED: Final = UnfinishedLabel.attempts < ATTEMPTS


def _marks(collection: str, ids: Sequence[str]) -> tuple[sa.ColumnElement[bool], ...]:
    return UnfinishedLabel.collection == collection, UnfinishedLabel.document_id.in_(ids)


def edit_rows(
    session: Session,
    rows: Sequence[Document],
    change: LabelChange,
    held: access_tags.Held,
    max_bytes: int,
) -> Edited:
    """Change the labels of documents; the index has to follow.

    Args:
        session: of the caller's transaction.
        rows: the documents, locked.
        change: what becomes of each.
        held: access tags of who changes them.
        max_bytes: of a document's metadata.
    """
    done, refused = [], {}
    for row in rows:
        try:
            _edit(session, row, change, held, max_bytes)
            done.append(row.id)
        except (InvalidInput, Conflict) as error:
            refused[row.id] = error.message
    return Edited(done, refused)


def _edit(
    session: Session, row: Document, change: LabelChange, held: access_tags.Held, max_bytes: int
) -> bool:
    """Change a document's labels; return whether the index has to follow."""
    if row.state != DocumentState.READY:
        raise Conflict(
            f"The document {shortened(row.id)} is {row.state}; change it when it is ready."
        )
    fresh = change.applied(labels_of(row), max_bytes)
    _edit_submission(session, row, change, held, max_bytes)
    if fresh == labels_of(row):
        return False
    row.metadata_json, row.access = fresh.metadata_json, [*fresh.access]
    row.edited_ms = max(now_ms(), row.edited_ms + 1)
    begin_labels(session, row.collection, [row.id])
    return True


def _edit_submission(
    session: Session, row: Document, change: LabelChange, held: access_tags.Held, max_bytes: int
) -> None:
    """Change the version that is not indexed yet, too: the edit came after its submission.

    One that the caller does not reach stays as it was submitted, as if the edit had come before.
    """
    item = session.scalars(
        sa.select(Item).where(
            Item.job_id == row.job_id,
            Item.document_id == row.id,
            Item.state.in_((ItemState.QUEUED, ItemState.FAILED, ItemState.CANCELLED)),
        )
    ).one_or_none()
    if item is None:
        return
    present = submitted_labels(item, row, max_bytes=max_bytes)
    if not access_tags.reaches(held, present.access):
        return
    fresh = change.applied(present, max_bytes)
    item.edits = [*item.edits, asdict(change)]
    if len(item.edits) > _EDITS:
        item.edits = [replacement(fresh, keeps_tags=item.access is None)]


def begin_labels(session: Session, collection: str, ids: Sequence[str]) -> None:
    """Note, in the transaction that changes labels, that the index has to follow."""
    if ids:
        statement = insert(session, UnfinishedLabel).on_conflict_do_update(
            index_elements=["collection", "document_id"], set_={"attempts": 0, "error": ""}
        )
        session.execute(
            statement,
            [
                {"collection": collection, "document_id": id_, "attempts": 0, "error": ""}
                for id_ in ids
            ],
        )
