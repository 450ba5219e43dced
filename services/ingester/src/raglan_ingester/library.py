"""The stored documents: read, list, and delete in any state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from raglan import access_tags
from raglan.deadline import Deadline
from raglan.errors import Forbidden, InvalidInput, NotFound
from raglan.filtering.clauses import Clause
from raglan.identifiers import shortened

from raglan_ingester.blobs import BlobStore
from raglan_ingester.collection_locks import CollectionLocks
from raglan_ingester.documents import DocumentStore, StoredDocument
from raglan_ingester.ingestion import Ingestion
from raglan_ingester.model import Document, DocumentState, EarlierVersion
from raglan_ingester.revisions import RevisionStore
from raglan_ingester.selection import Selection
from raglan_ingester.unfinished import finish_each
from raglan_ingester.versions import VersionStore

MAX_PAGE: Final = 1000
DEFAULT_PAGE: Final = 100
MAX_BATCH: Final = 1000
_DELETED_AT_ONCE: Final = 500
_FINISH_S: Final = 60.0


class Index(Protocol):
    """The part of the index that deletion needs."""

    async def delete(
        self, collection: str, document_ids: list[str], *, deadline: Deadline | None = None
    ) -> int:
        """Raises NotFound when there is no such collection."""
        ...


class Library:
    """Reads and deletes stored documents."""

    def __init__(
        self,
        documents: DocumentStore,
        blobs: BlobStore,
        index: Index,
        locks: CollectionLocks,
        submissions: CollectionLocks,
        ingestion: Ingestion,
        revisions: RevisionStore,
        versions: VersionStore,
    ) -> None:
        self._versions = versions
        self._documents = documents
        self._selection = Selection(documents)
        self._blobs = blobs
        self._index = index
        self._locks = locks
        self._submissions = submissions
        self._ingestion = ingestion
        self._revisions = revisions

    async def page(
        self, collection: str, where: Clause | None, *, limit: int, after: str
    ) -> tuple[Sequence[Document], str]:
        """Documents by id, and the `after` of the next page: empty on the last."""
        limit = page_size(limit)
        page = await self._selection.page(collection, where, limit=limit, after=after)
        return page.rows, page.next_after

    async def get(self, collection: str, document_id: str) -> StoredDocument:
        """With its text. Raises NotFound, also for what the caller does not reach."""
        found = await self._documents.get(collection, document_id)
        if not access_tags.allows(found.row.access):
            raise absent(collection, document_id)
        return found

    async def versions(
        self, collection: str, document_id: str
    ) -> tuple[Document, Sequence[EarlierVersion]]:
        """Return a document and its earlier versions that the caller reaches, without texts.

        Raises:
            NotFound: there is no such document, or the caller does not reach it.
        """
        row = (await self.get(collection, document_id)).row
        earlier = await self._versions.earlier(collection, document_id)
        return row, [each for each in earlier if access_tags.allows(_tags_of(each, row))]

    async def version(
        self, collection: str, document_id: str, number: int
    ) -> tuple[Document, EarlierVersion]:
        """Return a document, and an earlier version of it with its text.

        Raises:
            NotFound: there is none, or the caller does not reach it.
        """
        row = (await self.get(collection, document_id)).row
        found = await self._versions.get(collection, document_id, number)
        if not access_tags.allows(_tags_of(found, row)):
            raise absent(collection, document_id)
        return row, found

    async def delete(self, collection: str, document_id: str, deadline: Deadline) -> int:
        """Forget a document and its chunks; how many chunks there were.

        The row goes first: from then on no job may write the document. Should the index then be
        away, the call fails, and the reconciler finishes the work, unless a further call does.

        Raises:
            NotFound: neither the database nor the index knows it.
        """
        deleted, missing = await self.delete_batch(collection, [document_id], deadline)
        if missing:
            raise absent(collection, document_id)
        return deleted

    async def delete_batch(
        self, collection: str, document_ids: Sequence[str], deadline: Deadline
    ) -> tuple[int, list[str]]:
        """Forget documents that the caller reaches, and their chunks, as `delete` does.

        Returns:
            How many chunks there were, and the ids that neither the database nor the index knows.

        Raises:
            InvalidInput: no id, or more than 1,000.
        """
        ids = list(dict.fromkeys(document_ids))
        if not 1 <= len(ids) <= MAX_BATCH:
            raise InvalidInput(f"The call names {len(ids)} documents; name 1 to {MAX_BATCH}.")
        hashes: list[str] = []
        missing: list[str] = []
        deleted = 0
        try:
            async with self._locks.of(collection):
                hidden = await self._documents.unreached(collection, ids)
                missing += [id_ for id_ in ids if id_ in hidden]
                for id_ in (each for each in ids if each not in hidden):
                    deadline.check("every document was deleted")
                    sha256 = await self._documents.delete(collection, id_)
                    if sha256 is not None:
                        hashes.append(sha256)
                        continue
                    # Its row may have gone in a call that failed before the index was cleared.
                    chunks = await self._clear(collection, [id_], deadline)
                    deleted += chunks
                    missing += [] if chunks else [id_]
                known = [id_ for id_ in ids if id_ not in set(missing)]
                if known:
                    deleted += await self._clear(collection, known, deadline)
        finally:
            if hashes:
                await self._blobs.purge(hashes, self._documents.unnamed_blobs)
        return deleted, missing

    async def delete_all(self, collection: str, deadline: Deadline) -> int:
        """Cancel a collection's jobs and forget its documents; how many there were.

        Raises:
            Forbidden: it holds documents that the caller does not reach.
        """
        if await self._documents.holds_unreached(collection):
            raise Forbidden(
                "The collection holds documents with access tags that the key does not hold; use "
                "a key that reaches all of them (raglan keys create --access '*')."
            )
        return await self.delete_everything(collection, deadline)

    async def delete_everything(self, collection: str, deadline: Deadline) -> int:
        """Do what `delete_all` does, whatever the caller reaches: for a restore."""
        async with self._submissions.of(collection):
            await self._ingestion.stop_collection(collection)
            return await self._forget_all(collection, deadline)

    async def _forget_all(self, collection: str, deadline: Deadline) -> int:
        count = 0
        async with self._locks.of(collection):
            while rows := await self._documents.delete_some(collection, _DELETED_AT_ONCE):
                deadline.check("every document was deleted")
                await self._clear(collection, [id_ for id_, _ in rows], deadline)
                await self._blobs.purge([sha for _, sha in rows], self._documents.unnamed_blobs)
                count += len(rows)
        return count

    async def finish_deletions(self) -> None:
        """Clear the index of documents that were deleted while it was away.

        Raises:
            RaglanError: it still is.
        """

        async def finish(collection: str) -> None:
            ids = await self._revisions.deletions(collection, _DELETED_AT_ONCE)
            await self.clear(collection, ids, Deadline.after(_FINISH_S))

        await finish_each(await self._revisions.unfinished(), finish)

    async def clear(
        self,
        collection: str,
        ids: Sequence[str],
        deadline: Deadline,
        hashes: Sequence[str] = (),
    ) -> None:
        """Remove what is left of documents whose rows are gone.

        Args:
            collection: that they were in.
            ids: theirs, 1,000 at most.
            deadline: of the calls.
            hashes: of their bytes, removed where nothing else names them.

        Raises:
            RaglanError: the index is away.
        """
        async with self._locks.of(collection):
            held = await self._documents.states(collection, ids)
            if gone := [id_ for id_ in ids if id_ not in held]:
                await self._clear(collection, gone, deadline)
            # What was submitted again is cleared by its job, which verifies its chunks.
            done = [id_ for id_, state in held.items() if state is not DocumentState.QUEUED]
            await self._revisions.finish(collection, done)
        if hashes:
            await self._blobs.purge(list(hashes), self._documents.unnamed_blobs)

    async def _clear(self, collection: str, ids: list[str], deadline: Deadline) -> int:
        try:
            deleted = await self._index.delete(collection, ids, deadline=deadline)
        except NotFound:
            deleted = 0
        await self._revisions.finish(collection, ids)
        return deleted


def _tags_of(version: EarlierVersion, document: Document) -> Sequence[str]:
    """Return the access tags that the index keeps for an earlier version."""
    return access_tags.narrowed(version.access, document.access)


def absent(collection: str, document_id: str) -> NotFound:
    """Return the error about a document that is not there, or not there for the caller."""
    return NotFound(f"There is no document {shortened(document_id)} in {shortened(collection)}.")


def page_size(limit: int) -> int:
    """Check the page size of a list call; 0 means the default. Raises InvalidInput."""
    if limit > MAX_PAGE:
        raise InvalidInput(f"limit is {limit}; the limit is {MAX_PAGE}.")
    return limit or DEFAULT_PAGE
