"""Changes of metadata and tags, in the database and in the index, under the collection's lock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final, Protocol

from raglan.deadline import Deadline
from raglan.errors import NotFound

from raglan_ingester.collection_locks import CollectionLocks
from raglan_ingester.labels import LabelChange, Labels, LabelStore, Passes
from raglan_ingester.model import Document

AT_ONCE: Final = 100
"""Documents in one call of the index: with 64 KiB of metadata each they fit into a message."""
_FINISH_S: Final = 60.0


class Index(Protocol):
    """The part of the index that labels need."""

    async def label(
        self,
        collection: str,
        labels: Mapping[str, Labels],
        *,
        deadline: Deadline | None = None,
    ) -> None:
        """Replace metadata and tags of documents. Raises NotFound: no such collection."""
        ...


class Labelling:
    """Changes labels. Should the index be away, the change stands, and is brought to it later."""

    def __init__(self, labels: LabelStore, index: Index, locks: CollectionLocks) -> None:
        self._labels = labels
        self._index = index
        self._locks = locks

    async def update(
        self, collection: str, document_id: str, change: LabelChange, deadline: Deadline
    ) -> Document:
        """Change one document, and return it.

        Raises:
            NotFound: there is none that the current caller reaches.
            Conflict: it was never ingested yet.
            InvalidInput: the labels would be beyond a limit.
        """
        async with self._locks.of(collection):
            row, is_changed = await self._labels.update(collection, document_id, change)
            if is_changed:
                await self._follow(collection, {document_id: row}, deadline)
            return row

    async def change(
        self,
        collection: str,
        ids: Sequence[str],
        change: LabelChange,
        passes: Passes,
        deadline: Deadline,
    ) -> Mapping[str, str]:
        """Change up to `AT_ONCE` documents that pass; return who was refused, with the reason."""
        async with self._locks.of(collection):
            edited = await self._labels.edit(collection, ids, change, passes)
            if edited.rows:
                await self._follow(collection, edited.rows, deadline)
            return edited.refused

    async def finish(self) -> None:
        """Bring labels to the index that it has not got.

        Raises:
            RaglanError: it is away.
        """
        for collection in await self._labels.unfinished(AT_ONCE):
            async with self._locks.of(collection):
                # Read anew: whoever held the lock may have finished them.
                held = (await self._labels.unfinished(AT_ONCE)).get(collection, {})
                rows = {id_: row for id_, row in held.items() if row is not None}
                if rows:
                    await self._follow(collection, rows, Deadline.after(_FINISH_S))
                await self._labels.finish(collection, dict.fromkeys(held.keys() - rows.keys(), 0))

    async def _follow(
        self, collection: str, rows: Mapping[str, Document], deadline: Deadline
    ) -> None:
        labels = {id_: Labels(row.metadata_json, tuple(row.access)) for id_, row in rows.items()}
        with suppress(NotFound):  # the collection is gone
            await self._index.label(collection, labels, deadline=deadline)
        await self._labels.finish(collection, {id_: row.edited_ms for id_, row in rows.items()})
