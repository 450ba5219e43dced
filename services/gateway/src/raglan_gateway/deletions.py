"""Deletions and changes of documents, with the answers that were kept of their text."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import structlog
from raglan import tenancy
from raglan.background import keep_running
from raglan.database import DatabaseUnavailable
from raglan.errors import REFUSALS, NotFound, RaglanError
from raglan.v1 import ingester_pb2

from raglan_gateway.caches.similar import SimilarQuestions
from raglan_gateway.conversation.archive import Archive
from raglan_gateway.conversation.records import OpenChange
from raglan_gateway.shared.answer_cache import AnswerCache, FetchRevisions, Reply

log: Final = structlog.get_logger()
T = TypeVar("T")
FetchJobs = Callable[[str, str], Awaitable[Sequence[ingester_pb2.Job]]]
_FOLLOW_S: Final = 1.0


class Deletions:
    """Deletes from the index, the answers for outages, and the kept answers.

    A change is noted in the database before it begins and closed when it has ended; answers of its
    documents are deleted then, and those that were begun before are not kept. What was noted and
    not closed, because a job goes on, an index is away or a gateway has died, is followed here.

    Args:
        answers: given again while no retriever can be reached.
        archive: kept for sessions and replay.
        similar: questions whose answers are cached.
        jobs: fetches the jobs that may make a change, by its collection and the id of its job; an
            empty id stands for one that is not known.
        revisions: the ingester's `GetRevisions`.
    """

    def __init__(
        self,
        answers: AnswerCache,
        archive: Archive,
        similar: SimilarQuestions,
        jobs: FetchJobs,
        revisions: FetchRevisions,
    ) -> None:
        self._answers = answers
        self._archive = archive
        self._similar = similar
        self._jobs = jobs
        self._revisions = revisions
        self._following: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start to follow changes that are open."""
        self._following = asyncio.create_task(
            keep_running("delete answers of changed documents", self._follow)
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
        untouched: Callable[[Reply], Sequence[str]] = lambda _: (),
    ) -> Reply:
        """Delete documents; afterwards no answer that was made of them is kept.

        Args:
            collection: that they are in.
            delete: deletes them from the index.
            document_ids: theirs; none means all of the collection.
            untouched: reads from the reply which of them did not change.

        Raises:
            DatabaseUnavailable: kept answers cannot be deleted now; nothing was.
        """
        async with self._noted(collection, document_ids) as change:
            reply = await self._answers.deletion(collection, delete())
            self._similar.forget(collection)
            await _soon(self._archive.delete_changed(change, untouched(reply)))
        return reply

    async def relabel(self, collection: str, change: Callable[[], Awaitable[Reply]]) -> Reply:
        """Change metadata; no answer for outages is given from before. Kept answers stay."""
        return await self._answers.deletion(collection, change())

    async def by_job(
        self, collection: str, submit: Callable[[], Awaitable[T]], job_of: Callable[[T], Any]
    ) -> T:
        """Submit a job that deletes or tags; none of the collection's answers outlasts it.

        Which documents it takes shows only later, so the answers of all of them go at its end.

        Args:
            collection: that the documents are in.
            submit: submits the job.
            job_of: reads the job from the reply; one without an id if there is nothing to do.

        Raises:
            DatabaseUnavailable: the change cannot be noted now; nothing was submitted.
        """
        async with self._noted(collection) as change:
            reply = await submit()
            if job_id := job_of(reply).id:
                await _soon(self._archive.follow_job(change, job_id))
            else:
                await _soon(self._archive.drop_change(change))
        return reply

    @asynccontextmanager
    async def _noted(self, collection: str, document_ids: Sequence[str] = ()) -> AsyncIterator[str]:
        """Note a change for a block, and drop it where the block's request is refused."""
        change = await self._archive.note_change(collection, document_ids)
        try:
            yield change
        except REFUSALS:
            await _soon(self._archive.drop_change(change))
            raise

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(_FOLLOW_S)
            await self.follow()

    async def follow(self) -> None:
        """Close the open changes that have ended."""
        try:
            changes = await self._archive.open_changes()
        except DatabaseUnavailable as error:
            log.debug("changes of documents are followed later", reason=error.message)
            return
        for change in changes:
            try:
                with tenancy.serving(change.tenant):
                    await self._close(change)
            except RaglanError as error:
                log.debug("a change of documents is followed later", reason=error.message)

    async def _close(self, change: OpenChange) -> None:
        """Close a change, unless its job goes on or the index has yet to follow.

        The index is asked about first, which spares the jobs while it is away, and again after the
        job's end, because a job marks what it leaves to the index before it ends.
        """
        if await self._is_index_behind(change.collection):
            return
        try:
            jobs = await self._jobs(change.collection, change.job_id)
        except NotFound:
            jobs = []
        if not all(job.HasField("finished_at") for job in jobs):
            return
        if change.job_id and jobs and all(map(_changed_nothing, jobs)):
            await self._archive.drop_change(change.id)
        elif not await self._is_index_behind(change.collection):
            self._similar.forget(change.collection)
            await self._archive.delete_changed(change.id)

    async def _is_index_behind(self, collection: str) -> bool:
        return bool((await self._revisions([collection])).unfinished)


def _changed_nothing(job: ingester_pb2.Job) -> bool:
    is_whole = job.status == ingester_pb2.JOB_STATUS_SUCCEEDED
    return is_whole and not any(stage.done for stage in job.stages)


async def _soon(step: Awaitable[None]) -> None:
    """Await a step that `follow` makes up for where the database is away."""
    try:
        await step
    except DatabaseUnavailable as error:
        log.warning("answers of changed documents are deleted later", reason=error.message)
