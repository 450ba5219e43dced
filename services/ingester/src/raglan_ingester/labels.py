"""Metadata and access tags of documents: changed in the database first, then on their chunks.

A change is recorded together with a mark that the index has to follow. Whoever makes it clears the
mark once the index has followed; what a crash or an index that is away leaves marked is finished
by the reconciler.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from raglan import access_tags, metadata
from raglan.database import Transactions, now_ms
from raglan.errors import Conflict, InvalidInput, NotFound
from raglan.identifiers import shortened
from sqlalchemy.orm import Session

from raglan_ingester.model import Document, DocumentState, UnfinishedLabel
from raglan_ingester.revisions import insert


@dataclass(frozen=True, slots=True)
class Labels:
    """What a document's chunks carry of its metadata and tags."""

    metadata_json: str
    access: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LabelChange:
    """A change of metadata and tags, the same for any number of documents."""

    metadata: Mapping[str, Any] | None = None
    """Merged as RFC 7396 says, or taking the place of the present one; None changes nothing."""
    replace_metadata: bool = False
    access: tuple[str, ...] | None = None
    """The new tags; None keeps the present ones."""
    add_access: tuple[str, ...] = ()
    remove_access: tuple[str, ...] = ()

    def applied(self, row: Document, max_bytes: int) -> Labels:
        """Return the labels that a document has after the change.

        Raises:
            InvalidInput: they are beyond a limit.
        """
        metadata_json = row.metadata_json
        if self.metadata is not None:
            held = {} if self.replace_metadata else json.loads(metadata_json or "{}")
            merged = _merged(held, self.metadata)
            metadata.check(merged, max_bytes=max_bytes)
            metadata_json = json.dumps(merged, sort_keys=True, separators=(",", ":"))
        tags = set(row.access if self.access is None else self.access)
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


@dataclass(frozen=True, slots=True)
class Edited:
    """Result of a change: labels to bring to the index, by document, and who was refused."""

    rows: Mapping[str, Document]
    refused: Mapping[str, str]
    """Id -> sentence."""

    def labels(self) -> dict[str, Labels]:
        """Return the labels of the changed documents."""
        return {id_: Labels(row.metadata_json, tuple(row.access)) for id_, row in self.rows.items()}


class LabelStore:
    """Labels in the database.

    Args:
        database: of the ingester.
        max_metadata_bytes: of a document's metadata.
    """

    def __init__(self, database: Transactions, max_metadata_bytes: int) -> None:
        self._database = database
        self._max_bytes = max_metadata_bytes

    async def edit(
        self, collection: str, ids: Sequence[str], change: LabelChange, passes: Passes
    ) -> Edited:
        """Change those of the documents that pass; the index has to follow.

        Args:
            collection: that they are in.
            ids: theirs, 1,000 at most.
            change: what becomes of each.
            passes: asked about each within the transaction.
        """

        def work(session: Session) -> Edited:
            query = sa.select(Document).where(
                Document.collection == collection, Document.id.in_(ids)
            )
            rows, refused = {}, {}
            for row in session.scalars(query.with_for_update()):
                if not passes(row):
                    continue
                try:
                    if _edit(row, change, self._max_bytes):
                        rows[row.id] = row
                except (InvalidInput, Conflict) as error:
                    refused[row.id] = error.message
            begin_labels(session, collection, list(rows))
            return Edited(rows, refused)

        return await self._database.run(work)

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
            is_changed = _edit(row, change, self._max_bytes)
            begin_labels(session, collection, [id_] if is_changed else [])
            return row, is_changed

        return await self._database.run(work)

    async def unfinished(self, limit: int) -> dict[str, dict[str, Document | None]]:
        """Return documents that the index has to follow: by collection, by id, None once gone."""

        def work(session: Session) -> dict[str, dict[str, Document | None]]:
            found: dict[str, dict[str, Document | None]] = {}
            for mark in session.scalars(sa.select(UnfinishedLabel).limit(limit)).all():
                row = session.get(Document, (mark.collection, mark.document_id))
                found.setdefault(mark.collection, {})[mark.document_id] = row
            return found

        return await self._database.run(work)

    async def finish(self, collection: str, followed: Mapping[str, int]) -> None:
        """Clear marks: the index has what documents held at that `edited_ms`, by id."""

        def work(session: Session) -> None:
            for id_, edited_ms in followed.items():
                row = session.get(Document, (collection, id_), with_for_update=True)
                if row is None or row.edited_ms == edited_ms:
                    session.execute(
                        sa.delete(UnfinishedLabel).where(
                            UnfinishedLabel.collection == collection,
                            UnfinishedLabel.document_id == id_,
                        )
                    )

        await self._database.run(work)


Passes = Callable[[Document], bool]


def _edit(row: Document, change: LabelChange, max_bytes: int) -> bool:
    """Change a document's labels; return whether that made a difference."""
    if row.state != DocumentState.READY:
        raise Conflict(
            f"The document {shortened(row.id)} is {row.state}; change it when it is ready."
        )
    fresh = change.applied(row, max_bytes)
    if fresh == Labels(row.metadata_json, tuple(row.access)):
        return False
    row.metadata_json, row.access = fresh.metadata_json, [*fresh.access]
    row.edited_ms = max(now_ms(), row.edited_ms + 1)
    return True


def begin_labels(session: Session, collection: str, ids: Sequence[str]) -> None:
    """Note, in the transaction that changes labels, that the index has to follow."""
    if ids:
        session.execute(
            insert(session, UnfinishedLabel).on_conflict_do_nothing(),
            [{"collection": collection, "document_id": id_} for id_ in ids],
        )
