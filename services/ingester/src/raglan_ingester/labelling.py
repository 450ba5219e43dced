"""Changes of metadata and tags, in the database and in the index, under the collection's lock."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

import structlog
from raglan.deadline import Deadline
from raglan.errors import NotFound, RaglanError

from raglan_ingester.collection_locks import CollectionLocks
from raglan_ingester.labels import LabelChange, Labels, LabelStore, labels_of
from raglan_ingester.model import ATTEMPTS, Document
from raglan_ingester.outage_retry import TRANSIENT
from raglan_ingester.unfinished import finish_each
from raglan_ingester.versions import Kept, VersionStore

log: Final = structlog.get_logger()

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

    async def keep_versions(
        self, collection: str, documents: Mapping[str, Kept], *, deadline: Deadline | None = None
    ) -> None:
        """Remove versions that are not kept. Raises NotFound: no such collection."""
        ...


class Labelling:
    """Changes labels. Should the index be away, the change stands, and is brought to it later.

    Args:
        labels: in the database.
        index: their copies on chunks.
        locks: of the collections.
        on_set_aside: told how many documents' labels the index has refused for good.
        versions: of the documents, which the index learns together with the labels.
    """

    def __init__(
        self,
        labels: LabelStore,
        index: Index,
        locks: CollectionLocks,
        on_set_aside: Callable[[int], None],
        versions: VersionStore,
    ) -> None:
        self._labels = labels
        self._versions = versions
        self._index = index
        self._locks = locks
        self._on_set_aside = on_set_aside

    async def update(
        self, collection: str, document_id: str, change: LabelChange, deadline: Deadline
    ) -> Document:
        """Change one document, and return it.

        Raises:
            NotFound: there is none that the current caller reaches.
            Conflict: it was never ingested yet.
            InvalidInput: the labels would be beyond a limit, or the index refuses them.
        """
        async with self._locks.of(collection):
            row, is_changed = await self._labels.update(collection, document_id, change)
            if is_changed:
                refused = await self._follow(collection, [document_id], deadline)
                if document_id in refused:
                    raise refused[document_id]
            return row

    async def follow(
        self, collection: str, ids: Sequence[str], deadline: Deadline
    ) -> Mapping[str, RaglanError]:
        """Bring the labels of up to `AT_ONCE` documents to the index, as they are now.

        Returns:
            Those that the index refuses, with its reason; they are tried again later.

        Raises:
            RaglanError: the index is away.
        """
        async with self._locks.of(collection):
            return await self._follow(collection, ids, deadline)

    async def finish(self) -> None:
        """Bring labels to the index that it has not got.

        Raises:
            RaglanError: it is away.
        """

        async def finish(collection: str) -> None:
            ids = await self._labels.unfinished(collection, AT_ONCE)
            await self.follow(collection, ids, Deadline.after(_FINISH_S))

        await finish_each(await self._labels.collections(), finish)

    async def reconsider(self) -> None:
        """Let labels that are set aside be tried once more."""
        await self._labels.reconsider()

    async def _follow(
        self, collection: str, ids: Sequence[str], deadline: Deadline
    ) -> Mapping[str, RaglanError]:
        """Do what `follow` does, with the collection's lock held."""
        marked = await self._labels.marked(collection, ids)
        rows = {id_: row for id_, row in marked.items() if row is not None}
        refused = await self._bring(collection, rows, deadline)
        followed = {id_: row.edited_ms if row else 0 for id_, row in marked.items()}
        await self._labels.finish(
            collection, {id_: at for id_, at in followed.items() if id_ not in refused}
        )
        if refused:
            reasons = {id_: error.message for id_, error in refused.items()}
            if set_aside := await self._labels.refuse(collection, reasons):
                self._on_set_aside(len(set_aside))
                log.error("labels are set aside", documents=len(set_aside), attempts=ATTEMPTS)
        return refused

    async def _bring(
        self, collection: str, rows: Mapping[str, Document], deadline: Deadline
    ) -> dict[str, RaglanError]:
        """Label documents in one call; if it is refused, each half alone, down to one."""
        if not rows:
            return {}
        try:
            labels = {id_: labels_of(row) for id_, row in rows.items()}
            await self._index.label(collection, labels, deadline=deadline)
            if kept := await self._versions.kept(collection, list(rows)):
                await self._index.keep_versions(collection, kept, deadline=deadline)
        except NotFound:  # the collection is gone
            return {}
        except TRANSIENT:
            raise
        except RaglanError as error:
            if len(rows) == 1:
                return dict.fromkeys(rows, error)
        else:
            return {}
        ids = list(rows)
        halves = (ids[: len(ids) // 2], ids[len(ids) // 2 :])
        refused: dict[str, RaglanError] = {}
        for half in halves:
            refused |= await self._bring(collection, {id_: rows[id_] for id_ in half}, deadline)
        return refused
