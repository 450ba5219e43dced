"""Deletions of documents, with the answers that were kept of their text."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog
from raglan.database import DatabaseUnavailable

from raglan_gateway.caches.similar import SimilarQuestions
from raglan_gateway.conversation.archive import Archive
from raglan_gateway.shared.answer_cache import AnswerCache, Reply

log: Final = structlog.get_logger()


class Deletions:
    """Deletes from the index, the answers for outages, and the kept answers.

    Args:
        answers: given again while no retriever can be reached.
        archive: kept for sessions and replay.
        similar: questions whose answers are cached.
    """

    def __init__(self, answers: AnswerCache, archive: Archive, similar: SimilarQuestions) -> None:
        self._answers = answers
        self._archive = archive
        self._similar = similar

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
