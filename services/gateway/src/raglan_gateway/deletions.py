"""Deletions and changes of documents, with the answers that were kept of their text."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

import structlog
from raglan import tenancy
from raglan.background import keep_running
from raglan.database import DatabaseUnavailable
from raglan.errors import RaglanError

from raglan_gateway.caches.similar import SimilarQuestions
from raglan_gateway.conversation.archive import Archive
from raglan_gateway.shared.answer_cache import AnswerCache, Reply

log: Final = structlog.get_logger()
T = TypeVar("T")
_FOLLOW_S: Final = 2.0


class Deletions:
    """Deletes from the index, the answers for outages, and the kept answers.

    Args:
        answers: given again while no retriever can be reached.
        archive: kept for sessions and replay.
        similar: questions whose answers are cached.
        is_changing: tells whether a job that deletes or tags documents of a collection has not
            ended.
    """

    def __init__(
        self,
        answers: AnswerCache,
        archive: Archive,
        similar: SimilarQuestions,
        is_changing: Callable[[str], Awaitable[bool]],
    ) -> None:
        self._answers = answers
        self._archive = archive
        self._similar = similar
        self._is_changing = is_changing
        self._following: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start to follow jobs that delete or tag by a filter."""
        self._following = asyncio.create_task(
            keep_running("forget answers of changed documents", self._follow)
        )

    async def close(self) -> None:
        """Stop following."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait((self._following,))

    async def run(
        self,
        collection: str,
        delete: Callable[[], Awaitable[Reply]],
        document_ids: Sequence[str] = (),
    ) -> Reply:
        """Delete documents; afterwards no answer that was made of them is kept.

        Args:
            collection: that they are in.
            delete: deletes them from the index.
            document_ids: theirs; none means all of the collection.

        Raises:
            DatabaseUnavailable: kept answers cannot be deleted now; nothing was.
        """
        # First, so that a repeated request finds the document still there when this fails.
        await self._archive.forget(collection, document_ids)
        reply = await self._answers.deletion(collection, delete())
        self._similar.forget(collection)
        try:
            await self._archive.forget(collection, document_ids)
        except DatabaseUnavailable as error:
            log.warning("answers made during a deletion stay", reason=error.message)
        return reply

    async def relabel(self, collection: str, change: Callable[[], Awaitable[Reply]]) -> Reply:
        """Change metadata; no answer for outages is given from before. Kept answers stay."""
        return await self._answers.deletion(collection, change())

    async def by_filter(self, collection: str, submit: Callable[[], Awaitable[T]]) -> T:
        """Submit a job that deletes or tags; none of the collection's answers outlasts it.

        Which documents it takes shows only later, so the answers of all of them go. That is noted
        in the database before the job can begin: a gateway that ends meanwhile goes on with it.

        Raises:
            DatabaseUnavailable: it cannot be noted now; nothing was submitted.
        """
        await self._archive.begin_purge(collection)
        await self._archive.forget(collection, ())
        self._similar.forget(collection)
        return await submit()

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(_FOLLOW_S)
            try:
                for tenant, collection, began_ms in await self._archive.purges():
                    with tenancy.serving(tenant):
                        if not await self._is_changing(collection):
                            await self._archive.end_purge(tenant, collection, began_ms)
            except RaglanError as error:
                log.debug("answers of changed documents are deleted later", reason=error.message)
